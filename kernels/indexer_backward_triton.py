"""Triton body of the gradient of the indexer's scores. z is computed anew; each output has one program, so that its
sum has one order: a program for (tile of queries, head) walks over keys, one for a tile of keys over queries and heads.

With g = grad * 1[z > 0] and u[m, j] = sum_s g k[s], the three gradients are dq = w u, dw = q . u (because ReLU(z) =
1[z > 0] q . k) and dk[s] = sum_{m, j} g w q[m, j].
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.tuning import config


def backward(
    grad: Tensor, q: Tensor, k: Tensor, weights: Tensor, starts: Tensor, ends: Tensor, dk: Tensor
) -> tuple[Tensor, Tensor]:
    """Body of `indexer_logits_backward`: dq and dw; adds to dk."""
    (count, heads, dim), keys = q.shape, len(k)
    q, k, weights = q.contiguous(), k.contiguous(), weights.float().contiguous()
    starts, ends = starts.contiguous(), ends.contiguous()
    if grad.stride(1) != 1:  # an expanded scalar, as of sum()
        grad = grad.contiguous()
    dq = torch.empty_like(q)
    dw = torch.empty(count, heads, dtype=torch.float32, device=q.device)
    if not count:
        return dq, dw
    key = f"{str(q.dtype).removeprefix('torch.')},heads={heads},dim={dim}"
    width = max(16, triton.next_power_of_2(dim))
    exact = q.dtype == torch.float32
    if exact:
        tile = {"QUERIES": 32, "KEYS": 16, "SLICE": 16, "warps": 4, "stages": 1}
    else:
        tile = {"QUERIES": 64, "KEYS": 64, "SLICE": width, "warps": 4, "stages": 3}
    shared = (starts, ends, count, keys, heads, dim, grad.stride(0))
    product = tl.float32 if exact else tl.bfloat16

    tile_a = config("indexer_backward_query", key, tile)
    launch = {"num_warps": tile_a.pop("warps"), "num_stages": tile_a.pop("stages")}
    _query_kernel[(heads, triton.cdiv(count, tile_a["QUERIES"]))](
        grad, q, k, weights, dq, dw, *shared, DIM=width, PRODUCT=product, **tile_a, **launch
    )

    tile_b = config("indexer_backward_key", key, {**tile, "QUERIES": tile["KEYS"], "KEYS": tile["QUERIES"]})
    launch = {"num_warps": tile_b.pop("warps"), "num_stages": tile_b.pop("stages")}
    columns = weights.t().contiguous()
    _key_kernel[(triton.cdiv(keys, tile_b["KEYS"]),)](
        grad, q, k, columns, dk, *shared, DIM=width, PRODUCT=product, **tile_b, **launch
    )
    return dq, dw


@triton.jit
def _rows_of(ptr, row, stride, live, dim, first, COLUMNS: tl.constexpr):
    """Columns from `first` on of rows of ptr; zeros where a row is not live or has ended."""
    col = first + tl.arange(0, COLUMNS)
    mask = live[:, None] & (col < dim)[None, :]
    return tl.load(ptr + row.to(tl.int64)[:, None] * stride + col[None, :], mask=mask, other=0.0)


@triton.jit
def _products(
    a_ptr,
    a_row,
    a_stride,
    a_live,
    b_ptr,
    b_row,
    b_stride,
    b_live,
    dim,
    A: tl.constexpr,
    B: tl.constexpr,
    DIM: tl.constexpr,
    SLICE: tl.constexpr,
):
    """[A, B] products of rows of a and of b, by slices of the vectors."""
    z = tl.zeros((A, B), tl.float32)
    for first in range(0, DIM, SLICE):
        a = _rows_of(a_ptr, a_row, a_stride, a_live, dim, first, SLICE)
        b = _rows_of(b_ptr, b_row, b_stride, b_live, dim, first, SLICE)
        z = tl.dot(a, tl.trans(b), z, input_precision="ieee")
    return z


@triton.jit
def _query_step(
    u,
    tile,
    grad_rows,
    q,
    q_ptr,
    k_ptr,
    row,
    live,
    start,
    end,
    keys,
    heads,
    dim,
    MASKED: tl.constexpr,
    PRODUCT: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    DIM: tl.constexpr,
    SLICE: tl.constexpr,
):
    """u plus the contribution of one tile of keys."""
    key = tile * KEYS + tl.arange(0, KEYS)
    inside = key < keys
    k = _rows_of(k_ptr, key, dim, inside, dim, 0, DIM)
    if SLICE == DIM:
        z = tl.dot(q, tl.trans(k))
    else:
        z = _products(q_ptr, row, heads * dim, live, k_ptr, key, dim, inside, dim, QUERIES, KEYS, DIM, SLICE)
    grad_ptrs = grad_rows[:, None] + key[None, :]
    if MASKED:
        seen = (key[None, :] >= start[:, None]) & (key[None, :] < end[:, None])
        grad = tl.load(grad_ptrs, mask=seen, other=0.0)
    else:
        grad = tl.load(grad_ptrs)
    g = tl.where(z > 0, grad, 0.0).to(PRODUCT)
    return tl.dot(g, k.to(PRODUCT), u, input_precision="ieee")


@triton.jit
def _query_kernel(
    grad_ptr,
    q_ptr,
    k_ptr,
    w_ptr,
    dq_ptr,
    dw_ptr,
    starts_ptr,
    ends_ptr,
    count,
    keys,
    heads,
    dim,
    grad_stride,
    DIM: tl.constexpr,
    PRODUCT: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    SLICE: tl.constexpr,
):
    head = tl.program_id(0)
    row = tl.program_id(1) * QUERIES + tl.arange(0, QUERIES)
    valid = row < count
    start = tl.load(starts_ptr + row, mask=valid, other=0)
    end = tl.minimum(tl.load(ends_ptr + row, mask=valid, other=0), keys)
    live = start < end
    low = tl.min(tl.where(live, start, 2147483647)) // KEYS
    high = tl.cdiv(tl.max(tl.where(live, end, 0)), KEYS)
    # Key tiles from `full` to `rest` lie inside the range of every row and need no mask.
    full = tl.minimum(tl.cdiv(tl.max(tl.where(live, start, 2147483647 - KEYS)), KEYS), tl.maximum(high, low))
    rest = tl.maximum(tl.min(end) // KEYS, full)

    q_head = q_ptr + head * dim
    grad_rows = grad_ptr + row.to(tl.int64) * grad_stride
    if SLICE == DIM:
        q = _rows_of(q_head, row, heads * dim, valid, dim, 0, DIM)
    else:
        q = 0.0
    u = tl.zeros((QUERIES, DIM), tl.float32)
    edges = (low, full, rest, high)
    for part in tl.static_range(3):
        for tile in range(edges[part], edges[part + 1]):
            u = _query_step(
                u, tile, grad_rows, q, q_head, k_ptr, row, valid, start, end, keys, heads, dim,
                part != 1, PRODUCT, QUERIES, KEYS, DIM, SLICE,
            )  # fmt: skip

    col = tl.arange(0, DIM)
    vector = row.to(tl.int64) * heads + head
    mask = valid[:, None] & (col < dim)[None, :]
    if SLICE != DIM:
        q = _rows_of(q_head, row, heads * dim, valid, dim, 0, DIM)
    tl.store(dw_ptr + vector, tl.sum(u * q.to(tl.float32), 1), mask=valid)
    w = tl.load(w_ptr + vector, mask=valid, other=0.0)
    tl.store(dq_ptr + vector[:, None] * dim + col[None, :], u * w[:, None], mask=mask)


@triton.jit
def _key_kernel(
    grad_ptr,
    q_ptr,
    k_ptr,
    w_ptr,
    dk_ptr,
    starts_ptr,
    ends_ptr,
    count,
    keys,
    heads,
    dim,
    grad_stride,
    DIM: tl.constexpr,
    PRODUCT: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    SLICE: tl.constexpr,
):
    """w_ptr: [heads, count]."""
    tile = tl.program_id(0) * KEYS
    key = tile + tl.arange(0, KEYS)
    inside = key < keys
    if SLICE == DIM:
        k = _rows_of(k_ptr, key, dim, inside, dim, 0, DIM)
    dk = tl.zeros((KEYS, DIM), tl.float32)
    for first in range(0, count, QUERIES):
        row = first + tl.arange(0, QUERIES)
        valid = row < count
        start = tl.load(starts_ptr + row, mask=valid, other=2147483647)
        end = tl.minimum(tl.load(ends_ptr + row, mask=valid, other=0), keys)
        live = start < end
        if (tl.max(tl.where(live, end, 0)) > tile) & (tl.min(tl.where(live, start, 2147483647)) < tile + KEYS):
            seen = (key[:, None] >= start[None, :]) & (key[:, None] < end[None, :])
            grad = tl.load(grad_ptr + row.to(tl.int64)[None, :] * grad_stride + key[:, None], mask=seen, other=0.0)
            for head in range(heads):
                q_head = q_ptr + head * dim
                q = _rows_of(q_head, row, heads * dim, valid, dim, 0, DIM)
                if SLICE == DIM:
                    z = tl.dot(k, tl.trans(q))
                else:
                    z = _products(
                        k_ptr, key, dim, inside, q_head, row, heads * dim, valid, dim, KEYS, QUERIES, DIM, SLICE
                    )
                w = tl.load(w_ptr + head * count + row, mask=valid, other=0.0)
                g = tl.where(z > 0, grad.to(tl.float32) * w[None, :], 0.0).to(PRODUCT)
                dk = tl.dot(g, q.to(PRODUCT), dk, input_precision="ieee")
    col = tl.arange(0, DIM)
    dk_ptrs = dk_ptr + key.to(tl.int64)[:, None] * dim + col[None, :]
    mask = inside[:, None] & (col < dim)[None, :]
    tl.store(dk_ptrs, tl.load(dk_ptrs, mask=mask, other=0.0) + dk, mask=mask)
