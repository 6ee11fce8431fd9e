"""Triton bodies of the sparse stage of the indexer's KL loss. One program has one query and walks over its keys."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.tuning import config

LOG2_E = tl.constexpr(1.4426950408889634)
# What any GPU with 99 KB of shared memory runs, by bytes of an element.
TARGET_DEFAULT = {
    2: {"block_h": 16, "block_n": 32, "num_warps": 4, "num_stages": 2},
    4: {"block_h": 16, "block_n": 16, "num_warps": 4, "num_stages": 1},
}
INDEX_DEFAULT = {
    2: {"block_n": 64, "num_warps": 4, "num_stages": 3},
    4: {"block_n": 16, "num_warps": 8, "num_stages": 1},
}


@triton.jit
def _target_kernel(
    q_ptr, kv_ptr, lse_ptr, indices_ptr, counts_ptr, out_ptr,
    heads, q_row, q_head, kv_row, lse_row, indices_row, out_row, scale_log2, inverse_heads,
    FRONT: tl.constexpr, BACK: tl.constexpr, BLOCK_BACK: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_N: tl.constexpr,
    PRECISION: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """The target of one query over its selected keys, BLOCK_H heads at a time in their order. A row of FRONT + BACK
    dimensions is loaded as two tiles, of which the first fills a power of two."""
    m = tl.program_id(0).to(tl.int64)
    count = tl.load(counts_ptr + m)
    indices_ptr += m * indices_row
    out_ptr += m * out_row
    slots = tl.arange(0, BLOCK_N)
    f, b = tl.arange(0, FRONT), tl.arange(0, BLOCK_BACK)
    for first_head in tl.range(0, heads, BLOCK_H):
        head = first_head + tl.arange(0, BLOCK_H)
        exists = head < heads
        q = q_ptr + m * q_row + head[:, None] * q_head
        q_front = tl.load(q + f[None, :], mask=exists[:, None], other=0.0)
        q_back = tl.load(q + FRONT + b[None, :], mask=exists[:, None] & (b < BACK)[None, :], other=0.0)
        lse_log2 = tl.load(lse_ptr + m * lse_row + head, mask=exists, other=float("inf")) * LOG2_E
        for first in tl.range(0, count, BLOCK_N, num_stages=STAGES):
            slot = first + slots
            taken = slot < count
            key = tl.load(indices_ptr + slot, mask=taken, other=0).to(tl.int64)
            kv = kv_ptr + key[:, None] * kv_row
            kv_front = tl.load(kv + f[None, :], mask=taken[:, None], other=0.0)
            kv_back = tl.load(kv + FRONT + b[None, :], mask=taken[:, None] & (b < BACK)[None, :], other=0.0)
            scores = tl.dot(q_front, kv_front.T, input_precision=PRECISION)
            scores = tl.dot(q_back, kv_back.T, acc=scores, input_precision=PRECISION)
            # A head that does not exist has lse = inf and adds 0.
            target = tl.sum(tl.exp2(scores * scale_log2 - lse_log2[:, None]), 0) * inverse_heads
            if first_head > 0:
                target += tl.load(out_ptr + slot, mask=taken, other=0.0)
            tl.store(out_ptr + slot, target, mask=taken)


@triton.jit
def _logits_kernel(
    q_ptr, k_ptr, weights_ptr, indices_ptr, counts_ptr, out_ptr,
    heads, q_row, q_head, k_row, weights_row, indices_row, out_row,
    DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_J: tl.constexpr, BLOCK_N: tl.constexpr,
    PRECISION: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Index scores of one query over its selected keys."""
    m = tl.program_id(0).to(tl.int64)
    count = tl.load(counts_ptr + m)
    j, d = tl.arange(0, BLOCK_J), tl.arange(0, BLOCK_D)
    q_mask = (j < heads)[:, None] & (d < DIM)[None, :]
    q = tl.load(q_ptr + m * q_row + j[:, None] * q_head + d[None, :], mask=q_mask, other=0.0)
    weights = tl.load(weights_ptr + m * weights_row + j, mask=j < heads, other=0.0).to(tl.float32)
    for first in tl.range(0, count, BLOCK_N, num_stages=STAGES):
        slot = first + tl.arange(0, BLOCK_N)
        taken = slot < count
        key = tl.load(indices_ptr + m * indices_row + slot, mask=taken, other=0).to(tl.int64)
        k_mask = taken[:, None] & (d < DIM)[None, :]
        k = tl.load(k_ptr + key[:, None] * k_row + d[None, :], mask=k_mask, other=0.0)
        products = tl.dot(k, q.T, input_precision=PRECISION)
        tl.store(out_ptr + m * out_row + slot, tl.sum(tl.maximum(products, 0.0) * weights[None, :], 1), mask=taken)


@triton.jit
def _backward_kernel(
    grad_ptr, q_ptr, k_ptr, weights_ptr, indices_ptr, counts_ptr, grad_q_ptr, grad_w_ptr, partials_ptr,
    heads, slots, grad_row, q_row, q_head, k_row, weights_row, indices_row,
    DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_J: tl.constexpr, BLOCK_N: tl.constexpr,
    PRECISION: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """From dI of one query: dq and dw, and for each of its slots the part of dk that this query gives."""
    m = tl.program_id(0).to(tl.int64)
    count = tl.load(counts_ptr + m)
    j, d = tl.arange(0, BLOCK_J), tl.arange(0, BLOCK_D)
    q_mask = (j < heads)[:, None] & (d < DIM)[None, :]
    q = tl.load(q_ptr + m * q_row + j[:, None] * q_head + d[None, :], mask=q_mask, other=0.0)
    weights = tl.load(weights_ptr + m * weights_row + j, mask=j < heads, other=0.0).to(tl.float32)
    grad_q = tl.zeros((BLOCK_J, BLOCK_D), tl.float32)
    grad_w = tl.zeros((BLOCK_J,), tl.float32)
    for first in tl.range(0, count, BLOCK_N, num_stages=STAGES):
        slot = first + tl.arange(0, BLOCK_N)
        taken = slot < count
        key = tl.load(indices_ptr + m * indices_row + slot, mask=taken, other=0).to(tl.int64)
        k_mask = taken[:, None] & (d < DIM)[None, :]
        k = tl.load(k_ptr + key[:, None] * k_row + d[None, :], mask=k_mask, other=0.0)
        grad = tl.load(grad_ptr + m * grad_row + slot, mask=taken, other=0.0)
        products = tl.dot(q, k.T, input_precision=PRECISION)
        grad_w += tl.sum(tl.maximum(products, 0.0) * grad[None, :], 1)
        grad_products = tl.where(products > 0, weights[:, None] * grad[None, :], 0.0).to(k.dtype)
        grad_q = tl.dot(grad_products, k, acc=grad_q, input_precision=PRECISION)
        partial = tl.dot(grad_products.T, q, input_precision=PRECISION)
        at = partials_ptr + (m * slots + slot)[:, None] * DIM + d[None, :]
        tl.store(at, partial.to(partials_ptr.dtype.element_ty), mask=k_mask)
    tl.store(grad_q_ptr + (m * heads + j)[:, None] * DIM + d[None, :], grad_q.to(q.dtype), mask=q_mask)
    tl.store(grad_w_ptr + m * heads + j, grad_w.to(grad_w_ptr.dtype.element_ty), mask=j < heads)


def selected_target(q: Tensor, kv: Tensor, lse: Tensor, indices: Tensor, counts: Tensor, scale: float) -> Tensor:
    """`kernels.kl_selected.selected_target`; slots from counts[m] on are not defined."""
    (rows, heads, dim), slots = q.shape, indices.shape[1]
    front = 1 << (dim.bit_length() - 1)
    out = torch.empty(rows, slots, dtype=torch.float32, device=q.device)
    tiles = config("kl_sparse_target", f"{_name(q)},dim={dim},heads={heads}", TARGET_DEFAULT[q.element_size()])
    _target_kernel[(rows,)](
        q, kv, lse, indices, counts, out,
        heads, q.stride(0), q.stride(1), kv.stride(0), lse.stride(0), indices.stride(0), slots,
        scale * LOG2_E.value, 1 / heads,
        FRONT=front, BACK=dim - front, BLOCK_BACK=max(16, triton.next_power_of_2(dim - front)),
        BLOCK_H=tiles["block_h"], BLOCK_N=tiles["block_n"], STAGES=tiles["num_stages"],
        PRECISION=_precision(q), num_warps=tiles["num_warps"],
    )  # fmt: skip
    return out


def selected_logits(q: Tensor, k: Tensor, weights: Tensor, indices: Tensor, counts: Tensor) -> Tensor:
    """`kernels.kl_selected.selected_logits`; slots from counts[m] on are not defined."""
    (rows, heads, _), slots = q.shape, indices.shape[1]
    out = torch.empty(rows, slots, dtype=torch.float32, device=q.device)
    _logits_kernel[(rows,)](
        q, k, weights, indices, counts, out,
        heads, q.stride(0), q.stride(1), k.stride(0), weights.stride(0), indices.stride(0), slots,
        **_index_tiles("kl_sparse_logits", q),
    )  # fmt: skip
    return out


def selected_backward(
    grad: Tensor, q: Tensor, k: Tensor, weights: Tensor, indices: Tensor, counts: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """`kernels.kl_selected.selected_backward`; partials of slots from counts[m] on are not defined."""
    (rows, heads, dim), slots = q.shape, indices.shape[1]
    grad_q = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    grad_w = torch.empty(weights.shape, dtype=weights.dtype, device=q.device)
    partials = torch.empty(rows * slots, dim, dtype=q.dtype, device=q.device)
    _backward_kernel[(rows,)](
        grad, q, k, weights, indices, counts, grad_q, grad_w, partials,
        heads, slots, grad.stride(0), q.stride(0), q.stride(1), k.stride(0), weights.stride(0), indices.stride(0),
        **_index_tiles("kl_sparse_backward", q),
    )  # fmt: skip
    return grad_q, grad_w, partials


def _index_tiles(kernel: str, q: Tensor) -> dict[str, Any]:
    _, heads, dim = q.shape
    tiles = config(kernel, f"{_name(q)},dim={dim},heads={heads}", INDEX_DEFAULT[q.element_size()])
    return {
        "DIM": dim,
        "BLOCK_D": max(16, triton.next_power_of_2(dim)),
        "BLOCK_J": max(16, triton.next_power_of_2(heads)),
        "BLOCK_N": tiles["block_n"],
        "STAGES": tiles["num_stages"],
        "PRECISION": _precision(q),
        "num_warps": tiles["num_warps"],
    }


def _name(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")


def _precision(x: Tensor) -> str:
    return "ieee" if x.dtype == torch.float32 else "tf32"
