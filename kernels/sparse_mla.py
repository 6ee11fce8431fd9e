"""Sparse MLA attention in the absorbed (MQA) form, over explicit key indices."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.tiles import accumulation_dtype


def sparse_mla_attention(
    q: Tensor, kv: Tensor, indices: Tensor, scale: float, value_dim: int, chunk: int = 256
) -> tuple[Tensor, Tensor]:
    """Attention of every query over its selected latent rows (DeepSeek-V3.2, eq. 2; MLA's MQA mode).

    Args:
        q: [T, H, D] absorbed queries, D = kv_lora_rank + qk_rope_head_dim.
        kv: [S, D] latent rows; a value is the first `value_dim` columns of the same row.
        indices: [T, k] rows of `kv` for each query; -1 is padding. The order does not matter.
        scale: softmax scale. It belongs to the *unabsorbed* head size (nope + rope), not to D.
        value_dim: kv_lora_rank.
        chunk: queries gathered at a time, which bounds memory to chunk * k * D elements in the forward.

    Returns:
        out [T, H, value_dim] and the natural-log sum of exponentials lse [T, H]. A query without a key gives
        out = 0 and lse = -inf.
    """
    parts = [_attend(q[i : i + chunk], kv, indices[i : i + chunk], scale, value_dim) for i in range(0, len(q), chunk)]
    return torch.cat([out for out, _ in parts]), torch.cat([lse for _, lse in parts])


def _attend(q: Tensor, kv: Tensor, indices: Tensor, scale: float, value_dim: int) -> tuple[Tensor, Tensor]:
    rows = kv[indices.clamp_min(0).long()]
    scores = (q @ rows.transpose(1, 2)).to(accumulation_dtype(q.dtype)) * scale
    empty = indices < 0
    scores = scores.masked_fill(empty.unsqueeze(1), -torch.inf)
    lse = scores.logsumexp(-1)
    # A row of only -inf would give exp(nan): its probabilities are 0 by definition.
    probs = (scores - lse.masked_fill(empty.all(-1, keepdim=True), 0).unsqueeze(-1)).exp()
    return probs.to(q.dtype) @ rows[..., :value_dim], lse
