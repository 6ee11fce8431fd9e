"""FP8 (e4m3) vectors with one scale each, for the indexer, and the FP8 format of the latent cache."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.backend import use_triton

E4M3_MAX = 448.0
# Smallest magnitude that a scale provides for, so that a vector of zeros has a scale too.
AMAX_FLOOR = 1e-4
# Latent values that share one scale in the cache.
LATENT_BLOCK = 128


def quantize_fp8(x: Tensor, hadamard: bool = False, ue8m0: bool = True) -> tuple[Tensor, Tensor]:
    """Each last-dimension vector in FP8 with one scale: x ~ x8 * scale. No gradient.

    Args:
        x: [..., d] float32, float16 or bfloat16.
        hadamard: multiply the vectors by the orthogonal Hadamard matrix H / sqrt(d) first (d a power of two). Products
            of two vectors that were both rotated stay what they were, and outliers are spread over all components.
        ue8m0: round the scale up to a power of two, so that dividing by it is exact.

    Returns:
        x8 [..., d] float8_e4m3fn and scale [...] float32 > 0, max(|x|, 1e-4) / 448 before rounding.
    """
    return _quantize_fp8(x, hadamard, ue8m0)


def hadamard_transform(x: Tensor) -> Tensor:
    """x [..., d] times the Sylvester-Hadamard matrix / sqrt(d), in x's dtype; its own inverse. Differentiable.

    Raises:
        ValueError: d is not a power of two.
    """
    dim = x.shape[-1]
    if dim & (dim - 1):
        raise ValueError(f"a Hadamard matrix of this kind needs a power of two for its size; the vectors have {dim}")
    matrix = torch.ones(1, 1, dtype=x.dtype, device=x.device)
    while len(matrix) < dim:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return (x @ matrix) * dim**-0.5


def quantize_latent(kv: Tensor, value_dim: int = 512, ue8m0: bool = True) -> Tensor:
    """Rows of the latent cache in its FP8 format: 656 bytes for 512 latent and 64 rope values. No gradient.

    Args:
        kv: [N, value_dim + rope] bfloat16 or float32: the normalised latent, then the rotated rope key.
        value_dim: a multiple of 128.
        ue8m0: as for `quantize_fp8`.

    Returns:
        [N, value_dim + 4 * value_dim / 128 + 2 * rope] uint8: e4m3 values, one float32 scale for each 128 of them, rope
        values in bfloat16.
    """
    if value_dim % LATENT_BLOCK:
        raise ValueError(f"the FP8 cache has one scale for {LATENT_BLOCK} values; value_dim {value_dim} is no multiple")
    return _quantize_latent(kv, value_dim, ue8m0)


def dequantize_latent(packed: Tensor, value_dim: int = 512, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """The rows that `quantize_latent` packed, [N, value_dim + rope] in `dtype`."""
    values, scale, rope = latent_views(packed, value_dim)
    latent = values.to(torch.float32) * scale.unsqueeze(-1)
    return torch.cat([latent.flatten(1), rope.float()], 1).to(dtype)


def latent_views(packed: Tensor, value_dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """The three parts of packed rows [N, bytes] uint8, as views: values [N, blocks, 128] float8_e4m3fn, scales
    [N, blocks] float32, rope [N, rope] bfloat16."""
    blocks = value_dim // LATENT_BLOCK
    rope = value_dim + 4 * blocks
    values = packed[:, :value_dim].view(torch.float8_e4m3fn).unflatten(1, (blocks, LATENT_BLOCK))
    return values, packed[:, value_dim:rope].view(torch.float32), packed[:, rope:].view(torch.bfloat16)


@torch.library.custom_op("polymath::quantize_fp8", mutates_args=())
def _quantize_fp8(x: Tensor, hadamard: bool, ue8m0: bool) -> tuple[Tensor, Tensor]:
    values = torch.empty(x.shape, dtype=torch.float8_e4m3fn, device=x.device)
    scale = torch.empty(x.shape[:-1], dtype=torch.float32, device=x.device)
    dim = x.shape[-1]
    _quantize_into(x.reshape(-1, 1, dim), values.view(-1, 1, dim), scale.view(-1, 1), hadamard, ue8m0)
    return values, scale


@_quantize_fp8.register_fake
def _(x: Tensor, hadamard: bool, ue8m0: bool) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape, dtype=torch.float8_e4m3fn), x.new_empty(x.shape[:-1], dtype=torch.float32)


@torch.library.custom_op("polymath::quantize_latent", mutates_args=())
def _quantize_latent(kv: Tensor, value_dim: int, ue8m0: bool) -> Tensor:
    blocks = value_dim // LATENT_BLOCK
    width = value_dim + 4 * blocks + 2 * (kv.shape[1] - value_dim)
    packed = torch.empty(len(kv), width, dtype=torch.uint8, device=kv.device)
    values, scale, rope = latent_views(packed, value_dim)
    _quantize_into(kv[:, :value_dim].unflatten(1, (blocks, LATENT_BLOCK)), values, scale, False, ue8m0)
    rope.copy_(kv[:, value_dim:])
    return packed


@_quantize_latent.register_fake
def _(kv: Tensor, value_dim: int, ue8m0: bool) -> Tensor:
    width = value_dim + 4 * (value_dim // LATENT_BLOCK) + 2 * (kv.shape[1] - value_dim)
    return kv.new_empty(len(kv), width, dtype=torch.uint8)


def _quantize_into(x: Tensor, values: Tensor, scale: Tensor, hadamard: bool, ue8m0: bool) -> None:
    """x [N, blocks, d] into values [N, blocks, d] and scale [N, blocks]; the last dimensions are contiguous."""
    dim = x.shape[-1]
    if hadamard and dim & (dim - 1):
        raise ValueError(f"a Hadamard matrix of this kind needs a power of two for its size; the vectors have {dim}")
    if use_triton(x):
        from kernels.quantize_triton import quantize_into

        return quantize_into(x, values, scale, hadamard, ue8m0)
    x = x.float()
    if hadamard:
        x = hadamard_transform(x)
    amax = x.abs().amax(-1).clamp_min(AMAX_FLOOR)
    s = amax / E4M3_MAX
    if ue8m0:
        # Adding all ones to the mantissa carries into the exponent unless the mantissa is zero.
        s = ((s.view(torch.int32) + 0x7FFFFF) & 0x7F800000).view(torch.float32)
    values.copy_(x / s.unsqueeze(-1))
    scale.copy_(s)
