"""Split-KV decode in Triton: partial results of fixed splits of the keys, then their sum in a fixed order."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.sparse_mla_triton import launch
from kernels.tuning import config


def split_keys(heads: int, value_dim: int) -> int:
    """Keys of one split. It depends on the model alone: not on the batch, and not on how many keys there are."""
    return config("mla_decode", f"heads={heads},value={value_dim}", {"split": 1024})["split"]


def decode(
    q: Tensor,
    cache: Tensor,
    scale: float,
    value_dim: int,
    split: int | None,
    keys: int,
    *,
    indices: Tensor | None = None,
    bounds: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """The Triton body of `kernels.sparse_mla_decode` (`indices`) and of `kernels.dense_mla_decode` (`bounds`).

    Args:
        q, cache, scale, value_dim, indices: as there.
        split: keys of one split, or None for the tuned number.
        keys: bound on the keys of a row.
        bounds: first row and row after the last, each int32 [B].
    """
    batch, heads, _ = q.shape
    split = split or split_keys(heads, value_dim)
    splits = max(triton.cdiv(keys, split), 1)
    out = q.new_empty(batch, heads, value_dim)
    lse = q.new_empty(batch, heads, dtype=torch.float32)
    part, part_lse = out.unsqueeze(1), lse.unsqueeze(1)
    if splits > 1:
        part = q.new_empty(batch, splits, heads, value_dim, dtype=torch.float32)
        part_lse = q.new_empty(batch, splits, heads, dtype=torch.float32)
    launch(
        q.contiguous(), cache, part, part_lse, scale, indices=indices, bounds=bounds, split=split, splits=splits
    )  # fmt: skip
    if splits > 1:
        block = triton.next_power_of_2(value_dim)
        _combine[(batch, heads)](part, part_lse, out, lse, splits, VALUE=value_dim, BLOCK_V=block, num_warps=4)
    return out, lse


@triton.jit
def _combine(part, part_lse, out, lse, splits, VALUE: tl.constexpr, BLOCK_V: tl.constexpr):
    """One head of one query: the splits one after the other. An empty split changes no bit, so that a row does not
    depend on the bound on the keys."""
    row, head, heads = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.num_programs(1)
    v = tl.arange(0, BLOCK_V)
    peak = -1e30
    total = 0.0
    acc = tl.zeros((BLOCK_V,), tl.float32)
    for split in range(splits):
        at = (row * splits + split) * heads + head
        this = tl.load(part_lse + at)
        # Another finite peak than the split's own -inf, for the reason given in `attend`.
        higher = tl.maximum(peak, this)
        decay, weight = tl.exp(peak - higher), tl.exp(this - higher)
        total = total * decay + weight
        filled = v < tl.where(this > -float("inf"), VALUE, 0)
        values = tl.load(part + at * VALUE + v, mask=filled, other=0.0)
        acc = acc * decay + values * weight
        peak = higher
    at = row * heads + head
    some = tl.where(total == 0, 1.0, total)
    tl.store(lse + at, tl.where(total == 0, -float("inf"), peak + tl.log(some)))
    tl.store(out + at * VALUE + v, (acc / some).to(out.dtype.element_ty), mask=v < VALUE)
