"""The terminal belongs to the progress of a run: what libraries say goes to the log of the stage."""

from __future__ import annotations

import io
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

ENVIRONMENT = {
    # Bars of huggingface_hub, and with them "Loading weights" and "Writing model shards" of transformers.
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    # Without it Ray announces what it will do with CUDA_VISIBLE_DEVICES in a later version.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""Read by libraries when they are imported; a value that the user has set stays."""

LOG_VARIABLE = "POLYMATH_STAGE_LOG"
"""Names the log file of the stage to an actor's process."""

OWN_HANDLERS = ("transformers", "datasets", "huggingface_hub")
"""Libraries whose loggers write to standard error by themselves and pass nothing on to the root logger."""


def set_environment() -> None:
    """Sets `ENVIRONMENT` for this process."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def environment(**more: str) -> dict[str, str]:
    """`ENVIRONMENT` and `more` as an actor gets them: a value that the user has set in the driver's shell stays."""
    return {name: os.environ.get(name, value) for name, value in {**ENVIRONMENT, **more}.items()}


def log_actor() -> None:
    """Sends log and warnings of an actor's process to the file that `LOG_VARIABLE` names; Ray calls it at the start.

    Standard error of an actor stays in Ray's own files. A file that can not be written (another machine without the
    folder) is no reason to stop.
    """
    path = os.environ.get(LOG_VARIABLE)
    if not path:
        return
    with suppress(OSError):
        handler = _handler(Path(path))
        for name in ("", *OWN_HANDLERS):
            logging.getLogger(name).addHandler(handler)
        logging.captureWarnings(True)


@contextmanager
def stage_log(path: Path) -> Iterator[None]:
    """Sends log and warnings of this process, and the traceback of what ends the stage, to a file."""
    handler, root = _handler(path), logging.getLogger()
    root.addHandler(handler)
    logging.captureWarnings(True)
    _errors.target = path
    try:
        yield
    except Exception:
        handler.emit(logging.makeLogRecord({"name": __name__, "levelname": "ERROR", "msg": traceback.format_exc()}))
        raise
    finally:
        logging.captureWarnings(False)
        root.removeHandler(handler)
        handler.close()


@contextmanager
def errors_to_log() -> Iterator[None]:
    """While it lasts, what is printed to `sys.stderr` goes to the log of the last stage that began.

    Libraries keep the stream that they find when they are imported: it is one object for the life of the process, and
    writes to the terminal again afterwards.
    """
    before, sys.stderr = sys.stderr, _errors
    _errors.terminal = before
    try:
        yield
    finally:
        sys.stderr = before
        _errors.target = None


class _Errors(io.TextIOBase):
    """A stream that appends to `target`, or writes to the terminal where there is none."""

    target: Path | None = None
    terminal: TextIO | None = None

    def write(self, text: str) -> int:
        if self.target is None:
            return (self.terminal or sys.__stderr__ or io.StringIO()).write(text)
        with self.target.open("a", encoding="utf-8") as file:
            return file.write(text)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        stream = self.terminal or sys.__stderr__
        return super().fileno() if stream is None else stream.fileno()

    def flush(self) -> None:
        if self.target is None and self.terminal is not None:
            self.terminal.flush()


_errors = _Errors()


def _handler(path: Path) -> logging.FileHandler:
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setLevel(logging.WARNING)  # libraries that open their own logger to everything fill the file otherwise
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    return handler
