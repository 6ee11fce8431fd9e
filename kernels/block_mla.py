"""Causal MLA attention over a packed batch in block layout, dense or restricted to a selection.

The CPU body of sparse attention for training. At the lengths a CPU trains on, scoring all keys of a tile and
adding a bias beats gathering each query's keys; see `GATHER_RATIO`. Probabilities are recomputed in the
backward pass, so nothing of size L x L outlives a tile except the selection itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kernels.tiles import Group, Selection, Tile, accumulation_dtype, mask_bias, tiles

# A tile whose keys outnumber index_topk by more than this gathers the selected rows instead of scoring all of
# them. Gathering costs the same at any length, a masked product grows with it. Measured on one core, forward
# and backward (D = 80, H = 4, k = 64, one sequence): 12 against 16 ms at 512 keys, 110 against 688 ms at 4096,
# equal near 4 k; 8 leaves room for groups of many sequences, whose gathered rows leave the cache.
GATHER_RATIO = 8


def block_mla_attention(
    q: Tensor,
    kv: Tensor,
    groups: Sequence[tuple[int, ...]],
    scale: float,
    value_dim: int,
    selection: Sequence[Selection | None] | None = None,
) -> Tensor:
    """Causal attention inside each sequence, absorbed form.

    Args:
        q: [T, H, D] absorbed queries in block layout (see `kernels.tiles`).
        kv: [S, D] latent rows; a value is the first `value_dim` columns.
        groups: `(n, L)` or `(n, L, s)` of consecutive groups; the sum of n * (L - s) is T, that of n * L is S.
        scale: softmax scale of the unabsorbed head size.
        value_dim: kv_lora_rank.
        selection: one entry for each tile of `tiles(groups)`; None keeps a tile dense-causal. Without it,
            dense.

    Returns:
        [T, H, value_dim]. Differentiable in q and kv; the selection gets no gradient.
    """
    queries, keys = sum(Group(*g).query_rows for g in groups), sum(Group(*g).key_rows for g in groups)
    if len(q) != queries or len(kv) != keys:
        raise ValueError(f"groups hold {queries} queries and {keys} keys, but q has {len(q)} rows and kv {len(kv)}")
    chosen = list(selection) if selection is not None else [None] * len(list(tiles(groups)))
    return _BlockAttention.apply(q, kv, tuple(groups), scale, value_dim, chosen)


def tile_probabilities(tile: Tile, q: Tensor, kv: Tensor, scale: float, selected: Selection | None) -> Tensor:
    """Attention probabilities [n, c, H, S] of a tile over all of its keys; 0 at a key that is not visible."""
    queries, keys = tile.queries(q), tile.keys(kv)
    n, count, heads, dim = queries.shape
    scores = torch.baddbmm(
        q.new_empty(1, 1, 1),
        queries.reshape(n, count * heads, dim),
        keys.transpose(1, 2),
        beta=0,
        alpha=scale,
    )
    scores = scores.view(n, count, heads, -1).to(accumulation_dtype(q.dtype))
    if selected is None:
        scores[..., tile.start :] += tile.causal_bias(scores).unsqueeze(1)
    else:
        scores += mask_bias(selected.as_mask(tile.stop), scores.dtype).unsqueeze(2)
    return scores.softmax(-1)


def _gathered(
    tile: Tile, q: Tensor, kv: Tensor, scale: float, indices: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Probabilities [n*c, H, k] over the selected rows only, with queries, gathered rows and their
    positions."""
    queries = tile.queries(q)
    n, count, heads, dim = queries.shape
    first = torch.arange(n, device=q.device).view(n, 1, 1) * tile.group.length + tile.key_row
    position = (indices.clamp_min(0) + first).flatten()
    rows = kv.index_select(0, position).view(n * count, -1, dim)
    queries = queries.reshape(n * count, heads, dim)
    scores = (queries @ rows.transpose(1, 2)).to(accumulation_dtype(q.dtype)) * scale
    scores += mask_bias(indices >= 0, scores.dtype).view(n * count, 1, -1)
    return scores.softmax(-1), queries, rows, position


class _BlockAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, kv: Tensor, groups: tuple, scale: float, value_dim: int, selection: list
    ) -> Tensor:
        out = q.new_empty(len(q), q.shape[1], value_dim)
        for tile, selected in zip(tiles(groups), selection, strict=True):
            target = tile.queries(out)
            if selected is not None and selected.indices is not None:
                probs, _, rows, _ = _gathered(tile, q, kv, scale, selected.indices)
                target.copy_((probs.to(q.dtype) @ rows[..., :value_dim]).view(target.shape))
            else:
                probs = tile_probabilities(tile, q, kv, scale, selected).to(q.dtype).flatten(1, 2)
                target.copy_((probs @ tile.keys(kv)[..., :value_dim]).view(target.shape))
        ctx.save_for_backward(q, kv)
        ctx.spec = (groups, scale, value_dim, selection)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple:  # type: ignore[override]
        q, kv = ctx.saved_tensors
        groups, scale, value_dim, selection = ctx.spec
        grad = grad.contiguous()
        grad_q, grad_kv = torch.empty_like(q), torch.zeros_like(kv)
        for tile, selected in zip(tiles(groups), selection, strict=True):
            if selected is not None and selected.indices is not None:
                _gathered_backward(tile, q, kv, scale, value_dim, selected.indices, grad, grad_q, grad_kv)
            else:
                _masked_backward(tile, q, kv, scale, value_dim, selected, grad, grad_q, grad_kv)
        return grad_q, grad_kv, None, None, None, None


def _masked_backward(
    tile: Tile, q: Tensor, kv: Tensor, scale: float, value_dim: int, selected: Selection | None,
    grad: Tensor, grad_q: Tensor, grad_kv: Tensor,
) -> None:  # fmt: skip
    keys, target = tile.keys(kv), tile.queries(grad_q)
    probs = tile_probabilities(tile, q, kv, scale, selected).flatten(1, 2)
    queries, grad_out = tile.queries(q).flatten(1, 2), tile.queries(grad).flatten(1, 2)
    grad_scores = _softmax_backward(grad_out @ keys[..., :value_dim].transpose(1, 2), probs).mul_(scale).to(q.dtype)
    target.copy_((grad_scores @ keys).view(target.shape))
    # The latent row is key and value: both gradients meet in its first value_dim columns.
    grad_keys = tile.keys(grad_kv)
    grad_keys += grad_scores.transpose(1, 2) @ queries
    grad_keys[..., :value_dim] += probs.to(q.dtype).transpose(1, 2) @ grad_out


def _gathered_backward(
    tile: Tile, q: Tensor, kv: Tensor, scale: float, value_dim: int, indices: Tensor,
    grad: Tensor, grad_q: Tensor, grad_kv: Tensor,
) -> None:  # fmt: skip
    target = tile.queries(grad_q)
    probs, queries, rows, position = _gathered(tile, q, kv, scale, indices)
    grad_out = tile.queries(grad).reshape(len(rows), -1, value_dim)
    grad_scores = _softmax_backward(grad_out @ rows[..., :value_dim].transpose(1, 2), probs).mul_(scale).to(q.dtype)
    target.copy_((grad_scores @ rows).view(target.shape))
    grad_rows = grad_scores.transpose(1, 2) @ queries
    grad_rows[..., :value_dim] += probs.to(q.dtype).transpose(1, 2) @ grad_out
    grad_kv.index_add_(0, position, grad_rows.flatten(0, 1))


def _softmax_backward(grad: Tensor, probs: Tensor) -> Tensor:
    return torch.ops.aten._softmax_backward_data(grad.to(probs.dtype), probs, -1, probs.dtype)
