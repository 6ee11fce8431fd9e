"""Triton bodies of the dense stage of the indexer's KL loss: the head-summed target and the divergence of a row."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.tuning import config

LOG2_E = tl.constexpr(1.4426950408889634)
# What any GPU with 99 KB of shared memory runs, by bytes of an element.
TARGET_DEFAULT = {
    2: {"block_m": 64, "block_n": 64, "num_warps": 4, "num_stages": 2},
    4: {"block_m": 32, "block_n": 32, "num_warps": 4, "num_stages": 2},
}
DIVERGENCE_DEFAULT = {"block": 2048, "num_warps": 8}


@triton.jit
def _target_kernel(
    q_ptr, k_nope_ptr, k_rope_ptr, lse_ptr, starts_ptr, ends_ptr, out_ptr,
    rows, keys, heads,
    q_row, q_head, k_nope_row, k_nope_head, k_rope_row, lse_row, out_row,
    scale_log2, inverse_heads,
    NOPE: tl.constexpr, ROPE: tl.constexpr, BLOCK_NOPE: tl.constexpr, BLOCK_ROPE: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile [BLOCK_M, BLOCK_N] of the target: all heads in their order, in registers."""
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    row_exists, key_exists = m < rows, n < keys
    starts = tl.load(starts_ptr + m, mask=row_exists, other=0)
    ends = tl.load(ends_ptr + m, mask=row_exists, other=0)
    visible = (n[None, :] >= starts[:, None]) & (n[None, :] < ends[:, None])
    if tl.max(visible.to(tl.int32)) == 0:
        return
    m, n = m.to(tl.int64), n.to(tl.int64)
    d, r = tl.arange(0, BLOCK_NOPE), tl.arange(0, BLOCK_ROPE)
    q_nope = q_ptr + m[:, None] * q_row + d[None, :]
    q_rope = q_ptr + m[:, None] * q_row + NOPE + r[None, :]
    k_nope = k_nope_ptr + n[:, None] * k_nope_row + d[None, :]
    lse = lse_ptr + m * lse_row
    q_nope_mask = row_exists[:, None] & (d < NOPE)[None, :]
    q_rope_mask = row_exists[:, None] & (r < ROPE)[None, :]
    k_nope_mask = key_exists[:, None] & (d < NOPE)[None, :]
    rope_keys = tl.load(
        k_rope_ptr + n[:, None] * k_rope_row + r[None, :], mask=key_exists[:, None] & (r < ROPE)[None, :], other=0.0
    )
    target = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for _ in tl.range(0, heads):
        scores = tl.dot(
            tl.load(q_nope, mask=q_nope_mask, other=0.0),
            tl.load(k_nope, mask=k_nope_mask, other=0.0).T,
            input_precision=PRECISION,
        )
        scores = tl.dot(
            tl.load(q_rope, mask=q_rope_mask, other=0.0), rope_keys.T, acc=scores, input_precision=PRECISION
        )
        lse_log2 = tl.load(lse, mask=row_exists, other=0.0) * LOG2_E
        target += tl.exp2(scores * scale_log2 - lse_log2[:, None])
        q_nope += q_head
        q_rope += q_head
        k_nope += k_nope_head
        lse += 1
    # A hidden key's exponential may be infinite; it is dropped here and never multiplied.
    target = tl.where(visible, target * inverse_heads, 0.0)
    tl.store(out_ptr + m[:, None] * out_row + n[None, :], target, mask=row_exists[:, None] & key_exists[None, :])


@triton.jit
def _divergence_kernel(
    target_ptr, logits_ptr, starts_ptr, ends_ptr, valid_ptr, kl_ptr, grad_ptr,
    target_row, logits_row, grad_row,
    HAS_VALID: tl.constexpr, GRADIENT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One row: its KL in float32 and, over its visible keys, dI. Blocks are counted from the row's own start, so that
    the sums do not depend on where the row lies."""
    m = tl.program_id(0).to(tl.int64)
    start, end = tl.load(starts_ptr + m), tl.load(ends_ptr + m)
    keep = True
    if HAS_VALID:
        keep = tl.load(valid_ptr + m) != 0
    lane = tl.arange(0, BLOCK)
    target_ptr += m * target_row
    logits_ptr += m * logits_row
    grad_ptr += m * grad_row
    peak = tl.full((BLOCK,), -float("inf"), tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    for first in tl.range(start, end, BLOCK):
        column = first + lane
        logits = tl.load(logits_ptr + column, mask=column < end, other=-float("inf"))
        higher = tl.maximum(peak, logits)
        # A lane without a key so far keeps its peak of -inf; -inf - -inf would be NaN.
        shift = tl.where(higher == -float("inf"), 0.0, higher)
        total = total * tl.exp(peak - shift) + tl.exp(logits - shift)
        peak = higher
    highest = tl.max(peak)
    highest = tl.where(highest == -float("inf"), 0.0, highest)
    log_sum = highest + tl.log(tl.sum(total * tl.exp(peak - highest)))
    divergence = tl.zeros((BLOCK,), tl.float32)
    for first in tl.range(start, end, BLOCK):
        column = first + lane
        visible = column < end
        target = tl.load(target_ptr + column, mask=visible, other=0.0)
        log_prob = tl.load(logits_ptr + column, mask=visible, other=0.0) - log_sum
        # 0 log 0 = 0
        positive = visible & (target > 0)
        divergence += tl.where(positive, target * (tl.log(tl.where(positive, target, 1.0)) - log_prob), 0.0)
        if GRADIENT:
            grad = tl.where(keep, tl.exp(log_prob) - target, 0.0)
            tl.store(grad_ptr + column, grad.to(grad_ptr.dtype.element_ty), mask=visible)
    tl.store(kl_ptr + m, tl.where(keep, tl.sum(divergence), 0.0))


def head_summed_target(
    q: Tensor, k_nope: Tensor, k_rope: Tensor, lse: Tensor, starts: Tensor, ends: Tensor, scale: float, out: Tensor
) -> None:
    """Writes the target of `kernels.kl_rows.head_summed_target_rows` into `out` [M, N] float32; what is outside a row's
    range is not defined."""
    (rows, heads, _), keys = q.shape, len(k_nope)
    nope, rope = k_nope.shape[-1], k_rope.shape[-1]
    key = f"{str(q.dtype).removeprefix('torch.')},dims={nope}+{rope}"
    tiles = config("kl_target", key, TARGET_DEFAULT[q.element_size()])
    grid = (triton.cdiv(rows, tiles["block_m"]), triton.cdiv(keys, tiles["block_n"]))
    _target_kernel[grid](
        q, k_nope, k_rope, lse, starts, ends, out,
        rows, keys, heads,
        q.stride(0), q.stride(1), k_nope.stride(0), k_nope.stride(1), k_rope.stride(0), lse.stride(0), out.stride(0),
        scale * LOG2_E.value, 1 / heads,
        NOPE=nope, ROPE=rope,
        BLOCK_NOPE=max(16, triton.next_power_of_2(nope)), BLOCK_ROPE=max(16, triton.next_power_of_2(rope)),
        BLOCK_M=tiles["block_m"], BLOCK_N=tiles["block_n"],
        PRECISION="ieee" if q.dtype == torch.float32 else "tf32",
        num_warps=tiles["num_warps"], num_stages=tiles["num_stages"],
    )  # fmt: skip


def divergence(
    target: Tensor, logits: Tensor, starts: Tensor, ends: Tensor, valid: Tensor | None, grad: Tensor | None
) -> Tensor:
    """KL of each row [M] float32. dI goes to `grad` [M, N] where that is given (it may be one of the inputs), over each
    row's range only."""
    kl = torch.empty(len(target), dtype=torch.float32, device=target.device)
    tiles = config("kl_divergence", "float32", DIVERGENCE_DEFAULT)
    store = target if grad is None else grad
    _divergence_kernel[(len(target),)](
        target, logits, starts, ends, starts if valid is None else valid.view(torch.uint8), kl, store,
        target.stride(0), logits.stride(0), store.stride(0),
        HAS_VALID=valid is not None, GRADIENT=grad is not None, BLOCK=tiles["block"], num_warps=tiles["num_warps"],
    )  # fmt: skip
    return kl
