"""What the sparse stage of the indexer's loss needs over selected keys: target, index scores and their gradient.

Of query m the keys `indices[m, :counts[m]]` are selected; what stands in later slots of a result is not defined.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.backend import is_hopper, use_triton
from kernels.tiles import accumulation_dtype


def selected_target(q: Tensor, kv: Tensor, lse: Tensor, indices: Tensor, counts: Tensor, scale: float) -> Tensor:
    """p[m, i] = sum_h exp(scale * q[m, h] . kv[indices[m, i]] - lse[m, h]) / H, the head-summed sparse attention.

    Args:
        q: [M, H, D], kv: [N, D], lse: [M, H] (natural log), indices: [M, k] int32, counts: [M] int32.

    Returns:
        [M, k] in at least float32.
    """
    if use_triton(q):
        from kernels import kl_sparse_gluon, kl_sparse_triton

        body = kl_sparse_gluon if is_hopper(q) and kl_sparse_gluon.takes(q, kv) else kl_sparse_triton
        return body.selected_target(q, kv, lse, indices, counts, scale)
    scores = torch.einsum("mhd,mkd->mhk", q, kv[indices.clamp_min(0).long()]).to(accumulation_dtype(q.dtype)) * scale
    return (scores - lse.unsqueeze(-1)).exp().mean(1)


def selected_logits(q: Tensor, k: Tensor, weights: Tensor, indices: Tensor, counts: Tensor) -> Tensor:
    """The scores of `kernels.indexer.indexer_logits_rows` at the selected keys.

    Args:
        q: [M, J, d], k: [N, d], weights: [M, J], indices: [M, k] int32, counts: [M] int32.

    Returns:
        [M, k] in at least float32.
    """
    if use_triton(q):
        from kernels import kl_sparse_triton

        return kl_sparse_triton.selected_logits(q, k, weights, indices, counts)
    products = torch.einsum("mjd,mkd->mjk", q, k[indices.clamp_min(0).long()]).to(accumulation_dtype(q.dtype))
    return (products.relu() * weights.unsqueeze(-1)).sum(1)


def selected_backward(
    grad: Tensor, q: Tensor, k: Tensor, weights: Tensor, indices: Tensor, counts: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of sum(grad * selected_logits(...)) with `grad` [M, k].

    Returns:
        dq [M, J, d], dw [M, J], and [M * k, d] what each pair of query and slot adds to the gradient of its key.
    """
    if use_triton(q):
        from kernels import kl_sparse_triton

        return kl_sparse_triton.selected_backward(grad, q, k, weights, indices, counts)
    rows = k[indices.clamp_min(0).long()]
    dtype = accumulation_dtype(q.dtype)
    products = torch.einsum("mjd,mkd->mjk", q, rows).to(dtype)
    grad = grad.masked_fill(indices < 0, 0).unsqueeze(1)
    grad_products = (grad * weights.unsqueeze(-1) * (products > 0)).to(q.dtype)
    grad_q = torch.einsum("mjk,mkd->mjd", grad_products, rows)
    partials = torch.einsum("mjk,mjd->mkd", grad_products, q).flatten(0, 1)
    return grad_q, (products.relu() * grad).sum(-1).to(weights.dtype), partials
