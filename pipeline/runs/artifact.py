"""What a stage leaves: a file or folder with its content hash."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Artifact:
    """A file or folder that a stage made.

    Attributes:
        path: relative to the run's folder, so that a run can be moved.
        kind: what it is: `checkpoint`, `tokenizer`, `dataset`, `table`, …
        sha256: hash of the content (`hash_path`).
        meta: JSON-serialisable facts about it.
    """

    path: str
    kind: str
    sha256: str
    meta: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(path: Path, kind: str, run: Path, **meta: Any) -> Artifact:
        """The artifact at `path`, which lies inside the run's folder.

        Raises:
            ValueError: if it lies outside.
            FileNotFoundError: if there is nothing.
        """
        return Artifact(path.resolve().relative_to(run.resolve()).as_posix(), kind, hash_path(path), meta)

    def at(self, run: Path) -> Path:
        """Where it is on disk."""
        return run / self.path

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"meta": dict(self.meta)}

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> Artifact:
        return Artifact(row["path"], row["kind"], row["sha256"], row.get("meta", {}))


def hash_path(path: Path) -> str:
    """SHA-256 of a file, or of a folder's sorted relative names, sizes and file hashes.

    Hidden files (temporary names of writes under way) do not count. Modification times do not either.

    Raises:
        FileNotFoundError: if there is nothing at `path`.
    """
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    lines = [[name, file.stat().st_size, hash_path(file)] for name, file in _files(path)]
    return hashlib.sha256(json.dumps(lines).encode()).hexdigest()


def stat_signature(path: Path) -> str | None:
    """Names, sizes and modification times in one hash: equal means that nobody wrote since; None if absent.

    Cheap where `hash_path` reads gigabytes.
    """
    try:
        files = [("", path)] if path.is_file() else _files(path)
        lines = [[name, file.stat().st_size, file.stat().st_mtime_ns] for name, file in files]
    except FileNotFoundError:
        return None
    return hashlib.sha256(json.dumps(lines).encode()).hexdigest()


def _files(folder: Path) -> list[tuple[str, Path]]:
    if not folder.is_dir():
        raise FileNotFoundError(f"expected a file or folder at {folder}, found nothing")
    found = ((file.relative_to(folder), file) for file in folder.rglob("*") if file.is_file())
    return sorted(
        (name.as_posix(), file) for name, file in found if not any(p.startswith(".") for p in name.parts)
    )
