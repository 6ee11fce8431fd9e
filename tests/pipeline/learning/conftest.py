"""Tiny models, a tokenizer and hand-made groups for the learner's tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import DeepseekV3Config, DeepseekV32Config

from model import DeepseekForCausalLM, save_checkpoint
from model.tokenizer import train_tokenizer
from rewards.types import Component, Reward
from rollout.chat import Chat
from rollout.records import Attempt, Group, Task, Trajectory

SHAPE: dict[str, Any] = {
    "vocab_size": 24, "hidden_size": 32, "intermediate_size": 48, "moe_intermediate_size": 16,
    "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "n_routed_experts": 4,
    "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "kv_lora_rank": 16, "q_lora_rank": 16,
    "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8, "first_k_dense_replace": 2,
    "max_position_embeddings": 256, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
}  # fmt: skip
INDEXER = {"index_topk": 8, "index_head_dim": 16, "index_n_heads": 4}


def build_model(seed: int = 0, sparse: bool = True, **changes: Any) -> DeepseekForCausalLM:
    torch.manual_seed(seed)
    settings = {**SHAPE, **(INDEXER if sparse else {}), **changes}
    model = DeepseekForCausalLM(DeepseekV32Config(**settings) if sparse else DeepseekV3Config(**settings))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    return model


@pytest.fixture(scope="session")
def tiny_model() -> Callable[..., DeepseekForCausalLM]:
    """Makes a random model; equal arguments, equal weights."""
    return build_model


@pytest.fixture(scope="session")
def chat() -> Chat:
    return Chat(train_tokenizer(["what is 12 + 34", "the answer is 46", "a b c d"] * 20, 300))


@pytest.fixture(scope="session")
def checkpoint(chat: Chat, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random sparse model and the tokenizer."""
    path = tmp_path_factory.mktemp("checkpoint") / "start"
    model = build_model(vocab_size=len(chat.tokenizer), eos_token_id=chat.end_token_id)
    save_checkpoint(model, chat.tokenizer, path)
    return path


def paid(value: float | None) -> Reward:
    if value is None:
        return Reward.invalid("the sandbox died")
    return Reward.of([Component("outcome", value, 1.0, value)], passed=value > 0)


@pytest.fixture(scope="session")
def make_groups() -> Callable[..., list[Group]]:
    """Makes groups of random trajectories with the given rewards (None: invalid), one list of rewards a group."""

    def make(rewards: Sequence[Sequence[float | None]], seed: int = 0, vocab: int = 24) -> list[Group]:
        rng = np.random.default_rng(seed)
        groups = []
        for number, values in enumerate(rewards):
            task = Task(f"toy/{number}", "toy", ({"role": "user", "content": "?"},))
            prompt = rng.integers(0, vocab, size=rng.integers(2, 8))
            trajectories = []
            for sample in range(len(values)):
                length = int(rng.integers(2, 14))
                mask = np.concatenate([np.zeros(len(prompt)), np.ones(length)]).astype(bool)
                if length > 6:  # a tool's answer in the middle
                    mask[len(prompt) + 2 : len(prompt) + 4] = False
                logprobs = np.where(mask, -rng.uniform(0.5, 4.0, size=len(mask)), 0).astype(np.float32)
                attempt = Attempt(task, ("x",), (), "stop", int(mask.sum()), sample=sample)
                ids = np.concatenate([prompt, rng.integers(0, vocab, size=length)]).astype(np.int32)
                trajectories.append(Trajectory(attempt, ids, mask, logprobs, np.where(mask, 0, -1).astype(np.int32)))
            groups.append(Group(task, tuple(trajectories), tuple(paid(v) for v in values)))
        return groups

    return make
