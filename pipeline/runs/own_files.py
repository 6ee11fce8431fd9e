"""The user's own files that a stage reads: checkpoint, data sets and reward functions on this machine."""

from __future__ import annotations

import sys
from pathlib import Path

from pipeline.config.schema import Config
from pipeline.sources import local_path
from pipeline.stages import StageSpec

GONE = "gone"
"""Stands for the hash of a file that is named and not there."""


def own_files(spec: StageSpec, config: Config) -> dict[str, Path]:
    """The files and folders that the stage reads itself, by the key of the setting that names them.

    Only stages that have tasks tried read `domains.X.data.train`, `.heldout` and `.reward`; base takes over
    `model.path`, or sparsify where it does without base. A dataset of the hub and a function that is not in a plain
    module file are known by their name alone.
    """
    files: dict[str, Path | None] = {}
    reads_model = spec.name == "base" or (spec.name == "sparsify" and not spec.needs_under(config))
    if reads_model and config.model.path is not None:
        files["model.path"] = Path(config.model.path)
    texts = config.sparsify.data
    if spec.name == "sparsify" and texts is not None:
        files["sparsify.data.train"] = local_path(texts.train)
        files["sparsify.data.heldout"] = local_path(texts.heldout or "")
    if spec.name == "judge" and config.judge.data is not None:
        files["judge.data.train"] = local_path(config.judge.data.train)
        files["judge.data.heldout"] = local_path(config.judge.data.heldout or "")
    for name, domain in config.domains.items():
        if not (domain.enabled and spec.tries):
            continue
        if domain.data is not None:
            files[f"domains.{name}.data.train"] = local_path(domain.data.train)
            files[f"domains.{name}.data.heldout"] = local_path(domain.data.heldout or "")
        files[f"domains.{name}.reward"] = module_file(domain.reward or "")
    return {key: path for key, path in files.items() if path is not None}


def module_file(dotted: str) -> Path | None:
    """The file of the module in `package.module.function` (or `package.module:function`), found without importing.

    The current folder is searched first, as the import does.
    """
    module = dotted.partition(":")[0] if ":" in dotted else dotted.rpartition(".")[0]
    if not module:
        return None
    inside = Path(*module.split("."))
    for folder in dict.fromkeys(("", *sys.path)):
        for file in (Path(folder) / inside / "__init__.py", Path(folder) / inside.with_suffix(".py")):
            if file.is_file():
                return file
    return None
