"""Versions of what a run was made with, without importing any of it."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path

PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "trl",
    "datasets",
    "ray",
    "omegaconf",
    "numpy",
    "pyarrow",
    "sympy",
    "math-verify",
    "triton",
    "vllm",
)
"""Packages whose version can change a result."""


def package_version() -> str:
    """Version of this package; `0` in a checkout that is not installed."""
    return _version("polymath-rl") or "0"


def versions() -> dict[str, str]:
    """Python, this package and the installed ones of `PACKAGES`."""
    found = {name: _version(name) for name in PACKAGES}
    return {
        "python": platform.python_version(),
        "polymath-rl": package_version(),
        **{name: version for name, version in found.items() if version},
    }


def git_commit() -> str | None:
    """Commit of the checkout that this code runs from, `+changes` if it was edited; None outside one."""
    here = Path(__file__).resolve().parent
    commit = _git(here, "rev-parse", "HEAD")
    if not commit:
        return None
    return f"{commit}+changes" if _git(here, "status", "--porcelain", "--untracked-files=no") else commit


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
