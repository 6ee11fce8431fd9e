"""Multi-head latent attention: projections here, the attention itself in the body of the device's layout."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from kernels.backend import use_triton
from model import block_attention, row_attention
from model.context import ForwardContext, Projections
from model.indexer import Indexer
from model.layers import RMSNorm
from model.rope import RopeTables, softmax_scale


class MLAttention(nn.Module):
    """MLA (DeepSeek-V2, section 2.1): [R, D] -> [R, D].

    Sparse attention and decoding run in the absorbed form: query heads are projected into the latent space, attend to
    the latent rows themselves, and come back through W_UV. One form serves training, prefill and decode of the sparse
    model, so the policy that is trained is the policy that samples.
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
        body = row_attention if use_triton(x) else block_attention
        attend = body.attend_packed if context.cache is None else body.attend_cached
        return self.o_proj(attend(self, self.project(x, context.rope), context).flatten(1))

    def project(self, x: Tensor, rope: RopeTables) -> Projections:
        """Layer input [R, D] -> queries and latent rows."""
        q_latent = self.q_a_layernorm(self.q_a_proj(x))
        up_key, up_value = self.kv_b_proj.weight.view(self.heads, -1, self.latent).split([self.nope, self.value], dim=1)
        q_nope, q_rope = (
            self.q_b_proj(q_latent).unflatten(-1, (self.heads, -1)).split([self.nope, self.rope_dim], dim=-1)
        )
        latent, k_rope = self.kv_a_proj_with_mqa(x).split([self.latent, self.rope_dim], dim=-1)
        # The shared rope key turns like one more query head.
        rotated = rope.rotate_pairs(torch.cat([q_rope, k_rope.unsqueeze(1)], dim=1))
        return Projections(
            q_nope=q_nope,
            q_rope=rotated[:, : self.heads],
            latent=self.kv_a_layernorm(latent),
            k_rope=rotated[:, self.heads],
            up_key=up_key,
            up_value=up_value,
            x=x.detach(),
            q_latent=q_latent.detach(),
        )
