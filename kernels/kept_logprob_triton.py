"""Log-probability and entropy over each token's kept sampling set on a GPU.

A set holds a few dozen of 100 000 tokens, so a program gathers one row's kept weights and multiplies them one by one.
The gradient of the weights visits (token, row) pairs sorted by token, in one fixed order, without atomics.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.logprob_triton import LN_2, LOG2_E, gradient_of_logit


@triton.jit
def _forward_kernel(
    hidden, weight, targets, offsets, ids, logits, logprob, entropy, normaliser, width, scale,
    BI: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """One program per row; `logits` [nnz] (in units of log 2) is kept for the backward."""
    row = tl.program_id(0).to(tl.int64)
    begin, end = tl.load(offsets + row), tl.load(offsets + row + 1)
    target = tl.load(targets + row)
    largest = tl.full((), -float("inf"), tl.float32)
    total = tl.zeros((), tl.float32)
    moment = tl.zeros((), tl.float32)
    chosen = tl.full((), -float("inf"), tl.float32)
    for i in range(begin, end, BI):
        at = i + tl.arange(0, BI)
        inside = at < end
        token = tl.load(ids + at, mask=inside, other=0).to(tl.int64)
        sums = tl.zeros((BI, BK), tl.float32)
        for k in range(0, width, BK):
            place = k + tl.arange(0, BK)
            h = tl.load(hidden + row * width + place, mask=place < width, other=0.0).to(tl.float32)
            w = tl.load(
                weight + token[:, None] * width + place[None, :],
                mask=inside[:, None] & (place < width)[None, :], other=0.0,
            )  # fmt: skip
            sums += w.to(tl.float32) * h[None, :]
        logit = tl.where(inside, tl.sum(sums, 1) * scale, -1e38)  # finite: 0 times it is 0
        tl.store(logits + at, logit, mask=inside)
        chosen = tl.maximum(chosen, tl.max(tl.where(inside & (token == target), logit, -float("inf")), 0))
        before = largest
        largest = tl.maximum(largest, tl.max(logit, 0))
        p = tl.exp2(logit - largest)
        factor = tl.exp2(before - largest)
        total = total * factor + tl.sum(p, 0)
        moment = moment * factor + tl.sum(p * logit, 0)
    lse = largest + tl.log2(total)
    tl.store(normaliser + row, lse)
    tl.store(logprob + row, tl.where(end > begin, (chosen - lse) * LN_2, -float("inf")))
    tl.store(entropy + row, tl.where(end > begin, (lse - moment / total) * LN_2, 0.0))


@triton.jit
def _hidden_gradient_kernel(
    weight, targets, offsets, ids, logits, normaliser, entropy, grad_logprob, grad_entropy, logit_gradient, grad_hidden,
    width, temperature, ENTROPY: tl.constexpr, BI: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Programs (row, block of its width): the gradient of the row's logits, and of its hidden state."""
    row = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * BK + tl.arange(0, BK)
    begin, end = tl.load(offsets + row), tl.load(offsets + row + 1)
    target = tl.load(targets + row)
    lse = tl.load(normaliser + row)
    upstream = tl.load(grad_logprob + row)
    spread = upstream
    upstream_entropy = upstream
    if ENTROPY:
        spread = tl.load(entropy + row)
        upstream_entropy = tl.load(grad_entropy + row)
    total = tl.zeros((BK,), tl.float32)
    for i in range(begin, end, BI):
        at = i + tl.arange(0, BI)
        inside = at < end
        token = tl.load(ids + at, mask=inside, other=0).to(tl.int64)
        logit = tl.load(logits + at, mask=inside, other=-1e38)
        grad = gradient_of_logit(logit, lse, spread, upstream, upstream_entropy, token == target, ENTROPY) / temperature
        grad = tl.where(inside, grad, 0.0)
        w = tl.load(
            weight + token[:, None] * width + place[None, :],
            mask=inside[:, None] & (place < width)[None, :], other=0.0,
        )  # fmt: skip
        total += tl.sum(w.to(tl.float32) * grad[:, None], 0)
        if tl.program_id(1) == 0:
            tl.store(logit_gradient + at, grad, mask=inside)
    tl.store(grad_hidden + row * width + place, total.to(grad_hidden.dtype.element_ty), mask=place < width)


@triton.jit
def _weight_gradient_kernel(
    hidden, logit_gradient, pairs, rows_of_pairs, segments, grad_weight, width, BJ: tl.constexpr, BK: tl.constexpr
):  # fmt: skip
    """Programs (token, block of its width): the sum over the rows that kept the token, in their order."""
    token = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * BK + tl.arange(0, BK)
    begin, end = tl.load(segments + token), tl.load(segments + token + 1)
    total = tl.zeros((BK,), tl.float32)
    for j in range(begin, end, BJ):
        at = j + tl.arange(0, BJ)
        inside = at < end
        grad = tl.load(logit_gradient + tl.load(pairs + at, mask=inside, other=0), mask=inside, other=0.0)
        row = tl.load(rows_of_pairs + at, mask=inside, other=0)
        h = tl.load(
            hidden + row[:, None] * width + place[None, :],
            mask=inside[:, None] & (place < width)[None, :], other=0.0,
        )  # fmt: skip
        total += tl.sum(h.to(tl.float32) * grad[:, None], 0)
    tl.store(grad_weight + token * width + place, total.to(grad_weight.dtype.element_ty), mask=place < width)


@torch.library.custom_op("polymath::kept_logprob", mutates_args=())
def kept_logprob(
    hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float, offsets: Tensor, ids: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Log-probability [T] and entropy [T] in nats; for the backward log2 of the denominator [T] and logits [nnz]."""
    hidden, weight = hidden.contiguous(), weight.contiguous()
    rows, width = hidden.shape
    logprob, entropy, normaliser = (hidden.new_empty(rows, dtype=torch.float32) for _ in range(3))
    logits = logprob.new_empty(len(ids))
    if rows:
        _forward_kernel[(rows,)](
            hidden, weight, targets, offsets, ids, logits, logprob, entropy, normaliser, width,
            LOG2_E.value / temperature, BI=8, BK=min(512, triton.next_power_of_2(width)), num_warps=4,
        )  # fmt: skip
    return logprob, entropy, normaliser, logits


@kept_logprob.register_fake
def _(
    hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float, offsets: Tensor, ids: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    per_row = [hidden.new_empty(len(hidden), dtype=torch.float32) for _ in range(3)]
    return per_row[0], per_row[1], per_row[2], hidden.new_empty(len(ids), dtype=torch.float32)


@torch.library.custom_op("polymath::kept_logprob_backward", mutates_args=())
def kept_logprob_backward(
    hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float, offsets: Tensor, ids: Tensor,
    normaliser: Tensor, logits: Tensor, entropy: Tensor, grad_logprob: Tensor, grad_entropy: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Gradients of hidden states and weights."""
    hidden, weight = hidden.contiguous(), weight.contiguous()
    rows, width = hidden.shape
    vocabulary = len(weight)
    grad_hidden = torch.empty_like(hidden)
    if not len(ids):
        return grad_hidden.zero_(), torch.zeros_like(weight)
    logit_gradient = torch.zeros_like(logits)
    block = min(512, triton.next_power_of_2(width))
    blocks = triton.cdiv(width, block)
    _hidden_gradient_kernel[(rows, blocks)](
        weight, targets, offsets, ids, logits, normaliser, entropy, grad_logprob, grad_entropy, logit_gradient,
        grad_hidden, width, temperature, ENTROPY=grad_entropy is not None, BI=8, BK=block, num_warps=4,
    )  # fmt: skip
    tokens, pairs = torch.sort(ids, stable=True)
    segments = torch.searchsorted(tokens, torch.arange(vocabulary + 1, device=ids.device, dtype=ids.dtype))
    rows_of_pairs = torch.searchsorted(offsets.long(), pairs, right=True) - 1
    grad_weight = torch.empty_like(weight)
    _weight_gradient_kernel[(vocabulary, blocks)](
        hidden, logit_gradient, pairs, rows_of_pairs, segments, grad_weight, width, BJ=8, BK=block, num_warps=4
    )
    return grad_hidden, grad_weight


@kept_logprob_backward.register_fake
def _(
    hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float, offsets: Tensor, ids: Tensor,
    normaliser: Tensor, logits: Tensor, entropy: Tensor, grad_logprob: Tensor, grad_entropy: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return torch.empty_like(hidden), torch.empty_like(weight)


def _save(ctx: Any, inputs: tuple, output: tuple[Tensor, ...]) -> None:
    hidden, weight, targets, ctx.temperature, offsets, ids = inputs
    _, entropy, normaliser, logits = output
    ctx.save_for_backward(hidden, weight, targets, offsets, ids, normaliser, logits, entropy)
    ctx.mark_non_differentiable(normaliser, logits)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_logprob: Tensor | None, grad_entropy: Tensor | None, *_: Tensor | None) -> tuple:
    if grad_logprob is None and grad_entropy is None:
        return None, None, None, None, None, None
    hidden, weight, targets, offsets, ids, normaliser, logits, entropy = ctx.saved_tensors
    if grad_logprob is None:
        grad_logprob = torch.zeros_like(normaliser)
    grad_hidden, grad_weight = kept_logprob_backward(
        hidden, weight, targets, ctx.temperature, offsets, ids, normaliser, logits, entropy, grad_logprob.contiguous(),
        grad_entropy.contiguous() if grad_entropy is not None else None,
    )  # fmt: skip
    return grad_hidden, grad_weight, None, None, None, None


kept_logprob.register_autograd(_backward, setup_context=_save)
