"""Activation checkpointing: the same gradients, and a recomputed layer attends to the keys it selected before."""

import pytest
import torch

from model import DeepseekForCausalLM, PackedBatch
from model.indexer import Indexer
from tests.model.tiny_models import ids, sparse_config


def gradients(model: DeepseekForCausalLM, checkpointing: bool) -> dict[str, torch.Tensor]:
    model.model.gradient_checkpointing = checkpointing
    model.zero_grad()
    batch = PackedBatch.from_sequences([ids(70), ids(33, 1), ids(70, 2)])
    out = model.hidden_states(batch, indexer_loss="sparse")
    assert out.indexer_loss is not None
    (model.token_logprobs(batch, hidden=out.hidden).sum() + 0.5 * out.indexer_loss).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_checkpointing_changes_no_gradient_and_selects_once(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = DeepseekForCausalLM(sparse_config()).double().train()
    plain = gradients(model, checkpointing=False)
    assert any(".indexer." in name for name in plain)
    calls = []
    select = Indexer.select_blocks
    monkeypatch.setattr(Indexer, "select_blocks", lambda self, *args: calls.append(1) or select(self, *args))
    again = gradients(model, checkpointing=True)
    assert len(calls) == model.config.num_hidden_layers
    assert plain.keys() == again.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(again[name], gradient, atol=1e-12, rtol=1e-10, msg=name)


def test_sampling_is_not_checkpointed() -> None:
    model = DeepseekForCausalLM(sparse_config())
    model.model.gradient_checkpointing = True
    with torch.no_grad():
        assert model.hidden_states(PackedBatch.from_sequences([ids(20)])).hidden.shape == (20, 48)
