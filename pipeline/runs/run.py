"""The folder of a run."""

from __future__ import annotations

import json
import shutil
import socket
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.config.explain import to_yaml
from pipeline.config.schema import Config
from pipeline.runs.atomic import write_json, write_text
from pipeline.runs.events import Events
from pipeline.runs.lock import Driver, driver_lock, read_driver
from pipeline.runs.manifest import Manifest
from pipeline.runs.versions import git_commit, versions


@dataclass(frozen=True)
class Sources:
    """Where the settings of a run come from; remembered, so that later commands need not repeat them."""

    preset: str | None
    files: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()


class Run:
    """`runs/<name>/`: `run.json`, `config.yaml`, `events.jsonl`, `rollouts/`, `logs/`, a folder per stage."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.events = Events(self.path / "events.jsonl")

    @property
    def exists(self) -> bool:
        return (self.path / "run.json").is_file()

    def create(
        self, config: Config, sources: Sources | None = None, argv: Sequence[str] | None = None
    ) -> None:
        """Writes or refreshes `run.json` and `config.yaml`; the time of creation stays."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        row = {
            "created": self.info().get("created", now),
            "updated": now,
            "argv": list(sys.argv if argv is None else argv),
            "sources": None if sources is None else asdict(sources),
            "seed": config.seed,
            "host": socket.gethostname(),
            "git": git_commit(),
            "versions": versions(),
        }
        write_json(self.path / "run.json", row)
        write_text(self.path / "config.yaml", to_yaml(config))

    def info(self) -> dict[str, Any]:
        """`run.json`; empty if it is absent or can not be read."""
        try:
            row = json.loads((self.path / "run.json").read_text())
        except (OSError, ValueError):
            return {}
        return row if isinstance(row, dict) else {}

    def sources(self) -> Sources | None:
        """Where its settings came from the last time."""
        row = self.info().get("sources")
        return Sources(row["preset"], tuple(row["files"]), tuple(row["overrides"])) if row else None

    def lock(self) -> AbstractContextManager[None]:
        """Holds the run for this process; raises `ResourceError` if another live driver has it."""
        return driver_lock(self.path / "lock")

    def driver(self) -> Driver | None:
        """The live process that runs it."""
        return read_driver(self.path / "lock")

    def folder(self, stage: str) -> Path:
        return self.path / stage

    def log(self, stage: str) -> Path:
        return self.path / "logs" / f"{stage}.log"

    def stage_manifest(self, stage: str) -> Manifest | None:
        return Manifest.read(self.folder(stage))

    def replace(self, stage: str) -> Path | None:
        """Moves what a stage left under other settings to `replaced/<stage>`; it stays until the next time.

        Returns where it went, or None if there was nothing.
        """
        folder = self.folder(stage)
        if not folder.exists():
            return None
        aside = self.path / "replaced" / stage
        shutil.rmtree(aside, ignore_errors=True)
        aside.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(aside)
        rollouts = self.path / "rollouts" / stage
        if rollouts.exists():
            rollouts.rename(aside / "rollouts")
        self.events.reset(stage)
        return aside


def find_runs(root: Path) -> list[Run]:
    """The runs below a folder, by name."""
    return [Run(path.parent) for path in sorted(root.glob("*/run.json"))]
