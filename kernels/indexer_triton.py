"""Triton bodies of the indexer's scores: a tile of keys against the heads of one query at a time.

The scores of a tile are the products [keys, heads], rectified, weighted and summed along each row. Both kernels share
that step, so that in float32 (one tile shape) a key's score has the same bits in either.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.tuning import config


def rows(q: Tensor, k: Tensor, k_scale: Tensor | None, weights: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
    """Body of `indexer_logits_rows` and, with k_scale, of `indexer_logits_fp8`."""
    (count, heads, dim), keys = q.shape, len(k)
    out = torch.empty(count, keys, dtype=torch.float32, device=q.device)
    if not count or not keys:
        return out
    tile = _tile("indexer_rows", q, {"queries": 64})
    queries, launch = tile.pop("queries"), _launch(tile)
    grid = (triton.cdiv(keys, tile["KEYS"]), triton.cdiv(count, queries))
    _rows_kernel[grid](
        q.contiguous(),
        k.contiguous(),
        None if k_scale is None else k_scale.contiguous(),
        weights.float().contiguous(),
        starts.contiguous(),
        ends.contiguous(),
        out,
        count,
        keys,
        heads,
        dim,
        QUERIES=queries,
        **tile,
        **launch,
    )
    return out


def decode(
    q: Tensor,
    k_cache: Tensor,
    k_scale: Tensor | None,
    weights: Tensor,
    slots: Tensor,
    lengths: Tensor,
    max_length: int,
) -> Tensor:
    """Body of `indexer_logits_decode`."""
    batch, heads, dim = q.shape
    out = torch.empty(batch, max_length, dtype=torch.float32, device=q.device)
    if not batch or not max_length:
        return out
    # Two-byte keys: half as many in a tile, so that the stages fit into the shared memory of any GPU.
    tile = _tile("indexer_decode", q, {"KEYS": 64, "span": 16} if q.element_size() == 2 else {"span": 8})
    span, launch = tile.pop("span") * tile["KEYS"], _launch(tile)
    _decode_kernel[(triton.cdiv(max_length, span), batch)](
        q.contiguous(),
        k_cache,
        k_scale,
        weights.float().contiguous(),
        slots.contiguous(),
        lengths.contiguous(),
        out,
        max_length,
        heads,
        dim,
        k_cache.stride(0),
        k_cache.stride(1),
        0 if k_scale is None else k_scale.stride(0),
        SPAN=span,
        **tile,
        **launch,
    )
    return out


def _tile(kernel: str, q: Tensor, default: dict[str, int]) -> dict[str, Any]:
    heads, dim = (max(16, triton.next_power_of_2(size)) for size in q.shape[1:])
    if q.dtype == torch.float32:
        # Products of float32 run on the CUDA cores and hold a slice of both operands in registers.
        shape = {"KEYS": 32, "SLICE": 16, "warps": 4, "stages": 1}
    else:
        shape = {"KEYS": 128, "SLICE": dim, "warps": 4, "stages": 3}
    key = f"{str(q.dtype).removeprefix('torch.')},heads={q.shape[1]},dim={q.shape[2]}"
    return {"HEADS": heads, "DIM": dim, **config(kernel, key, {**shape, **default})}


def _launch(tile: dict[str, Any]) -> dict[str, int]:
    return {"num_warps": tile.pop("warps"), "num_stages": tile.pop("stages")}


@triton.jit
def _load(row_ptrs, live, first, dim, COLUMNS: tl.constexpr):
    """Columns from `first` on of the rows that begin at row_ptrs; zeros where a row is not live or has ended."""
    col = first + tl.arange(0, COLUMNS)
    return tl.load(row_ptrs[:, None] + col[None, :], mask=live[:, None] & (col < dim)[None, :], other=0.0)


@triton.jit
def _products(
    q_ptrs, q_live, k_ptrs, k_live, dim, HEADS: tl.constexpr, KEYS: tl.constexpr, DIM: tl.constexpr, SLICE: tl.constexpr
):
    """[keys, heads] by slices of the vectors, for tiles that registers do not hold."""
    z = tl.zeros((KEYS, HEADS), tl.float32)
    for first in range(0, DIM, SLICE):
        k = _load(k_ptrs, k_live, first, dim, SLICE)
        q = _load(q_ptrs, q_live, first, dim, SLICE)
        z = tl.dot(k, tl.trans(q), z, input_precision="ieee")
    return z


@triton.jit
def _weighted_sum(z, w):
    """Scores [keys] of the products z [keys, heads]."""
    return tl.sum(tl.maximum(z, 0.0) * w[None, :], 1)


@triton.jit(do_not_specialize=["count"])
def _rows_kernel(
    q_ptr,
    k_ptr,
    k_scale_ptr,
    w_ptr,
    starts_ptr,
    ends_ptr,
    out_ptr,
    count,
    keys,
    heads,
    dim,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    HEADS: tl.constexpr,
    DIM: tl.constexpr,
    SLICE: tl.constexpr,
):
    first = tl.program_id(1) * QUERIES
    row = first + tl.arange(0, QUERIES)
    start = tl.load(starts_ptr + row, mask=row < count, other=2147483647)
    end = tl.load(ends_ptr + row, mask=row < count, other=0)
    live = start < end
    low, high = tl.min(tl.where(live, start, 2147483647)), tl.max(tl.where(live, end, 0))
    tile = tl.program_id(0) * KEYS
    if (tile < high) & (tile + KEYS > low):
        key = tile + tl.arange(0, KEYS)
        head = tl.arange(0, HEADS)
        inside = key < keys
        k_ptrs = k_ptr + key.to(tl.int64) * dim
        if SLICE == DIM:
            k = _load(k_ptrs, inside, 0, dim, DIM)
        if k_scale_ptr is not None:
            k_scale = tl.load(k_scale_ptr + key, mask=inside, other=0.0)
        valid = head < heads
        for i in range(tl.minimum(QUERIES, count - first)):
            m = (first + i).to(tl.int64)
            q_ptrs = q_ptr + (m * heads + head) * dim
            w = tl.load(w_ptr + m * heads + head, mask=valid, other=0.0)
            if SLICE == DIM:
                z = tl.dot(k, tl.trans(_load(q_ptrs, valid, 0, dim, DIM)))
            else:
                z = _products(q_ptrs, valid, k_ptrs, inside, dim, HEADS, KEYS, DIM, SLICE)
            scores = _weighted_sum(z, w)
            if k_scale_ptr is not None:
                scores *= k_scale
            tl.store(out_ptr + m * keys + key, scores, mask=inside)


@triton.jit
def _decode_kernel(
    q_ptr,
    k_ptr,
    k_scale_ptr,
    w_ptr,
    slots_ptr,
    lengths_ptr,
    out_ptr,
    columns,
    heads,
    dim,
    k_slot,
    k_row,
    scale_slot,
    SPAN: tl.constexpr,
    KEYS: tl.constexpr,
    HEADS: tl.constexpr,
    DIM: tl.constexpr,
    SLICE: tl.constexpr,
):
    b = tl.program_id(1).to(tl.int64)
    first = tl.program_id(0) * SPAN
    length = tl.minimum(tl.load(lengths_ptr + b), columns)
    if first < length:
        slot = tl.load(slots_ptr + b).to(tl.int64)
        head = tl.arange(0, HEADS)
        valid = head < heads
        q_ptrs = q_ptr + (b * heads + head) * dim
        w = tl.load(w_ptr + b * heads + head, mask=valid, other=0.0)
        if SLICE == DIM:
            q = _load(q_ptrs, valid, 0, dim, DIM)
        for tile in range(0, SPAN, KEYS):
            key = first + tile + tl.arange(0, KEYS)
            inside = key < length
            k_ptrs = k_ptr + slot * k_slot + key.to(tl.int64) * k_row
            if SLICE == DIM:
                z = tl.dot(_load(k_ptrs, inside, 0, dim, DIM), tl.trans(q))
            else:
                z = _products(q_ptrs, valid, k_ptrs, inside, dim, HEADS, KEYS, DIM, SLICE)
            scores = _weighted_sum(z, w)
            if k_scale_ptr is not None:
                scores *= tl.load(k_scale_ptr + slot * scale_slot + key, mask=inside, other=0.0)
            tl.store(out_ptr + b * columns + key, scores, mask=inside)
