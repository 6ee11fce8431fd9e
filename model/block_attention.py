"""Attention of one layer in block layout: the body for CPUs, and for float64 anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kernels import (
    Selection,
    block_indexer_kl,
    block_mla_attention,
    cached_mla_attention,
    indexer_logits,
    topk_mask,
)
from kernels.tiles import QUERY_TILE, mask_bias
from model.context import ForwardContext, Projections
from model.stats import measure_layer

if TYPE_CHECKING:
    from model.attention import MLAttention


def attend_packed(layer: MLAttention, parts: Projections, context: ForwardContext) -> Tensor:
    """A packed batch in training: heads' values [R, H, v]."""
    groups, indexer, layout = context.layout.groups, layer.indexer, context.layout
    q, kv = parts.absorbed_q(), layout.keys(parts.kv())
    selection: list[Selection | None] | None = None
    # With no sequence longer than index_topk every visible key is selected: the indexer has nothing to say.
    selective = context.sparse and indexer is not None and max(g.length for g in groups) > indexer.topk
    if indexer is not None and (selective or context.indexer_loss or context.stats is not None):
        with torch.set_grad_enabled(torch.is_grad_enabled() and context.indexer_loss is not None):
            index_q, weights = indexer.queries(parts.x, parts.q_latent, context.rope)
            index_k = layout.keys(indexer.keys(parts.x, context.rope))
        if selective:
            kept = context.selections.get(layer.layer)
            selection = kept if isinstance(kept, list) else indexer.select_blocks(index_q, index_k, weights, groups)
            if context.keep_selections:
                context.selections[layer.layer] = selection
        if context.indexer_loss is not None:
            loss = block_indexer_kl(index_q, index_k, weights, q, kv, groups, layer.scale, layout.valid, selection)
            context.indexer_losses.setdefault(layer.layer, loss)
        if context.stats is not None:
            context.stats.layers.append(
                measure_layer(index_q, index_k, weights, q, kv, layout, layer.scale, indexer.topk)
            )
    return parts.lift(block_mla_attention(q, kv, groups, layer.scale, layer.latent, selection))


def attend_cached(layer: MLAttention, parts: Projections, context: ForwardContext) -> Tensor:
    """New tokens over a latent cache, without gradient: heads' values [R, H, v]."""
    step, indexer, q = context.cache, layer.indexer, parts.absorbed_q()
    assert step is not None
    store = step.cache.kv[layer.layer]
    step.write(store, parts.kv())
    index_store = None
    if indexer is not None:
        assert step.cache.index_k is not None
        index_store = step.cache.index_k[layer.layer]
        step.write(index_store, indexer.keys(parts.x, context.rope))
    selective = indexer is not None and any(group.key_count > indexer.topk for group in step.groups)
    index_q, weights = indexer.queries(parts.x, parts.q_latent, context.rope) if indexer and selective else (None, None)
    out = q.new_empty(*q.shape[:2], layer.latent)
    row = 0
    for (n, length, _), group in zip(context.layout.groups, step.groups, strict=True):
        keys, rows = group.read(store), slice(row, row + n * length)
        queries, target = q[rows].view(n, length, *q.shape[1:]), out[rows].view(n, length, *out.shape[1:])
        index_keys = None
        if indexer is not None and index_store is not None and group.key_count > indexer.topk:
            index_keys = group.read(index_store)
        for start in range(0, length, QUERY_TILE):
            part = slice(start, start + QUERY_TILE)
            bias = group.bias[:, part]
            if indexer is not None and index_keys is not None:
                assert index_q is not None and weights is not None
                scores = indexer_logits(
                    index_q[rows].view(n, length, *index_q.shape[1:])[:, part],
                    index_keys,
                    weights[rows].view(n, length, -1)[:, part],
                )
                bias = mask_bias(topk_mask(scores + bias, indexer.topk), bias.dtype)
            target[:, part] = cached_mla_attention(queries[:, part], keys, bias, layer.scale, layer.latent)
        row += n * length
    return parts.lift(out)
