"""Logits and checkpoints against transformers' own DeepSeek models."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import DeepseekV3ForCausalLM, DeepseekV32ForCausalLM

from model import DeepseekForCausalLM, load_checkpoint, save_checkpoint
from tests.model.tiny_models import (
    PLAIN,
    YARN,
    YARN_UNEVEN,
    dense_config,
    ids,
    sparse_config,
    transformers_twin,
)


@pytest.mark.parametrize("rope", [PLAIN, YARN, YARN_UNEVEN], ids=["plain", "yarn", "yarn-uneven"])
@pytest.mark.parametrize("kind", ["sparse", "dense"])
def test_logits_equal_transformers(kind: str, rope: dict[str, Any], tmp_path: Path) -> None:
    config = (sparse_config if kind == "sparse" else dense_config)(rope_parameters=dict(rope))
    twin = transformers_twin(config, 1, tmp_path / "twin")
    ours = load_checkpoint(tmp_path / "twin").eval()
    tokens = ids(2 * 140).view(2, 140)  # far beyond index_topk = 12
    with torch.no_grad():
        expected, logits = twin(tokens).logits, ours(tokens).logits
    assert expected.abs().max() > 1
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)


def test_selection_matters(tmp_path: Path) -> None:
    """Guards the test above: with the selection off, logits differ by far more than its tolerance."""
    transformers_twin(sparse_config(), 1, tmp_path / "twin")
    ours = load_checkpoint(tmp_path / "twin").eval()
    from model import PackedBatch

    batch = PackedBatch.from_sequences([ids(140)])
    with torch.no_grad():
        difference = ours.hidden_states(batch).hidden - ours.hidden_states(batch, attention="dense").hidden
    assert difference[:12].abs().max() < 1e-5
    assert difference[12:].abs().max() > 0.1


@pytest.mark.parametrize("kind", ["sparse", "dense"])
@pytest.mark.parametrize("how", ["save_checkpoint", "save_pretrained"])
def test_export_loads_in_transformers(kind: str, how: str, tmp_path: Path) -> None:
    config = (sparse_config if kind == "sparse" else dense_config)()
    twin = transformers_twin(config, 2, tmp_path / "twin")
    ours = load_checkpoint(tmp_path / "twin").eval()
    if how == "save_checkpoint":
        save_checkpoint(ours, None, tmp_path / "ours")
    else:
        ours.save_pretrained(tmp_path / "ours")
    first, second = (
        load_file(tmp_path / "twin/model.safetensors"),
        load_file(tmp_path / "ours/model.safetensors"),
    )
    assert first.keys() == second.keys()
    assert "model.layers.1.mlp.experts.3.gate_proj.weight" in second
    assert all(torch.equal(first[name], second[name]) for name in first)

    architecture = DeepseekV32ForCausalLM if kind == "sparse" else DeepseekV3ForCausalLM
    assert json.loads((tmp_path / "ours/config.json").read_text())["architectures"] == [architecture.__name__]
    again = architecture.from_pretrained(tmp_path / "ours").eval()
    assert all(torch.equal(a, b) for a, b in zip(twin.parameters(), again.parameters(), strict=True))
    tokens = ids(60).unsqueeze(0)
    with torch.no_grad():
        assert torch.equal(again(tokens).logits, twin(tokens).logits)
        torch.testing.assert_close(ours(tokens).logits, again(tokens).logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["sparse", "dense"])
def test_from_pretrained_equals_load_checkpoint(kind: str, tmp_path: Path) -> None:
    transformers_twin((sparse_config if kind == "sparse" else dense_config)(), 3, tmp_path)
    loaded, pretrained = load_checkpoint(tmp_path), DeepseekForCausalLM.from_pretrained(tmp_path)
    assert pretrained.config.model_type == loaded.config.model_type
    state = loaded.state_dict()
    assert state.keys() == pretrained.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in pretrained.state_dict().items())
    tokens = ids(50).unsqueeze(0)
    with torch.no_grad():
        assert torch.equal(pretrained.eval()(tokens).logits, loaded.eval()(tokens).logits)
