"""Rotary position embedding, plain and YaRN, in the two layouts of DeepSeek-V3.2.

The main attention rotates interleaved pairs (x0, x1), (x2, x3), ...; the lightning indexer rotates the two
halves of its first rope dimensions against one another. Mixing them up shows no error, only worse retrieval
at long context.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


def yarn_mscale(factor: float, mscale: float) -> float:
    """Attention temperature of YaRN (arXiv 2309.00071, eq. 22) in DeepSeek's parametrisation."""
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


def softmax_scale(config: Any) -> float:
    """(nope + rope)^-0.5, times mscale_all_dim's temperature squared under YaRN."""
    scale = (config.qk_nope_head_dim + config.qk_rope_head_dim) ** -0.5
    rope = config.rope_parameters
    if rope.get("rope_type", "default") != "default" and rope.get("mscale_all_dim"):
        scale *= yarn_mscale(rope["factor"], rope["mscale_all_dim"]) ** 2
    return scale


def inverse_frequencies(config: Any) -> tuple[Tensor, float]:
    """Inverse frequencies [rope_dim / 2] float32 and the factor on cos and sin, from
    `config.rope_parameters`."""
    rope, dim = config.rope_parameters, config.qk_rope_head_dim
    base, kind = rope["rope_theta"], rope.get("rope_type", "default")
    # On CPU by name: from_pretrained builds the model under a meta default device, and these are no weights.
    plain = 1.0 / base ** (torch.arange(0, dim, 2, dtype=torch.float32, device="cpu") / dim)
    if kind == "default":
        return plain, 1.0
    if kind != "yarn":
        raise ValueError(f"rope_type {kind!r} is not supported; use 'default' or 'yarn'")
    trained = rope["original_max_position_embeddings"]
    factor = rope.get("factor") or config.max_position_embeddings / trained

    def turning_dim(rotations: float) -> float:
        """The (fractional) pair that makes `rotations` turns over the trained length."""
        return dim * math.log(trained / (rotations * 2 * math.pi)) / (2 * math.log(base))

    low, high = turning_dim(rope.get("beta_fast") or 32), turning_dim(rope.get("beta_slow") or 1)
    if rope.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    # Pairs that turn often keep their frequency, those that turn seldom are stretched by `factor`.
    ramp = (torch.arange(dim // 2, dtype=torch.float32, device="cpu") - low) / max(high - low, 1e-3)
    stretched = ramp.clamp(0, 1)
    frequencies = plain * (1 - stretched) + plain / factor * stretched
    attention_factor = rope.get("attention_factor")
    if attention_factor is None:
        mscale, all_dim = rope.get("mscale"), rope.get("mscale_all_dim")
        if mscale and all_dim:
            attention_factor = yarn_mscale(factor, mscale) / yarn_mscale(factor, all_dim)
        else:
            attention_factor = yarn_mscale(factor, 1.0)
    return frequencies, float(attention_factor)


@dataclass(frozen=True)
class RopeTables:
    """Rotations of R rows: `pairs` [R, 1, rope/2] complex for the main attention; cos, sin [R, rope/2] for
    the indexer."""

    pairs: Tensor
    cos: Tensor
    sin: Tensor

    @classmethod
    def build(cls, frequencies: Tensor, factor: float, positions: Tensor, dtype: torch.dtype) -> RopeTables:
        """Tables for positions [R], in float64 for a float64 model and float32 otherwise."""
        real = torch.float64 if dtype == torch.float64 else torch.float32
        angles = torch.outer(positions.to(real), frequencies.to(positions.device, real))
        cos, sin = angles.cos() * factor, angles.sin() * factor
        return cls(torch.complex(cos, sin).unsqueeze(1), cos, sin)

    def rotate_pairs(self, x: Tensor) -> Tensor:
        """Rotates interleaved pairs of x [R, heads, rope]."""
        pairs = torch.view_as_complex(x.to(self.cos.dtype).contiguous().view(*x.shape[:-1], -1, 2))
        return torch.view_as_real(pairs * self.pairs).flatten(-2).to(x.dtype)

    def rotate_halves(self, x: Tensor) -> Tensor:
        """Rotates the first rope dimensions of x [R, heads, d], half against half; the others pass."""
        half = self.cos.shape[-1]
        cos, sin = self.cos.to(x.dtype).unsqueeze(1), self.sin.to(x.dtype).unsqueeze(1)
        first, second, rest = x.split([half, half, x.shape[-1] - 2 * half], dim=-1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], dim=-1)
