"""Training state on disk: folders renamed into place, each with a manifest of sizes and SHA-256.

A damaged state is named on the error stream and the one before it is used.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.runs.atomic import commit_folder

KEEP = 2
"""States kept: the newest, and one before it in case the newest is damaged."""

MANIFEST = "state.json"


@dataclass(frozen=True)
class Saved:
    """A training state found on disk: `step` steps are done, `extra` is what was saved with it."""

    step: int
    folder: Path
    extra: dict[str, Any]


def save_state(root: Path, step: int, write: Callable[[Path], None], extra: dict[str, Any] | None = None) -> Saved:
    """Lets `write` fill a temporary folder, adds the manifest, renames it to `root/step_<n>` and prunes older ones."""
    final = root / f"step_{step:06d}"
    temporary = root / f".{final.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        write(temporary)
        files = {
            str(path.relative_to(temporary)): {"size": path.stat().st_size, "sha256": _sha256(path)}
            for path in sorted(temporary.rglob("*"))
            if path.is_file()
        }
        manifest: dict[str, Any] = {"step": step, "files": files, "extra": extra or {}}
        (temporary / MANIFEST).write_text(json.dumps(manifest, sort_keys=True), encoding="utf-8")
        commit_folder(temporary, final)
    except BaseException:
        # Half a state would keep a full disk full.
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    for old in _states(root)[:-KEEP]:
        shutil.rmtree(old, ignore_errors=True)
    return Saved(step, final, manifest["extra"])


def latest_state(root: Path) -> Saved | None:
    """The newest state that is whole, or None."""
    for folder in reversed(_states(root)):
        problem = _damage(folder)
        if problem is None:
            manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            return Saved(manifest["step"], folder, manifest["extra"])
        print(f"{folder} is damaged ({problem}); using the state before it", file=sys.stderr)
    return None


def _states(root: Path) -> list[Path]:
    return sorted(root.glob("step_[0-9]*")) if root.is_dir() else []


def _damage(folder: Path) -> str | None:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files = {name: (entry["size"], entry["sha256"]) for name, entry in manifest["files"].items()}
        _ = int(manifest["step"]), dict(manifest["extra"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        return f"{MANIFEST}: {type(error).__name__}: {error}"
    for name, (size, sha256) in files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size or _sha256(path) != sha256:
            return f"{name} is not what was written"
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
