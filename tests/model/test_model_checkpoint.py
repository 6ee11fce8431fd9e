"""Checkpoint folders: atomic replacement, shards and errors that name the culprit."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from model import CheckpointError, DeepseekForCausalLM, load_checkpoint, save_checkpoint
from tests.model.tiny_models import dense_config, sparse_config


def saved(path: Path, seed: int = 0) -> DeepseekForCausalLM:
    torch.manual_seed(seed)
    model = DeepseekForCausalLM(sparse_config())
    save_checkpoint(model, None, path)
    return model


def edit(path: Path, change) -> None:
    state = load_file(path / "model.safetensors")
    change(state)
    save_file(state, path / "model.safetensors")


def test_replaces_and_leaves_nothing_behind(tmp_path: Path) -> None:
    saved(tmp_path / "step", 0)
    model = saved(tmp_path / "step", 1)
    assert [file.name for file in tmp_path.iterdir()] == ["step"]
    loaded = load_checkpoint(tmp_path / "step").state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in model.state_dict().items())


def test_failed_save_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    model = saved(tmp_path / "step")

    class Broken:
        def save_pretrained(self, path: Path) -> None:
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(model, Broken(), tmp_path / "step")
    assert [file.name for file in tmp_path.iterdir()] == ["step"]
    load_checkpoint(tmp_path / "step")


def test_reads_shards(tmp_path: Path) -> None:
    model = saved(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    names = sorted(state)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in shards.items():
        save_file({name: state[name] for name in part}, tmp_path / file)
    index = {"weight_map": {name: file for file, part in shards.items() for name in part}}
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    loaded = load_checkpoint(tmp_path).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in model.state_dict().items())


def test_errors_name_folder_file_and_weight(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere does not exist"):
        load_checkpoint(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        load_checkpoint(tmp_path)
    name, expert = "model.layers.0.self_attn.indexer.wk.weight", "model.layers.1.mlp.experts.2.up_proj.weight"
    for change, message in (
        (lambda state: state.pop(name), f"weight {name} is missing"),
        (lambda state: state.pop(expert), f"weight {expert} is missing"),
        (
            lambda state: state.update({name: torch.zeros(3, 48)}),
            rf"{name} has shape \[3, 48\].* asks for \[16, 48\]",
        ),
        (lambda state: state.update({"stray": torch.zeros(1)}), "weight stray"),
    ):
        saved(tmp_path / "step")
        edit(tmp_path / "step", change)
        with pytest.raises(CheckpointError, match=message):
            load_checkpoint(tmp_path / "step")
    file = tmp_path / "step/model.safetensors"
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(tmp_path / "step")
    file.unlink()
    with pytest.raises(CheckpointError, match=r"has no model\.safetensors"):
        load_checkpoint(tmp_path / "step")


def test_what_published_checkpoints_carry_beside_the_model_is_left_out(tmp_path: Path) -> None:
    model = DeepseekForCausalLM(dense_config())
    save_checkpoint(model, None, tmp_path / "m")
    file = tmp_path / "m" / "model.safetensors"
    weights = load_file(file)
    weights["model.layers.3.eh_proj.weight"] = torch.zeros(2, 2)
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(4)
    save_file(weights, file)
    loaded = load_checkpoint(tmp_path / "m")
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True))
    weights["model.layers.2.extra"] = torch.zeros(1)
    save_file(weights, file)
    with pytest.raises(CheckpointError, match=r"model\.layers\.2\.extra .* no place in the model"):
        load_checkpoint(tmp_path / "m")
