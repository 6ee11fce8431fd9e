"""MLA attention of new tokens over a latent cache: decode and appended prefill, without gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.tiles import accumulation_dtype


def cached_mla_attention(q: Tensor, kv: Tensor, bias: Tensor, scale: float, value_dim: int) -> Tensor:
    """Attention of q over cached latent rows, absorbed form.

    Args:
        q: [B, Q, H, D] absorbed queries.
        kv: [B, S, D] cached rows; a value is the first `value_dim` columns. Need not be contiguous.
        bias: [B, Q, S], 0 at the keys that a query sees (causal and selected) and -inf elsewhere; at least
            one key of each row is visible.
        scale: softmax scale of the unabsorbed head size.
        value_dim: kv_lora_rank.

    Returns:
        [B, Q, H, value_dim].
    """
    batch, queries, heads, dim = q.shape
    scores = torch.baddbmm(
        q.new_empty(1, 1, 1), q.reshape(batch, queries * heads, dim), kv.transpose(1, 2), beta=0, alpha=scale
    )
    scores = scores.view(batch, queries, heads, -1).to(accumulation_dtype(q.dtype))
    scores += bias.unsqueeze(2)
    probs = scores.softmax(-1).to(q.dtype).flatten(1, 2)
    return (probs @ kv[..., :value_dim]).view(batch, queries, heads, value_dim)
