"""Verdicts already paid for: in memory, and in an SQLite file where a path is given.

Only verdicts are kept, never abstentions or errors: those may come out differently the next time.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path


class JudgeCache:
    """A map from `judge_prompt.cache_key` to (reason, met). Not for use from two threads at once."""

    def __init__(self, path: str | Path | None = None):
        self._memory: dict[str, tuple[str, bool]] = {}
        self._file: sqlite3.Connection | None = None
        if path is not None:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(path, check_same_thread=False, timeout=10)
            with self._file:
                self._file.execute(
                    "CREATE TABLE IF NOT EXISTS verdicts "
                    "(key TEXT PRIMARY KEY, reason TEXT NOT NULL, met INTEGER NOT NULL)"
                )

    def get(self, key: str) -> tuple[str, bool] | None:
        if key not in self._memory and self._file is not None:
            row = self._file.execute("SELECT reason, met FROM verdicts WHERE key = ?", (key,)).fetchone()
            if row is not None:
                self._memory[key] = (row[0], bool(row[1]))
        return self._memory.get(key)

    def put(self, key: str, reason: str, met: bool) -> None:
        self._memory[key] = (reason, met)
        if self._file is not None:
            with self._file:
                self._file.execute(
                    "INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?)", (key, reason, int(met))
                )

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def __len__(self) -> int:
        return len(self._memory)
