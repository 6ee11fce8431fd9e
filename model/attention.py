"""Multi-head latent attention in its absorbed (MQA) form, dense or over the indexer's selection."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from kernels import (
    Selection,
    block_indexer_kl,
    block_mla_attention,
    cached_mla_attention,
    indexer_logits,
    topk_mask,
)
from kernels.tiles import QUERY_TILE, mask_bias
from model.cache import CacheStep
from model.indexer import Indexer
from model.layers import RMSNorm
from model.layout import BlockLayout
from model.rope import RopeTables, softmax_scale
from model.stats import DsaStats, measure_layer


@dataclass
class ForwardContext:
    """What one call of the model shares between its layers; `indexer_losses` collects one 0-dim sum for each
    layer."""

    layout: BlockLayout
    rope: RopeTables
    sparse: bool
    indexer_loss: str | None = None
    stats: DsaStats | None = None
    cache: CacheStep | None = None
    indexer_losses: list[Tensor] = field(default_factory=list)


class MLAttention(nn.Module):
    """MLA (DeepSeek-V2, section 2.1) as one shared latent head: [R, D] -> [R, D].

    Query heads are projected into the latent space (W_UK), attend to the latent rows themselves, and come
    back through W_UV. One form serves training, prefill and decode, so the policy that is trained is the
    policy that samples.
    """

    def __init__(self, config: Any, layer: int, with_indexer: bool) -> None:
        super().__init__()
        self.layer, self.heads = layer, config.num_attention_heads
        self.nope, self.rope_dim, self.value = (
            config.qk_nope_head_dim,
            config.qk_rope_head_dim,
            config.v_head_dim,
        )
        self.latent = config.kv_lora_rank
        self.scale = softmax_scale(config)
        hidden, bias = config.hidden_size, config.attention_bias
        self.q_a_proj = nn.Linear(hidden, config.q_lora_rank, bias=bias)
        # The latent norms keep eps 1e-6 whatever rms_norm_eps says, as in the reference.
        self.q_a_layernorm = RMSNorm(config.q_lora_rank)
        self.q_b_proj = nn.Linear(config.q_lora_rank, self.heads * (self.nope + self.rope_dim), bias=False)
        self.kv_a_proj_with_mqa = nn.Linear(hidden, self.latent + self.rope_dim, bias=bias)
        self.kv_a_layernorm = RMSNorm(self.latent)
        self.kv_b_proj = nn.Linear(self.latent, self.heads * (self.nope + self.value), bias=False)
        self.o_proj = nn.Linear(self.heads * self.value, hidden, bias=bias)
        self.indexer = Indexer(config) if with_indexer else None

    def forward(self, x: Tensor, context: ForwardContext) -> Tensor:
        q_latent = self.q_a_layernorm(self.q_a_proj(x))
        up_key, up_value = self.kv_b_proj.weight.view(self.heads, -1, self.latent).split([self.nope, self.value], dim=1)
        q_nope, q_rope = (
            self.q_b_proj(q_latent).unflatten(-1, (self.heads, -1)).split([self.nope, self.rope_dim], dim=-1)
        )
        latent, k_rope = self.kv_a_proj_with_mqa(x).split([self.latent, self.rope_dim], dim=-1)
        # The shared rope key turns like one more query head.
        rotated = context.rope.rotate_pairs(torch.cat([q_rope, k_rope.unsqueeze(1)], dim=1))
        absorbed = torch.bmm(q_nope.transpose(0, 1), up_key).transpose(0, 1)
        q = torch.cat([absorbed, rotated[:, : self.heads]], dim=-1)
        kv = torch.cat([self.kv_a_layernorm(latent), rotated[:, self.heads]], dim=-1)

        # The indexer learns from its own loss only: nothing flows from it into the main model.
        attend = self._attend_packed if context.cache is None else self._attend_cached
        out = attend(q, kv, x.detach(), q_latent.detach(), context)
        out = torch.bmm(out.transpose(0, 1), up_value.transpose(1, 2)).transpose(0, 1)
        return self.o_proj(out.flatten(1))

    def _attend_packed(self, q: Tensor, kv: Tensor, x: Tensor, q_latent: Tensor, context: ForwardContext) -> Tensor:
        groups, indexer = context.layout.groups, self.indexer
        kv = context.layout.keys(kv)
        selection: list[Selection | None] | None = None
        # With no sequence longer than index_topk every visible key is selected: the indexer has nothing to
        # say.
        selective = context.sparse and indexer is not None and max(g.length for g in groups) > indexer.topk
        if indexer is not None and (selective or context.indexer_loss or context.stats is not None):
            with torch.set_grad_enabled(torch.is_grad_enabled() and context.indexer_loss is not None):
                index_q, weights = indexer.queries(x, q_latent, context.rope)
                index_k = context.layout.keys(indexer.keys(x, context.rope))
            if selective:
                selection = indexer.select_blocks(index_q, index_k, weights, groups)
            if context.indexer_loss is not None:
                context.indexer_losses.append(
                    block_indexer_kl(
                        index_q, index_k, weights, q, kv, groups, self.scale, context.layout.valid, selection
                    )
                )
            if context.stats is not None:
                context.stats.layers.append(
                    measure_layer(index_q, index_k, weights, q, kv, context.layout, self.scale, indexer.topk)
                )
        return block_mla_attention(q, kv, groups, self.scale, self.latent, selection)

    def _attend_cached(self, q: Tensor, kv: Tensor, x: Tensor, q_latent: Tensor, context: ForwardContext) -> Tensor:
        step, indexer = context.cache, self.indexer
        assert step is not None
        store = step.cache.kv[self.layer]
        step.write(store, kv)
        index_store = None
        if indexer is not None:
            assert step.cache.index_k is not None
            index_store = step.cache.index_k[self.layer]
            step.write(index_store, indexer.keys(x, context.rope))
        selective = indexer is not None and any(group.key_count > indexer.topk for group in step.groups)
        index_q, weights = indexer.queries(x, q_latent, context.rope) if indexer and selective else (None, None)
        out = q.new_empty(*q.shape[:2], self.latent)
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
                target[:, part] = cached_mla_attention(queries[:, part], keys, bias, self.scale, self.latent)
            row += n * length
        return out
