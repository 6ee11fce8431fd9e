"""The indexer's training loss: KL from the head-summed attention to the indexer's softmax, with its gradient.

Dense warm-up compares over all visible keys, sparse training over the selected ones (DeepSeek-V3.2, eq. 3 and
4). Loss and gradient are made in one pass, a tile of queries at a time, from the analytic form dI =
softmax(I) - p: autograd through -p / softmax(I) is inaccurate where the softmax is tiny, and would keep L x L
values for each head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kernels.block_mla import tile_probabilities
from kernels.tiles import Selection, accumulation_dtype, mask_bias, tiles


def head_summed_target(probs: Tensor) -> Tensor:
    """p[t, s] = sum_h A[h, t, s] / H from probabilities [..., H, S]: each head's row sums to 1, so the L1
    norm is H."""
    return probs.mean(-2)


def block_indexer_kl(
    index_q: Tensor,
    index_k: Tensor,
    index_weights: Tensor,
    q: Tensor,
    kv: Tensor,
    groups: Sequence[tuple[int, ...]],
    scale: float,
    valid: Tensor | None = None,
    selection: Sequence[Selection | None] | None = None,
) -> Tensor:
    """sum_t KL(p[t, :] || softmax(I[t, :])) over the visible keys of every valid row.

    Args:
        index_q: [T, J, d], index_k: [T, d], index_weights: [T, J] as for `indexer_logits`, in block layout.
        q: [T, H, D] and kv: [T, D]: absorbed queries and latent rows of the main attention; no gradient flows
            to them.
        groups, scale: as for `block_mla_attention`.
        valid: [T] bool, False at padding rows; None when there are none.
        selection: restricts both distributions to the selected keys (sparse stage). None is the dense stage.

    Returns:
        0-dim sum in nats, differentiable in index_q, index_k and index_weights.
    """
    chosen = list(selection) if selection is not None else [None] * len(list(tiles(groups)))
    return _IndexerKL.apply(
        index_q, index_k, index_weights, q.detach(), kv.detach(), tuple(groups), scale, valid, chosen
    )


class _IndexerKL(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, index_q: Tensor, index_k: Tensor, index_weights: Tensor, q: Tensor, kv: Tensor,
        groups: tuple, scale: float, valid: Tensor | None, selection: list,
    ) -> Tensor:  # fmt: skip
        dtype = accumulation_dtype(index_q.dtype)
        total = torch.zeros((), dtype=dtype, device=q.device)
        grad_q, grad_w = torch.empty_like(index_q), torch.empty_like(index_weights)
        grad_k = torch.zeros_like(index_k)
        for tile, selected in zip(tiles(groups), selection, strict=True):
            target = head_summed_target(tile_probabilities(tile, q, kv, scale, selected)).to(dtype)
            queries, keys = tile.queries(index_q), tile.keys(index_k)
            n, count, heads, dim = queries.shape
            queries = queries.reshape(n, count * heads, dim)
            active = (queries @ keys.transpose(1, 2)).to(dtype).relu_().view(n, count, heads, -1)
            weights = tile.queries(index_weights).to(dtype).unsqueeze(-1)
            logits = (active * weights).sum(2)
            if selected is None:
                logits[..., tile.start :] += tile.causal_bias(logits)
            else:
                logits += mask_bias(selected.as_mask(tile.stop), dtype)
            log_probs = logits.log_softmax(-1)
            # A hidden key has p = 0 and log-probability -inf; 0 * -inf would be NaN.
            divergence = torch.xlogy(target, target) - target * log_probs.masked_fill(target == 0, 0)
            grad_logits = log_probs.exp().sub_(target)
            if valid is not None:
                keep = tile.queries(valid).unsqueeze(-1)
                divergence, grad_logits = divergence * keep, grad_logits * keep
            total += divergence.sum()
            tile.queries(grad_w).copy_((active * grad_logits.unsqueeze(2)).sum(-1))
            grad_dots = (grad_logits.unsqueeze(2) * weights).mul_(active > 0).to(index_q.dtype).flatten(1, 2)
            tile.queries(grad_q).copy_((grad_dots @ keys).view(n, count, heads, dim))
            grad_keys = tile.keys(grad_k)
            grad_keys += grad_dots.transpose(1, 2) @ queries
        ctx.save_for_backward(grad_q, grad_k, grad_w)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple:  # type: ignore[override]
        grads = tuple((grad * saved).to(saved.dtype) for saved in ctx.saved_tensors)
        return (*grads, None, None, None, None, None, None)
