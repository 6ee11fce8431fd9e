"""The decoder stack under the language-model head."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_outputs import BaseModelOutput

from model.attention import ForwardContext, MLAttention
from model.layers import MLP, RMSNorm
from model.layout import BlockLayout
from model.moe import MoE
from model.packing import PackedBatch
from model.rope import RopeTables, inverse_frequencies


class DecoderLayer(nn.Module):
    """Pre-norm attention and MLP (dense or MoE), each with a residual: [R, D] -> [R, D]."""

    def __init__(self, config: Any, layer: int) -> None:
        super().__init__()
        self.self_attn = MLAttention(config, layer, with_indexer=is_sparse(config))
        self.mlp = MoE(config) if _has_experts(config, layer) else MLP(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: Tensor, context: ForwardContext) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), context)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """Embedding, layers and final norm.

    `run` is the stack itself, on rows in block layout. `packed` wraps it for a packed batch, and `forward`
    for the padded batches of Hugging Face trainers (TRL calls the decoder alone, to avoid [B, L, V] logits).
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self._frequencies = inverse_frequencies(config)
        self._sparse = is_sparse(config)
        # Set by transformers' switch as well. Layers then run again in the backward pass, on the selection they made.
        self.gradient_checkpointing = False

    def rope(self, positions: Tensor) -> RopeTables:
        """Rotations of rows at the given positions [R]."""
        return RopeTables.build(*self._frequencies, positions, self.norm.weight.dtype)

    def run(self, ids: Tensor, context: ForwardContext) -> Tensor:
        """Token ids [R] in the context's layout -> hidden states [R, D] after the final norm."""
        x = self.embed_tokens(ids)
        again = self.gradient_checkpointing and torch.is_grad_enabled() and context.cache is None
        context.keep_selections = again
        for layer in self.layers:
            # Not the reentrant form: the indexer's loss leaves a layer beside its output.
            x = checkpoint(layer, x, context, use_reentrant=False) if again else layer(x, context)
        return self.norm(x)

    def packed(self, batch: PackedBatch, sparse: bool, **options: Any) -> tuple[Tensor, ForwardContext]:
        """T packed tokens -> hidden states [T, D], and the context with what its layers collected.

        `options` are fields of `ForwardContext`: indexer_loss, stats.
        """
        device = self.norm.weight.device
        # The indexer's loss and the statistics count a prompt once for each sequence that has it.
        layout = BlockLayout.build(batch.lengths, device, None if any(options.values()) else batch.shared)
        context = ForwardContext(layout, self.rope(layout.positions), sparse, **options)
        rows = self.run(batch.input_ids.to(device)[layout.row_token], context)
        return rows.index_select(0, layout.token_row), context

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        use_cache: bool = False,
    ) -> BaseModelOutput:
        """input_ids [B, L] -> last_hidden_state [B, L, D], 0 at padding.

        Padding (attention_mask 0, on either side) is removed before the stack runs. Without a mask,
        position_ids that start again at 0 mark packed sequences inside a row.
        """
        if use_cache:
            raise ValueError("use_cache is for generate(); sample with prefill, decode and a LatentCache")
        if attention_mask is None:
            keep = torch.ones_like(input_ids, dtype=torch.bool)
            lengths = [input_ids.shape[1]] * len(input_ids)
            if position_ids is not None:
                lengths = _lengths_from_positions(position_ids.expand_as(input_ids))
        else:
            keep = attention_mask.bool()
            lengths = [length for length in keep.sum(1).tolist() if length]
        packed, _ = self.packed(PackedBatch.from_lengths(input_ids[keep], lengths), self._sparse)
        hidden = packed.new_zeros(*input_ids.shape, packed.shape[-1])
        return BaseModelOutput(last_hidden_state=hidden.masked_scatter(keep.unsqueeze(-1), packed))


def is_sparse(config: Any) -> bool:
    """Whether a config describes a model with an indexer."""
    return config.model_type == "deepseek_v32"


def _has_experts(config: Any, layer: int) -> bool:
    types = getattr(config, "mlp_layer_types", None)
    return types[layer] == "sparse" if types else layer >= config.first_k_dense_replace


def _lengths_from_positions(position_ids: Tensor) -> list[int]:
    starts = (position_ids.flatten() == 0).nonzero()[:, 0].tolist()
    if not starts or not bool((position_ids[:, 0] == 0).all()):
        raise ValueError("position_ids must start at 0 in every row")
    return [end - start for start, end in zip(starts, [*starts[1:], position_ids.numel()], strict=True)]
