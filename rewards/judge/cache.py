"""Verdicts already paid for: in memory, and in an SQLite file where a path is given.

Only verdicts are kept, never abstentions or errors: those may come out differently the next time.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from rewards.judge.reply import JudgeVerdict, parse_verdicts


class JudgeCache:
    """A map from `prompt.cache_key` to the verdict of one criterion. Not for use from two threads at once.

    A file that cannot be read or written (a full disk) costs nothing but the verdicts that it would have saved.
    """

    def __init__(self, path: str | Path | None = None):
        self._memory: dict[str, JudgeVerdict] = {}
        self._file: sqlite3.Connection | None = None
        if path is not None:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(path, check_same_thread=False, timeout=10)
            with self._file:
                self._file.execute("CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL)")

    def get(self, key: str) -> JudgeVerdict | None:
        if key not in self._memory and self._file is not None:
            try:
                row = self._file.execute("SELECT reply FROM replies WHERE key = ?", (key,)).fetchone()
            except sqlite3.Error:
                return None
            known = None if row is None else parse_verdicts(row[0])
            if known is not None:
                self._memory[key] = known[0]
        return self._memory.get(key)

    def put(self, key: str, verdict: JudgeVerdict) -> None:
        self._memory[key] = verdict
        if self._file is not None:
            try:
                with self._file:
                    self._file.execute("INSERT OR REPLACE INTO replies VALUES (?, ?)", (key, verdict.to_text()))
            except sqlite3.Error:
                return

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def __len__(self) -> int:
        return len(self._memory)
