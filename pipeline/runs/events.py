"""The metrics of a run: `events.jsonl`, append-only, one JSON object per line."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.runs.sinks import Sinks

Event = dict[str, Any]


class Events:
    """One writer per file; any number of readers.

    A line is `{"time", "stage", "domain", "step", metrics…}`. A step that was repeated after a restart is
    logged again and the last line counts. A line `{"stage", "reset": true}` says that the stage began anew:
    earlier lines of it do not count any more. A line with `alarm` is no metric: it says in words what went wrong.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sinks = Sinks()
        """Get a copy of every step that is logged; `close` ends them."""
        self.on_alarm: Callable[[str], None] = lambda text: None
        """Shows an alarm to whoever watches the run."""
        self._lock = threading.Lock()

    def log(self, stage: str, step: int, domain: str | None = None, **metrics: Any) -> None:
        """Appends the metrics of one step (of one domain)."""
        self._append({"time": time.time(), "stage": stage, "domain": domain, "step": step, **metrics})
        with self._lock:
            self.sinks.log(stage, domain, step, metrics)

    def alarm(self, stage: str, step: int, text: str, domain: str | None = None, show: bool = True) -> None:
        """Appends what went wrong in a step, and (unless `show` is false: it is known already) shows it."""
        self._append({"time": time.time(), "stage": stage, "domain": domain, "step": step, "alarm": text})
        if show:
            self.on_alarm(f"alarm: {text}")

    def reset(self, stage: str) -> None:
        """Says that a stage begins anew."""
        self._append({"time": time.time(), "stage": stage, "reset": True})

    def close(self) -> None:
        """Lets the sinks write what they still hold."""
        self.sinks.close()

    def read(self, stage: str | None = None, domain: str | None = None) -> list[Event]:
        """The events that count, in the order of their first line; a torn line is skipped."""
        return read_events(self.path, stage, domain)

    def _append(self, row: Mapping[str, Any]) -> None:
        line = json.dumps(row, ensure_ascii=False, default=_plain).encode() + b"\n"
        with self._lock:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab+") as file:
                if file.tell() and not _ends_with_newline(file):
                    line = b"\n" + line
                file.write(line)
                file.flush()
                os.fsync(file.fileno())


def read_events(path: Path, stage: str | None = None, domain: str | None = None) -> list[Event]:
    """Reads an events file; see `Events.read`. An absent file has no events."""
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    kept: dict[tuple[str, str | None, int], Event] = {}
    for line in lines:
        try:
            row = json.loads(line)
            name = row["stage"]
            if row.get("reset"):
                kept = {key: event for key, event in kept.items() if key[0] != name}
            elif "alarm" not in row:
                kept[name, row.get("domain"), row["step"]] = row
        except (ValueError, KeyError, TypeError):
            continue
    return [
        event
        for (name, of_domain, _), event in kept.items()
        if stage in (None, name) and domain in (None, of_domain)
    ]


def read_alarms(path: Path, stage: str | None = None) -> list[Event]:
    """The alarms of an events file (of one stage), in the order in which they were raised, those before a `reset` of
    their stage left out. An absent file has none."""
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    alarms: list[Event] = []
    for line in lines:
        try:
            row = json.loads(line)
            name = row["stage"]
        except (ValueError, KeyError, TypeError):
            continue
        if row.get("reset"):
            alarms = [alarm for alarm in alarms if alarm["stage"] != name]
        elif "alarm" in row:
            alarms.append(row)
    return [alarm for alarm in alarms if stage in (None, alarm["stage"])]


def last_steps(events: list[Event]) -> dict[tuple[str, str | None], int]:
    """The last step of each (stage, domain)."""
    steps: dict[tuple[str, str | None], int] = {}
    for event in events:
        key = event["stage"], event.get("domain")
        steps[key] = max(event["step"], steps.get(key, event["step"]))
    return steps


def _ends_with_newline(file: Any) -> bool:
    file.seek(-1, os.SEEK_END)
    return bool(file.read(1) == b"\n")


def _plain(value: Any) -> Any:
    """Numbers of numpy and torch as Python numbers."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a metric must be JSON-serialisable, got {type(value).__name__}")
