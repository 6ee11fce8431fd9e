"""What a result was measured with: device, date, commit, command and versions; and where results lie.

Needs torch alone, so that a GPU machine without the pipeline's packages can measure.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"
PACKAGES = "triton", "vllm", "tilelang"


def provenance(module: str) -> dict[str, Any]:
    """Head of a result of `python -m <module>`. The environment variable GIT_COMMIT, where it is set, says what the
    commit is: a copy of the code on a GPU machine need not be a checkout of it."""
    return {
        "benchmark": module.rpartition(".")[2],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": device_name(),
        "commit": os.environ.get("GIT_COMMIT") or _commit(),
        "command": " ".join(["python -m", module, *sys.argv[1:]]),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            **{name: version for name in PACKAGES if (version := _version(name))},
        },
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


def _commit() -> str | None:
    """Commit of the checkout that this code runs from, `+changes` if it was edited; None outside one."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        done = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True)
        edited = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"], capture_output=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() + ("+changes" if edited.stdout else "")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
