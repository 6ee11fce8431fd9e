"""The indexer's training loss in row layout: KL from the head-summed attention to the indexer's softmax.

Loss and gradient are made together in the forward pass, a chunk of queries at a time, from the analytic form dI =
softmax(I) - p; the backward pass only multiplies. Nothing of size queries x keys outlives a chunk.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels.backend import is_hopper, use_triton
from kernels.indexer import indexer_logits_backward, indexer_logits_rows
from kernels.inverse import inverse_lists, segment_sum
from kernels.kl_selected import selected_backward, selected_logits, selected_target
from kernels.tiles import accumulation_dtype, visible_keys

# Elements of a [queries, keys] buffer that exist at one time in the dense stage: 512 queries of a 128K context.
# Target and logits are such buffers in float32, their gradient in bfloat16 where the index queries are half precision.
CHUNK_ELEMENTS = 512 * 131072
# Elements of the keys' gradient, one row for each query and slot, that exist at one time in the sparse stage: 1024
# queries with 2048 keys of 128 dimensions.
PARTIAL_ELEMENTS = 1024 * 2048 * 128


def indexer_kl_rows(
    index_q: Tensor, index_k: Tensor, index_weights: Tensor, q: Tensor, k_nope: Tensor, k_rope: Tensor, lse: Tensor,
    starts: Tensor, ends: Tensor, scale: float, valid: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """sum_m KL(p[m, :] || softmax(I[m, :])) over the visible keys of every valid row (DeepSeek-V3.2, eq. 3).

    The target is computed in the form that is not absorbed: a score has 192 products there, 576 in the latent form.

    Args:
        index_q: [M, J, d], index_k: [N, d], index_weights: [M, J] as for `indexer_logits_rows`.
        q: [M, H, nope + rope], k_nope: [N, H, nope], k_rope: [N, rope]: queries and keys of the main attention; the
            rope key is shared by all heads. No gradient flows to them.
        lse: [M, H] float32, natural logarithm of each head's sum of exponentials over the row's visible keys.
        starts, ends: [M] int32, the keys `starts[m] <= s < ends[m]` that query m sees.
        scale: softmax scale of the main attention.
        valid: [M] bool, False at rows that do not count (padding). An empty row counts 0.

    Returns:
        0-dim sum in nats, at least float32, differentiable in index_q, index_k and index_weights.
    """
    inputs = index_q, index_k, index_weights
    loss, *grads = _dense_loss(
        *(x.detach() for x in inputs), q.detach(), k_nope.detach(), k_rope.detach(), lse.detach(), starts, ends, scale,
        valid, _needs_gradient(inputs),
    )  # fmt: skip
    return _GradientMade.apply(*inputs, loss, *grads)


def sparse_indexer_kl_rows(
    index_q: Tensor, index_k: Tensor, index_weights: Tensor, q: Tensor, kv: Tensor, lse: Tensor, indices: Tensor,
    scale: float, valid: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """sum_m KL(p[m, S_m] || softmax(I[m, S_m])) over the selected keys S_m of every valid row (DeepSeek-V3.2, eq. 4).

    The sparse attention's lse makes the target one pass over the selected keys.

    Args:
        index_q: [M, J, d], index_k: [N, d], index_weights: [M, J] as for `indexer_logits_rows`.
        q: [M, H, D] and kv: [N, D]: absorbed queries and latent rows of the main attention. No gradient flows to them.
        lse: [M, H] float32, natural logarithm of each head's sum of exponentials over the selected keys.
        indices: [M, k] int32 selected rows, -1 padding at the end.
        scale: softmax scale of the main attention.
        valid: [M] bool, False at rows that do not count (padding). A row without keys counts 0.

    Returns:
        0-dim sum in nats, at least float32, differentiable in index_q, index_k and index_weights.
    """
    inputs = index_q, index_k, index_weights
    loss, *grads = _sparse_loss(
        *(x.detach() for x in inputs), q.detach(), kv.detach(), lse.detach(), indices, scale, valid,
        _needs_gradient(inputs),
    )  # fmt: skip
    return _GradientMade.apply(*inputs, loss, *grads)


def head_summed_target_rows(
    q: Tensor, k_nope: Tensor, k_rope: Tensor, lse: Tensor, starts: Tensor, ends: Tensor, scale: float
) -> Tensor:
    """p[m, s] = sum_h A[h, m, s] / H of dense attention [M, N], at least float32, 0 at keys that are not visible. Each
    head's row sums to 1, so the L1 norm is H. Arguments as for `indexer_kl_rows`."""
    out = torch.zeros(len(q), len(k_nope), dtype=accumulation_dtype(q.dtype), device=q.device)
    _target_into(q, k_nope, k_rope, lse, starts, ends, scale, out)
    return out


@torch.library.custom_op("polymath::indexer_kl_dense", mutates_args=())
def _dense_loss(
    index_q: Tensor, index_k: Tensor, index_weights: Tensor, q: Tensor, k_nope: Tensor, k_rope: Tensor, lse: Tensor,
    starts: Tensor, ends: Tensor, scale: float, valid: Tensor | None, gradient: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """The loss and its gradients in index_q, index_k and index_weights (empty without `gradient`)."""
    count, keys = len(q), len(k_nope)
    dtype = accumulation_dtype(q.dtype)
    grad_q, grad_k, grad_w = _gradients(index_q, index_k, index_weights, gradient)
    kl = torch.zeros(count, dtype=dtype, device=q.device)
    size = min(max(1, CHUNK_ELEMENTS // max(1, keys)), max(1, count))
    targets = torch.empty(size, keys, dtype=dtype, device=q.device)
    # In half precision the backward multiplies dI in bfloat16; rounding it here halves what is moved. Float16 would
    # lose values of 1e-7, which are common among 128K keys.
    narrow = torch.bfloat16 if index_q.element_size() == 2 else dtype
    grads = torch.empty(size if gradient else 0, keys, dtype=narrow, device=q.device)
    for first in range(0, count, size):
        rows = slice(first, min(first + size, count))
        span = starts[rows], ends[rows]
        target, grad = (x[: rows.stop - first] for x in (targets, grads))
        _target_into(q[rows], k_nope, k_rope, lse[rows], *span, scale, target)
        logits = indexer_logits_rows(index_q[rows], index_k, index_weights[rows], *span)
        keep = None if valid is None else valid[rows]
        kl[rows] = _divergence(target, logits, *span, keep, grad if gradient else None)
        del logits
        if gradient:
            made = indexer_logits_backward(grad, index_q[rows], index_k, index_weights[rows], *span, dk=grad_k)
            grad_q[rows], grad_w[rows] = made[0], made[2]
    return kl.sum(), grad_q, grad_k, grad_w


@_dense_loss.register_fake
def _(
    index_q: Tensor, index_k: Tensor, index_weights: Tensor, q: Tensor, k_nope: Tensor, k_rope: Tensor, lse: Tensor,
    starts: Tensor, ends: Tensor, scale: float, valid: Tensor | None, gradient: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    loss = q.new_empty((), dtype=accumulation_dtype(q.dtype))
    return loss, *_gradients(index_q, index_k, index_weights, gradient)


@torch.library.custom_op("polymath::indexer_kl_sparse", mutates_args=())
def _sparse_loss(
    index_q: Tensor, index_k: Tensor, index_weights: Tensor, q: Tensor, kv: Tensor, lse: Tensor, indices: Tensor,
    scale: float, valid: Tensor | None, gradient: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """As `_dense_loss`. The parts of the keys' gradient are summed along inverse lists: no atomics."""
    count, slots = indices.shape
    grad_q, grad_k, grad_w = _gradients(index_q, index_k, index_weights, gradient)
    kl = torch.zeros(count, dtype=accumulation_dtype(q.dtype), device=q.device)
    counts = (indices >= 0).sum(-1, dtype=torch.int32)
    starts = torch.zeros_like(counts)
    size = max(1, PARTIAL_ELEMENTS // max(1, slots * index_k.shape[1]))
    for first in range(0, count, size):
        rows = slice(first, min(first + size, count))
        keys = indices[rows], counts[rows]
        target = selected_target(q[rows], kv, lse[rows].contiguous(), *keys, scale)
        logits = selected_logits(index_q[rows], index_k, index_weights[rows], *keys)
        keep = None if valid is None else valid[rows]
        kl[rows] = _divergence(target, logits, starts[rows], counts[rows], keep, target if gradient else None)
        if gradient:
            made = selected_backward(target, index_q[rows], index_k, index_weights[rows], *keys)
            grad_q[rows], grad_w[rows], partials = made
            segment_sum(partials, *inverse_lists(indices[rows], len(index_k)), grad_k)
    return kl.sum(), grad_q, grad_k, grad_w


@_sparse_loss.register_fake
def _(
    index_q: Tensor, index_k: Tensor, index_weights: Tensor, q: Tensor, kv: Tensor, lse: Tensor, indices: Tensor,
    scale: float, valid: Tensor | None, gradient: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    loss = q.new_empty((), dtype=accumulation_dtype(q.dtype))
    return loss, *_gradients(index_q, index_k, index_weights, gradient)


def _gradients(
    index_q: Tensor, index_k: Tensor, index_weights: Tensor, gradient: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Where the gradients go; that of the keys is a sum over all queries and kept in the accumulation dtype."""
    if not gradient:
        return index_q.new_empty(0), index_k.new_empty(0), index_weights.new_empty(0)
    grad_k = torch.zeros_like(index_k, dtype=accumulation_dtype(index_k.dtype), memory_format=torch.contiguous_format)
    return index_q.new_empty(index_q.shape), grad_k, index_weights.new_empty(index_weights.shape)


def _needs_gradient(inputs: tuple[Tensor, ...]) -> bool:
    return torch.is_grad_enabled() and any(x.requires_grad for x in inputs)


class _GradientMade(torch.autograd.Function):
    """A loss whose gradients in its first three arguments were made with it."""

    @staticmethod
    def forward(
        ctx: Any, index_q: Tensor, index_k: Tensor, index_weights: Tensor, loss: Tensor, grad_q: Tensor,
        grad_k: Tensor, grad_w: Tensor,
    ) -> Tensor:  # fmt: skip
        ctx.save_for_backward(grad_q, grad_k, grad_w)
        ctx.dtypes = index_q.dtype, index_k.dtype, index_weights.dtype
        return loss.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple:  # type: ignore[override]
        made = zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        return (*((grad * saved).to(dtype) for saved, dtype in made), None, None, None, None)


def _target_into(
    q: Tensor, k_nope: Tensor, k_rope: Tensor, lse: Tensor, starts: Tensor, ends: Tensor, scale: float, out: Tensor
) -> None:
    """`head_summed_target_rows` into `out`, which is left as it was outside the rows' ranges."""
    if use_triton(q):
        from kernels import kl_gluon, kl_triton

        body = kl_gluon if is_hopper(q) and kl_gluon.takes(q, k_nope, k_rope) else kl_triton
        return body.head_summed_target(q, k_nope, k_rope, lse.contiguous(), starts, ends, scale, out)
    nope = k_nope.shape[-1]
    scores = torch.einsum("mhd,nhd->mhn", q[..., :nope], k_nope) + torch.einsum("mhd,nd->mhn", q[..., nope:], k_rope)
    probs = (scores.to(out.dtype) * scale - lse.unsqueeze(-1)).exp()
    hidden = ~visible_keys(starts, ends, len(k_nope))
    out.copy_(probs.masked_fill_(hidden.unsqueeze(1), 0).mean(1))


def _divergence(
    target: Tensor, logits: Tensor, starts: Tensor, ends: Tensor, valid: Tensor | None, grad: Tensor | None
) -> Tensor:
    """KL of each row, [M]; `grad`, which may be `target` itself, gets dI = softmax(I) - p inside the rows' ranges."""
    if use_triton(target):
        from kernels.kl_triton import divergence

        return divergence(target, logits, starts, ends, valid, grad)
    return divergence_reference(target, logits, visible_keys(starts, ends, target.shape[1]), valid, grad)


def divergence_reference(
    target: Tensor, logits: Tensor, visible: Tensor, valid: Tensor | None, grad: Tensor | None
) -> Tensor:
    """KL of each row over its `visible` keys, and dI into `grad`; `valid` [M] False gives 0 in both."""
    if valid is not None:
        visible = visible & valid.unsqueeze(1)
    target = target.where(visible, 0)
    # A row without a key has log-probabilities NaN, and a hidden key -inf: 0 * -inf would be NaN.
    log_probs = logits.masked_fill(~visible, -torch.inf).log_softmax(-1).where(visible, 0)
    if grad is not None:
        grad.copy_((log_probs.exp() - target).where(visible, 0))
    return (torch.xlogy(target, target) - target * log_probs).sum(-1)
