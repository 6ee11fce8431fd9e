"""Sparse MLA attention in Triton: one kernel that serves the forward pass and every form of decode."""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.backend import is_hopper
from kernels.quantize import LATENT_BLOCK, latent_views
from kernels.tuning import config


@triton.jit
def attend(
    q,  # [rows, heads, VALUE + ROPE]
    nope,  # [cache rows, VALUE]: q's dtype, or e4m3 when FP8
    scales,  # FP8 only: [cache rows, VALUE / GROUP] fp32
    rope,  # [cache rows, ROPE]
    indices,  # [rows, keys]; not RANGE
    starts,  # [rows]; RANGE
    ends,
    out,  # [rows, splits, heads, VALUE]
    lse,  # [rows, splits, heads] fp32, natural log
    scale_log2,
    heads,
    keys,
    split,  # keys of one program, a multiple of BLOCK_N
    NOPE_STRIDE: tl.constexpr,
    SCALES_STRIDE: tl.constexpr,
    ROPE_STRIDE: tl.constexpr,
    VALUE: tl.constexpr,
    ROPE: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_N: tl.constexpr,
    STAGES: tl.constexpr,
):
    """BLOCK_H heads of one query over one split of its keys. The heads of a query are neighbours in the grid: the
    second block of heads finds the rows that the first gathered in L2."""
    RANGE: tl.constexpr = indices is None
    FP8: tl.constexpr = scales is not None
    blocks = tl.cdiv(heads, BLOCK_H)
    row = (tl.program_id(0) // blocks).to(tl.int64)
    head = tl.program_id(0) % blocks * BLOCK_H + tl.arange(0, BLOCK_H)
    first = tl.program_id(1) * split
    live = head < heads
    v = tl.arange(0, BLOCK_V)
    r = tl.arange(0, BLOCK_R)
    n = tl.arange(0, BLOCK_N)

    q_rows = q + (row * heads + head) * (VALUE + ROPE)
    q_nope = tl.load(q_rows[:, None] + v[None, :], mask=_inside(live, v, VALUE, BLOCK_V), other=0.0)
    q_rope = tl.load(q_rows[:, None] + VALUE + r[None, :], mask=_inside(live, r, ROPE, BLOCK_R), other=0.0)

    if RANGE:
        start = tl.load(starts + row).to(tl.int64) + first
        count = tl.minimum(split, tl.load(ends + row) - start).to(tl.int32)
    else:
        picks = indices + row * keys + first
        # The padding at the end of a row costs nothing: one look at all slots finds the last one in use.
        count = 0
        slots = tl.arange(0, 2048)
        for tile in tl.range(0, tl.minimum(split, keys - first), 2048):
            picked = tl.load(picks + tile + slots, mask=tile + slots < tl.minimum(split, keys - first), other=-1)
            count = tl.maximum(count, tl.max(tl.where(picked >= 0, tile + slots + 1, 0)))

    # A finite start: exp2(-inf - m) is 0 also in a row that has met no key yet, never exp2(nan).
    m = tl.full((BLOCK_H,), -1e30, tl.float32)
    total = tl.zeros((BLOCK_H,), tl.float32)
    acc = tl.zeros((BLOCK_H, BLOCK_V), tl.float32)
    for tile in tl.range(0, count, BLOCK_N, num_stages=STAGES):
        slot = tile + n
        valid = slot < count
        if RANGE:
            key = start + slot
        else:
            key = tl.load(picks + slot, mask=valid, other=-1).to(tl.int64)
            valid = key >= 0
        # Rows without a key are zeros, not whatever the cache holds: 0 * inf would be a NaN.
        if FP8:
            group = tl.arange(0, BLOCK_V // GROUP)
            within = tl.arange(0, GROUP)
            cell = (group * GROUP)[None, :, None] + within[None, None, :]
            inside = _inside(valid, group * GROUP, VALUE, BLOCK_V)
            codes = tl.load(nope + key[:, None, None] * NOPE_STRIDE + cell, mask=inside[:, :, None], other=0.0)
            factor = tl.load(scales + key[:, None] * SCALES_STRIDE + group[None, :], mask=inside, other=0.0)
            k_nope = (codes.to(tl.float32) * factor[:, :, None]).to(q_nope.dtype)
            k_nope = tl.reshape(k_nope, (BLOCK_N, BLOCK_V))
        else:
            inside = _inside(valid, v, VALUE, BLOCK_V)
            k_nope = tl.load(nope + key[:, None] * NOPE_STRIDE + v[None, :], mask=inside, other=0.0)
        inside = _inside(valid, r, ROPE, BLOCK_R)
        k_rope = tl.load(rope + key[:, None] * ROPE_STRIDE + r[None, :], mask=inside, other=0.0).to(q_rope.dtype)

        score = tl.dot(q_nope, tl.trans(k_nope), input_precision="ieee")
        score = tl.dot(q_rope, tl.trans(k_rope), score, input_precision="ieee")
        score = tl.where(valid[None, :], score * scale_log2, -float("inf"))
        peak = tl.maximum(m, tl.max(score, 1))
        p = tl.exp2(score - peak[:, None])
        decay = tl.exp2(m - peak)
        total = total * decay + tl.sum(p, 1)
        acc = tl.dot(p.to(q_nope.dtype), k_nope, acc * decay[:, None], input_precision="ieee")
        m = peak

    LN2: tl.constexpr = 0.6931471805599453
    at = (row * tl.num_programs(1) + tl.program_id(1)) * heads + head
    some = tl.where(total == 0, 1.0, total)
    tl.store(lse + at, tl.where(total == 0, -float("inf"), (m + tl.log2(some)) * LN2), mask=live)
    acc = acc / some[:, None]
    # Of an empty split, one among many of a short row, only lse is read.
    inside = _inside(live & ((count > 0) | (tl.num_programs(1) == 1)), v, VALUE, BLOCK_V)
    tl.store(out + at[:, None] * VALUE + v[None, :], acc.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _inside(rows, columns, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    """Mask of a tile with live `rows`; a width that fills the tile costs no comparison."""
    mask = rows[:, None]
    if SIZE != BLOCK:
        mask = mask & (columns < SIZE)[None, :]
    return mask


def tiles(q: Tensor, cache: Tensor, value_dim: int) -> dict[str, Any]:
    """Launch parameters of `attend` for queries [rows, H, D] over a cache, from `tuned.json`."""
    few = q.shape[1] <= 16
    default = {"BLOCK_H": 16 if few else 32, "BLOCK_N": 32, "STAGES": 2, "num_warps": 4 if few else 8}
    if q.element_size() == 4:
        default |= {"BLOCK_H": 16, "BLOCK_N": 16, "STAGES": 1}
    kind = "fp8" if cache.dtype == torch.uint8 else str(cache.dtype).removeprefix("torch.")
    return config("sparse_mla", f"{kind},heads={q.shape[1]},value={value_dim}", default)


def launch(
    q: Tensor,
    cache: Tensor,
    out: Tensor,
    lse: Tensor,
    scale: float,
    *,
    indices: Tensor | None = None,
    bounds: tuple[Tensor, Tensor] | None = None,
    split: int,
    splits: int,
) -> None:
    """Attention of queries [rows, H, D] over the keys of `indices` [rows, k], or over the range between the two
    `bounds` [rows], `split` of them per program. `out` is [rows, splits, H, value], `lse` [rows, splits, H]."""
    rows, heads, dim = q.shape
    value_dim = out.shape[-1]
    if is_hopper(q):
        from kernels import sparse_mla_gluon

        if sparse_mla_gluon.takes(q, cache, value_dim):
            return sparse_mla_gluon.launch(q, cache, out, lse, scale, indices, bounds, split, splits)
    rope_dim = dim - value_dim
    scales = None
    nope, rope = cache[:, :value_dim], cache[:, value_dim:]
    if cache.dtype == torch.uint8:
        nope, scales, rope = latent_views(cache, value_dim)
    options = tiles(q, cache, value_dim)
    starts, ends = bounds or (None, None)
    attend[(rows * triton.cdiv(heads, options["BLOCK_H"]), splits)](
        q, nope, scales, rope, indices, starts, ends, out, lse,
        scale * math.log2(math.e), heads, 0 if indices is None else indices.shape[1], split,
        NOPE_STRIDE=nope.stride(0),
        SCALES_STRIDE=0 if scales is None else scales.stride(0),
        ROPE_STRIDE=rope.stride(0),
        VALUE=value_dim, ROPE=rope_dim, GROUP=LATENT_BLOCK,
        BLOCK_V=triton.next_power_of_2(max(value_dim, 16)), BLOCK_R=triton.next_power_of_2(max(rope_dim, 16)),
        **options,
    )  # fmt: skip


def sparse_mla_forward(q: Tensor, kv: Tensor, indices: Tensor, scale: float, value_dim: int) -> tuple[Tensor, Tensor]:
    """The Triton body of `kernels.sparse_mla_attention`, without gradient; same arguments and results."""
    rows, heads, _ = q.shape
    out = q.new_empty(rows, heads, value_dim)
    lse = q.new_empty(rows, heads, dtype=torch.float32)
    launch(
        q.contiguous(), kv, out.unsqueeze(1), lse.unsqueeze(1), scale,
        indices=indices.contiguous(), split=indices.shape[1], splits=1,
    )  # fmt: skip
    return out, lse
