"""One driver per run: a lock file that names the driver, taken over when that driver is dead."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.errors import ResourceError


@dataclass(frozen=True)
class Driver:
    """A process that runs a run. `started` (clock ticks after boot) tells it from a later one of its pid."""

    pid: int
    host: str
    started: int | None
    since: float

    @staticmethod
    def this_process() -> Driver:
        return Driver(os.getpid(), socket.gethostname(), _start_time(os.getpid()), time.time())

    @property
    def is_me(self) -> bool:
        """Whether it is the process that asks."""
        return self.pid == os.getpid() and self.host == socket.gethostname()

    @property
    def alive(self) -> bool:
        """Whether it still runs; on another host it can not be seen and counts as alive."""
        if self.host != socket.gethostname():
            return True
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return self.started is None or _start_time(self.pid) == self.started


def read_driver(path: Path) -> Driver | None:
    """The driver that the lock file names, if it is alive."""
    try:
        driver = Driver(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return driver if driver.alive else None


@contextmanager
def driver_lock(path: Path) -> Iterator[None]:
    """Holds the run for this process.

    Raises:
        ResourceError: if another live driver holds it.
    """
    me = Driver.this_process()
    with _exclusive(path):
        other = read_driver(path)
        if other is not None and other != me:
            where = "" if other.host == me.host else f" on host {other.host}"
            raise ResourceError(
                f"The run {path.parent} is held by process {other.pid}{where}. Wait for it, stop it, or "
                f"choose another folder with --run. If you are sure that it is gone, remove {path}."
            )
        path.write_text(json.dumps(asdict(me)))
    try:
        yield
    finally:
        with _exclusive(path):
            if read_driver(path) == me:
                path.write_text("")


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    """Keeps two processes from looking at the lock file at once; held for microseconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _start_time(pid: int) -> int | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])
