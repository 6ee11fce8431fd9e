"""Tiny random models for the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM, DeepseekV32Config, DeepseekV32ForCausalLM

PLAIN = {"rope_type": "default", "rope_theta": 10000.0}
YARN = {
    "rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64,
    "mscale": 1.0, "mscale_all_dim": 1.0, "beta_fast": 32, "beta_slow": 1,
}  # fmt: skip
YARN_UNEVEN = {**YARN, "factor": 40.0, "original_max_position_embeddings": 32, "mscale": 0.7, "beta_fast": 8}

SHAPES: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 48, "intermediate_size": 64, "moe_intermediate_size": 24,
    "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 4, "n_routed_experts": 8,
    "num_experts_per_tok": 3, "n_group": 4, "topk_group": 2, "kv_lora_rank": 24, "q_lora_rank": 32,
    "qk_rope_head_dim": 8, "qk_nope_head_dim": 16, "v_head_dim": 12, "first_k_dense_replace": 1,
    "max_position_embeddings": 256, "rope_parameters": PLAIN,
}  # fmt: skip


def sparse_config(**changes: Any) -> DeepseekV32Config:
    # 16 index heads make a zero plateau at the k-th score unlikely: transformers breaks ties at random.
    indexer = {"index_topk": 12, "index_head_dim": 16, "index_n_heads": 16}
    return DeepseekV32Config(**{**SHAPES, **indexer, **changes})


def dense_config(**changes: Any) -> DeepseekV3Config:
    return DeepseekV3Config(**{**SHAPES, "num_mtp_layers": 0, **changes})


def transformers_twin(config: Any, seed: int, path: Path) -> torch.nn.Module:
    """A transformers model with random weights large enough that attention is far from uniform, saved to
    `path`."""
    torch.manual_seed(seed)
    kind = DeepseekV32ForCausalLM if config.model_type == "deepseek_v32" else DeepseekV3ForCausalLM
    twin = kind(config).eval()
    with torch.no_grad():
        for parameter in twin.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
            else:
                parameter.add_(0.1 * torch.randn_like(parameter))
        for name, buffer in twin.named_buffers():
            if name.endswith("e_score_correction_bias"):
                buffer.copy_(0.1 * torch.randn_like(buffer))
    twin.save_pretrained(path)
    return twin


def ids(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, SHAPES["vocab_size"], (count,), generator=torch.Generator().manual_seed(seed))
