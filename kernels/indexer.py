"""The lightning indexer's score of every key for every query."""

from __future__ import annotations

from torch import Tensor

from kernels.tiles import accumulation_dtype


def indexer_logits(q: Tensor, k: Tensor, weights: Tensor) -> Tensor:
    """I[t, s] = sum_j w[t, j] * ReLU(q[t, j] . k[s])  (DeepSeek-V3.2, eq. 1). Not masked: causality is the
    caller's.

    Args:
        q: [B, Q, J, d] index queries (J index heads), already rotated.
        k: [B, S, d] index keys, one head shared by all J.
        weights: [B, Q, J] head weights, with the scales J^-0.5 and d^-0.5 folded in (they are > 0 and commute
            with the ReLU). May be negative.

    Returns:
        [B, Q, S] scores in at least float32.
    """
    batch, queries, heads, dim = q.shape
    dots = (q.reshape(batch, queries * heads, dim) @ k.transpose(1, 2)).to(accumulation_dtype(q.dtype))
    dots = dots.relu_().view(batch, queries, heads, -1)
    weights = weights.to(dots.dtype)
    if heads == 1:
        return dots[:, :, 0] * weights
    return (dots * weights.unsqueeze(-1)).sum(2)
