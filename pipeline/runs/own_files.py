"""The user's own files that a stage reads: data sets and reward functions on this machine."""

from __future__ import annotations

import sys
from pathlib import Path

from pipeline.config.schema import Config
from pipeline.sources import local_path
from pipeline.stages import StageSpec

GONE = "gone"
"""Stands for the hash of a file that is named and not there."""


def own_files(spec: StageSpec, config: Config) -> dict[str, Path]:
    """The files and folders behind `domains.X.data.train`, `.heldout` and `.reward`, by the key of the setting.

    Only stages that have tasks tried read them. A dataset of the hub and a function that is not in a plain module file
    are known by their name alone.
    """
    if not spec.tries:
        return {}
    files: dict[str, Path | None] = {}
    for name, domain in config.domains.items():
        if not domain.enabled:
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
