"""The user's own checkpoint (`model.path`), looked at before the first stage: without torch, from its small files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.config.schema import Config
from pipeline.errors import UsageError

DENSE, SPARSE = "deepseek_v3", "deepseek_v32"


def check_model(config: Config) -> None:
    """Whether `model.path` is a folder that the pipeline can train under these settings.

    Raises:
        UsageError: with everything that is in the way, and what to do about it.
    """
    assert config.model.path is not None
    folder = Path(config.model.path)
    description = read_config(folder)
    problems = [*_architecture(description), *_files(folder), *_settings(config, description)]
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines = [f"{count} with model.path={config.model.path}:", *(f"  {problem}" for problem in problems)]
        raise UsageError("\n".join(lines))


def read_config(folder: Path) -> dict[str, Any]:
    """The `config.json` of a checkpoint folder.

    Raises:
        UsageError: if there is none.
    """
    if not folder.is_dir():
        what = "a file" if folder.exists() else "nothing there"
        raise UsageError(f"model.path: expected a Hugging Face checkpoint folder, {folder} is {what}")
    file = folder / "config.json"
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"model.path: expected a Hugging Face folder with a config.json, {folder} has none") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"model.path: {file} can not be read: {error}") from error
    if not isinstance(found, dict):
        raise UsageError(f"model.path: {file} must hold an object, got {type(found).__name__}")
    return found


def _architecture(description: dict[str, Any]) -> list[str]:
    kind = description.get("model_type")
    if kind not in (DENSE, SPARSE):
        return [f"expected model_type {DENSE} (dense MLA) or {SPARSE} (with an indexer), config.json has {kind!r}"]
    problems = []
    if description.get("q_lora_rank") is None:
        problems.append("q_lora_rank is not set: the indexer reads a compressed query, and this model has none")
    if description.get("tie_word_embeddings"):
        problems.append("tie_word_embeddings is true: give a copy with a head of its own (lm_head.weight) and false")
    if "quantization_config" in description:
        method = (description["quantization_config"] or {}).get("quant_method", "unknown")
        problems.append(f"its weights are quantised ({method}): give a copy in bfloat16 without quantization_config")
    return problems


def _files(folder: Path) -> list[str]:
    problems = []
    if not any((folder / name).is_file() for name in ("model.safetensors", "model.safetensors.index.json")):
        problems.append("no weights: expected model.safetensors, or its shards with model.safetensors.index.json")
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")):
        problems.append("no tokenizer: expected tokenizer.json in the same folder; copy the model's own there")
    return problems


def _settings(config: Config, description: dict[str, Any]) -> list[str]:
    """What the settings of sparsify ask of the model."""
    sparsify, problems = config.sparsify, []
    if description.get("model_type") == SPARSE and sparsify.warmup_steps > 0:
        problems.append(
            "it has an indexer already (deepseek_v32), and a dense warm-up would train it anew: set "
            "sparsify.warmup_steps=0 to go on with sparse training, and sparsify.sparse_steps=0 too to keep it as it is"
        )
    rope = description.get("qk_rope_head_dim")
    if description.get("model_type") == DENSE and rope is not None and config.model.index_head_dim < rope:
        problems.append(f"model.index_head_dim is {config.model.index_head_dim}, below its qk_rope_head_dim ({rope})")
    longest = description.get("max_position_embeddings")
    lengths = {"sparsify.needle.lengths": max(sparsify.needle.lengths, default=0)}
    lengths["sparsify.context_length"] = sparsify.context_length or 0
    for key, length in lengths.items():
        if longest is not None and length > longest:
            problems.append(f"{key} asks for {length} tokens, its max_position_embeddings is {longest}")
    return problems
