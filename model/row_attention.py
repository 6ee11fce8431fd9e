"""Attention of one layer in row layout: the body for GPUs. Sparse attention and everything over a cache is absorbed;
dense attention over a packed batch expands keys and values, which is cheaper where every key is attended to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kernels import (
    batch_invariant,
    dense_mla_attention,
    dense_mla_decode,
    indexer_kl_rows,
    indexer_logits_decode,
    select_rows,
    sparse_indexer_kl_rows,
    sparse_mla_attention,
    sparse_mla_decode,
    topk_rows,
)
from model.cache import CacheStep
from model.context import ForwardContext, Projections
from model.indexer import Indexer
from model.stats import LayerStats, measure_rows

if TYPE_CHECKING:
    from model.attention import MLAttention


def attend_packed(layer: MLAttention, parts: Projections, context: ForwardContext) -> Tensor:
    """A packed batch in training: heads' values [R, H, v]."""
    if context.stats is not None:
        assert layer.indexer is not None
        context.stats.layers.append(_measure(layer, layer.indexer, parts, context))
    if context.sparse and layer.indexer is not None:
        return _sparse(layer, layer.indexer, parts, context)
    if batch_invariant.is_active():
        # The form of decoding, so that both give the same bits.
        q, kv = parts.absorbed_q(), context.layout.keys(parts.kv())
        return parts.lift(sparse_mla_attention(q, kv, context.layout.ranges.visible, layer.scale, layer.latent)[0])
    return _dense(layer, parts, context)


def _sparse(layer: MLAttention, indexer: Indexer, parts: Projections, context: ForwardContext) -> Tensor:
    ranges = context.layout.ranges
    q, kv = parts.absorbed_q(), context.layout.keys(parts.kv())
    # With no sequence longer than index_topk every visible key is selected: the indexer has nothing to say.
    selective = ranges.longest > indexer.topk
    index = _index(indexer, parts, context) if selective or context.indexer_loss is not None else None
    indices = context.selections.get(layer.layer)
    if indices is None:
        indices = select_rows(*index, ranges, indexer.topk) if selective and index else ranges.visible
        if context.keep_selections:
            context.selections[layer.layer] = indices
    assert isinstance(indices, Tensor)
    out, lse = sparse_mla_attention(q, kv, indices, layer.scale, layer.latent)
    if context.indexer_loss is not None and index is not None:
        loss = sparse_indexer_kl_rows(*index, q, kv, lse, indices, layer.scale)
        context.indexer_losses.setdefault(layer.layer, loss)
    return parts.lift(out)


def _dense(layer: MLAttention, parts: Projections, context: ForwardContext) -> Tensor:
    main, values = _expanded(parts, context)
    out, lse = dense_mla_attention(*main, values, context.layout.groups, layer.scale)
    if context.indexer_loss is not None:
        assert layer.indexer is not None
        ranges = context.layout.ranges
        loss = indexer_kl_rows(
            *_index(layer.indexer, parts, context), *main, lse, ranges.starts, ranges.ends, layer.scale
        )
        context.indexer_losses.setdefault(layer.layer, loss)
    return out


def _expanded(parts: Projections, context: ForwardContext) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
    """Queries [R, H, nope + rope], keys without position [S, H, nope], rope keys [S, rope]; values [S, H, v]."""
    q = torch.cat([parts.q_nope, parts.q_rope], dim=-1)
    k_nope, values = parts.expanded(context.layout.keys(parts.latent))
    return (q, k_nope, context.layout.keys(parts.k_rope)), values


@torch.no_grad()
def _measure(layer: MLAttention, indexer: Indexer, parts: Projections, context: ForwardContext) -> LayerStats:
    layout = context.layout
    main, values = _expanded(parts, context)
    _, lse = dense_mla_attention(*main, values, layout.groups, layer.scale)
    return measure_rows(_index(indexer, parts, context), (*main, lse), layout, layer.scale, indexer.topk)


def _index(indexer: Indexer, parts: Projections, context: ForwardContext) -> tuple[Tensor, Tensor, Tensor]:
    """Index queries [R, J, d], keys [S, d] and head weights [R, J]."""
    with torch.set_grad_enabled(torch.is_grad_enabled() and context.indexer_loss is not None):
        index_q, weights = indexer.queries(parts.x, parts.q_latent, context.rope)
        return index_q, context.layout.keys(indexer.keys(parts.x, context.rope)), weights


def attend_cached(layer: MLAttention, parts: Projections, context: ForwardContext) -> Tensor:
    """New tokens over a latent cache, without gradient: heads' values [R, H, v]."""
    step, indexer = context.cache, layer.indexer
    assert step is not None
    step.write(step.cache.kv[layer.layer], parts.kv())
    if indexer is not None and step.cache.index_k is not None:
        step.write(step.cache.index_k[layer.layer], indexer.keys(parts.x, context.rope))
    if step.decoding:
        return parts.lift(_decode(layer, parts, context, step))
    if indexer is None and step.fresh and not batch_invariant.is_active():
        # Only the call's own rows are seen.
        return _dense(layer, parts, context)
    return parts.lift(_append(layer, parts, context, step))


def _append(layer: MLAttention, parts: Projections, context: ForwardContext, step: CacheStep) -> Tensor:
    """Attention of appended tokens over the cache: [R, H, kv_lora_rank]."""
    indexer, ranges, q = layer.indexer, step.ranges, parts.absorbed_q()
    keys = step.cache.kv[layer.layer].flatten(0, 1)
    if indexer is not None and step.cache.index_k is not None and ranges.longest > indexer.topk:
        index_q, weights = indexer.queries(parts.x, parts.q_latent, context.rope)
        index_k = step.cache.index_k[layer.layer].flatten(0, 1)
        indices = select_rows(index_q, index_k, weights, ranges, indexer.topk)
        return sparse_mla_attention(q, keys, indices, layer.scale, layer.latent)[0]
    out = [
        sparse_mla_attention(q[rows], keys, visible, layer.scale, layer.latent)[0]
        for rows, visible in ranges.visible_parts()
    ]
    return torch.cat(out)


def _decode(layer: MLAttention, parts: Projections, context: ForwardContext, step: CacheStep) -> Tensor:
    """Attention of one token for each slot: [B, H, kv_lora_rank]."""
    indexer, ranges, q = layer.indexer, step.ranges, parts.absorbed_q()
    keys = step.cache.kv[layer.layer].flatten(0, 1)
    # In invariant arithmetic decoding adds up in the order of the packed form: all keys in one split.
    longest = max(ranges.longest, indexer.topk if indexer else 1)
    split = 1 << max(5, (longest - 1).bit_length()) if batch_invariant.is_active() else None
    if indexer is None or step.cache.index_k is None or ranges.longest <= indexer.topk:
        span = ranges.starts, ranges.ends, ranges.longest
        return dense_mla_decode(q, keys, *span, layer.scale, layer.latent, split)[0]
    index_q, weights = indexer.queries(parts.x, parts.q_latent, context.rope)
    store = step.cache.index_k[layer.layer]
    slots, held = step.row_slot.int(), (step.row_position + 1).int()
    scores = indexer_logits_decode(index_q, store, weights, slots, held, ranges.longest)
    found = topk_rows(scores, indexer.topk, torch.zeros_like(held), held)
    indices = torch.where(found >= 0, found + (slots * store.shape[1]).unsqueeze(1), -1)
    return sparse_mla_decode(q, keys, indices, layer.scale, layer.latent, split)[0]
