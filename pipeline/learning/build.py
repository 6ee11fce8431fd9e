"""A new dense model from its configuration."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoTokenizer, DeepseekV3Config

from model import DeepseekForCausalLM, cast_model
from pipeline.config.schema import ModelConfig


def new_model(config: ModelConfig, tokenizer_folder: Path, seed: int, device: str) -> DeepseekForCausalLM:
    """A freshly initialised dense MLA model (`deepseek_v3`), its vocabulary that of the tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    architecture = DeepseekV3Config(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        moe_intermediate_size=config.moe_intermediate_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        num_key_value_heads=config.num_attention_heads,
        n_routed_experts=config.n_routed_experts,
        num_experts_per_tok=config.num_experts_per_tok,
        n_shared_experts=1,
        n_group=1,
        topk_group=1,
        first_k_dense_replace=min(config.first_k_dense_replace, config.num_hidden_layers),
        q_lora_rank=config.q_lora_rank,
        kv_lora_rank=config.kv_lora_rank,
        qk_nope_head_dim=config.qk_nope_head_dim,
        qk_rope_head_dim=config.qk_rope_head_dim,
        v_head_dim=config.v_head_dim,
        max_position_embeddings=config.max_position_embeddings,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype=config.dtype,
    )
    torch.manual_seed(seed)
    model: DeepseekForCausalLM = cast_model(DeepseekForCausalLM(architecture), getattr(torch, config.dtype))
    model.to(torch.device(device))  # type: ignore[arg-type]  # transformers wraps `to` in an untyped decorator
    return model
