"""What a result was measured with: device, date, commit, command and versions; and where results lie."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from pipeline.runs.versions import git_commit, versions

RESULTS = Path(__file__).parent / "results"


def provenance(module: str) -> dict[str, Any]:
    """Head of a result of `python -m <module>`. Where the code lies outside a git checkout (a copy on a GPU machine),
    the commit is what the environment variable GIT_COMMIT says."""
    return {
        "benchmark": module.rpartition(".")[2],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": device_name(),
        "commit": git_commit() or os.environ.get("GIT_COMMIT"),
        "command": " ".join(["python -m", module, *sys.argv[1:]]),
        "versions": {**versions(), "cuda": torch.version.cuda, "torch": torch.__version__},
    }


def device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def result_path(name: str, suffix: str = "json") -> Path:
    """`benchmarks/results/<name>_<device>.<suffix>`."""
    slug = "_".join("".join(c if c.isalnum() else " " for c in device_name().lower()).split())
    return RESULTS / f"{name}_{slug}.{suffix}"


def write_json(path: Path, result: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"written to {path}")
