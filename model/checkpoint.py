"""Checkpoints: a Hugging Face folder with DeepSeek's weight names, renamed into place when it is whole."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig

from model.modeling import ARCHITECTURES, DeepseekForCausalLM

WEIGHTS, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
_EXPERT = re.compile(r"(.*\.mlp\.experts)\.(\d+)\.(gate|up|down)_proj\.weight")
_LAYER = re.compile(r"model\.layers\.(\d+)\.")


class CheckpointError(RuntimeError):
    """A checkpoint folder is missing, incomplete, damaged or of another shape; the message names the
    culprit."""


def split_experts(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Module names -> names on disk: stacked experts come apart into
    `experts.E.{gate,up,down}_proj.weight`."""
    result: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.endswith(".experts.gate_up_proj"):
            prefix = name.removesuffix(".gate_up_proj")
            for expert, both in enumerate(tensor):
                gate, up = both.chunk(2)
                result[f"{prefix}.{expert}.gate_proj.weight"] = gate
                result[f"{prefix}.{expert}.up_proj.weight"] = up
        elif name.endswith(".experts.down_proj"):
            prefix = name.removesuffix(".down_proj")
            for expert, down in enumerate(tensor):
                result[f"{prefix}.{expert}.down_proj.weight"] = down
        else:
            result[name] = tensor
    return result


def merge_experts(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `split_experts`."""
    result: dict[str, Tensor] = {}
    experts: dict[str, dict[str, dict[int, Tensor]]] = {}
    for name, tensor in state.items():
        match = _EXPERT.fullmatch(name)
        if match is None:
            result[name] = tensor
        else:
            kinds = experts.setdefault(match[1], {"gate": {}, "up": {}, "down": {}})
            kinds[match[3]][int(match[2])] = tensor
    for prefix, kinds in experts.items():
        count = max(max(numbers, default=-1) for numbers in kinds.values()) + 1
        for kind, numbers in kinds.items():
            for expert in range(count):
                if expert not in numbers:
                    raise CheckpointError(f"weight {prefix}.{expert}.{kind}_proj.weight is missing")
        gate_up = [torch.cat([kinds["gate"][e], kinds["up"][e]]) for e in range(count)]
        result[f"{prefix}.gate_up_proj"] = torch.stack(gate_up)
        result[f"{prefix}.down_proj"] = torch.stack([kinds["down"][e] for e in range(count)])
    return result


def save_checkpoint(model: DeepseekForCausalLM, tokenizer: Any | None, path: str | Path) -> None:
    """Writes config, weights and tokenizer to a temporary folder beside `path`, fsyncs it and renames it into
    place.

    A reader never sees a half-written checkpoint. A checkpoint that already stands at `path` is replaced.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        temporary.chmod(0o755)
        model.config.architectures = [ARCHITECTURES[model.config.model_type]]
        model.config.dtype = model.dtype
        model.config.save_pretrained(temporary)
        state = {name: tensor.contiguous() for name, tensor in split_experts(model.state_dict()).items()}
        # clone(): safetensors refuses tensors that share storage, as slices of one stacked expert tensor do.
        state = {name: tensor.clone() for name, tensor in state.items()}
        save_file(state, temporary / WEIGHTS, metadata={"format": "pt"})
        if tokenizer is not None:
            tokenizer.save_pretrained(temporary)
        for file in [*temporary.rglob("*"), temporary]:
            _fsync(file)
        if path.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
            os.rename(path, old / path.name)
            os.rename(temporary, path)
            shutil.rmtree(old)
        else:
            os.rename(temporary, path)
        _fsync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load_checkpoint(
    path: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> DeepseekForCausalLM:
    """Loads a deepseek_v32 or deepseek_v3 folder, ours or another's, one file or sharded.

    Args:
        path: folder with config.json and model.safetensors (or its shards and their index).
        device: where the model goes.
        dtype: None keeps the dtype that the config names, or float32. The indexer's head weights and the
            router's bias stay as `DeepseekForCausalLM.from_pretrained` keeps them: float32.

    Raises:
        CheckpointError: naming the folder, the file or the weight.
    """
    path = Path(path)
    if not path.is_dir():
        raise CheckpointError(f"checkpoint folder {path} does not exist")
    if not (path / CONFIG).is_file():
        raise CheckpointError(f"checkpoint {path} has no {CONFIG}")
    config = AutoConfig.from_pretrained(path)
    if config.model_type not in ARCHITECTURES:
        raise CheckpointError(f"{path / CONFIG}: model_type is {config.model_type!r}, not one of {list(ARCHITECTURES)}")
    dtype = dtype or getattr(config, "dtype", None) or torch.float32
    state = merge_experts({name: w for name, w in _read_weights(path).items() if not _is_unused(name, config)})
    with torch.random.fork_rng(devices=[]):
        model = DeepseekForCausalLM(config)
    _check_weights(path, model.state_dict(), state)
    model.load_state_dict(state)
    torch.nn.Module.to(cast_model(model, dtype), device)
    return model


def cast_model(model: DeepseekForCausalLM, dtype: torch.dtype) -> DeepseekForCausalLM:
    """Casts in place; what must be exact (the indexer's head weights, the router's bias) stays at least
    float32."""
    exact = torch.float64 if dtype == torch.float64 else torch.float32
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        keep = "indexer.weights_proj" in name or "e_score_correction_bias" in name
        tensor.data = tensor.data.to(exact if keep else dtype)
    model.config.dtype = dtype
    return model


def _read_weights(path: Path) -> dict[str, Tensor]:
    files = [path / WEIGHTS]
    if (path / INDEX).is_file():
        files = [path / name for name in sorted(set(json.loads((path / INDEX).read_text())["weight_map"].values()))]
    state: dict[str, Tensor] = {}
    for file in files:
        if not file.is_file():
            raise CheckpointError(f"checkpoint {path} has no {file.name}")
        try:
            state.update(load_file(file))
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{file} is damaged or not a safetensors file: {error}") from error
    return state


def _is_unused(name: str, config: Any) -> bool:
    """Whether a published checkpoint has the weight and this model has no place for it: layers for multi-token
    prediction, which follow the last, and rotary tables."""
    layer = _LAYER.match(name)
    return name.endswith("rotary_emb.inv_freq") or (layer is not None and int(layer[1]) >= config.num_hidden_layers)


def _check_weights(path: Path, expected: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    for name, tensor in expected.items():
        if name not in found:
            raise CheckpointError(f"checkpoint {path}: weight {name} is missing")
        if found[name].shape != tensor.shape:
            raise CheckpointError(
                f"checkpoint {path}: weight {name} has shape {list(found[name].shape)}, "
                f"but config.json asks for {list(tensor.shape)}"
            )
    extra = sorted(set(found) - set(expected))
    if extra:
        raise CheckpointError(f"checkpoint {path}: weight {extra[0]} ({len(extra)} in all) has no place in the model")


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
