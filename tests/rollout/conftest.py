"""A small tokenizer and tiny models for the rollout tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import DeepseekV3Config, DeepseekV32Config

from model import DeepseekForCausalLM
from model.tokenizer import train_tokenizer
from rollout.chat import Chat


@pytest.fixture(scope="session")
def chat() -> Chat:
    return Chat(train_tokenizer(["what is 12 + 34", "open the file", "the answer is 46"] * 20, 300))


@pytest.fixture(scope="session")
def tiny_model() -> Callable[..., DeepseekForCausalLM]:
    """Makes a random sparse or dense model, its logits far from uniform."""

    def make(vocab_size: int = 40, sparse: bool = True, seed: int = 0, **changes: Any) -> DeepseekForCausalLM:
        shape: dict[str, Any] = {
            "vocab_size": vocab_size, "hidden_size": 32, "intermediate_size": 48, "moe_intermediate_size": 16,
            "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "n_routed_experts": 4,
            "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "kv_lora_rank": 16, "q_lora_rank": 16,
            "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8, "first_k_dense_replace": 1,
            "max_position_embeddings": 256, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
        }  # fmt: skip
        indexer = {"index_topk": 8, "index_head_dim": 16, "index_n_heads": 4}
        torch.manual_seed(seed)
        config = (DeepseekV32Config if sparse else DeepseekV3Config)(**shape, **(indexer if sparse else {}), **changes)
        model = DeepseekForCausalLM(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(5)
        return model

    return make
