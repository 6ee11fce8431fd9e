"""Stages that take no time, for tests of what is around the stages; and one real run of the preset `smoke`."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

RUN_DEADLINE_S = 900.0
"""For a whole run; an idle machine of two cores needs about two minutes."""

END_DEADLINE_S = 120.0
"""For the last process of a run to go; the agents of a Ray whose head was killed notice late."""

PAUSE_S = 0.1


@pytest.fixture
def fakes(monkeypatch):
    """Puts the stages of `fake_stages.py` in the place of the real ones, for one test."""
    spec = importlib.util.spec_from_file_location("fake_stages", Path(__file__).with_name("fake_stages.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.install(monkeypatch.setitem)


def wait_until(condition: Callable[[], object], what: str, seconds: float) -> None:
    """Polls until the condition holds. Raises `TimeoutError` with `what` was waited for."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(PAUSE_S)


class PipelineProcess:
    """A `pipeline` command in a process of its own, and all processes that it started, directly or not.

    `started` remembers each process by pid and start time, so that it is known also after its parent is gone.
    """

    def __init__(self, *words: str, log: Path) -> None:
        self.log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pipeline.cli", *words], stdout=file, stderr=subprocess.STDOUT, cwd=log.parent
            )
        self.started: set[tuple[int, int]] = set()

    @property
    def output(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def look(self) -> bool:
        """Remembers the processes of now; whether the command still runs."""
        children: dict[int, list[tuple[int, int]]] = {}
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
            fields = stat_fields(pid)
            if fields is not None:
                children.setdefault(int(fields[1]), []).append((pid, int(fields[19])))
        found = [self.process.pid]
        for parent in found:
            self.started.update(children.get(parent, ()))
            found.extend(pid for pid, _ in children.get(parent, ()))
        return self.process.poll() is None

    def actors(self, name: str) -> list[int]:
        """Pids of the live actors of a class, by the title that Ray gives a worker's process."""
        self.look()
        return sorted(pid for pid, _ in self.alive() if title(pid).startswith(f"ray::{name}"))

    def alive(self) -> set[tuple[int, int]]:
        """Those that it started and that still run."""
        return {(pid, start) for pid, start in self.started if is_alive(pid, start)}

    def wait_for(self, condition: Callable[[], object], what: str, seconds: float = RUN_DEADLINE_S) -> None:
        """Waits while the command runs; fails at once if it ends."""

        def holds() -> bool:
            assert self.look(), f"the command ended while the test waited for {what}:\n{self.output}"
            return bool(condition())

        wait_until(holds, f"{what}:\n{self.output}", seconds)

    def finish(self, seconds: float = RUN_DEADLINE_S) -> int:
        """Waits for the end; the exit code."""
        wait_until(lambda: not self.look(), f"the end of the command:\n{self.output}", seconds)
        return self.process.wait()

    def kill(self) -> None:
        """SIGKILL for the command's own process, and for nothing else."""
        self.look()
        self.process.kill()
        self.process.wait()

    def assert_nothing_left(self) -> None:
        """Waits until nothing that it started runs."""
        try:
            wait_until(lambda: not self.alive(), "the processes of the run to end", END_DEADLINE_S)
        except TimeoutError:
            raise AssertionError(f"still there: {sorted(title(pid) for pid, _ in self.alive())}") from None


def stat_fields(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat after the name (state, parent, …); None without such a process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def is_alive(pid: int, start: int) -> bool:
    fields = stat_fields(pid)
    return fields is not None and fields[0] != "Z" and int(fields[19]) == start


def title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


@pytest.fixture
def start_pipeline(tmp_path: Path) -> Iterator[Callable[..., PipelineProcess]]:
    """Starts `pipeline` commands; whatever a failed test leaves of them is ended."""
    begun: list[PipelineProcess] = []

    def start(*words: str) -> PipelineProcess:
        begun.append(PipelineProcess(*words, log=tmp_path / f"command_{len(begun)}.log"))
        return begun[-1]

    yield start
    for one in begun:
        if one.process.poll() is None:
            one.process.terminate()
            one.finish(END_DEADLINE_S)


@dataclass(frozen=True)
class SmokeRun:
    """A finished run of the preset `smoke`: its folder, its command line and the command that made it."""

    path: Path
    words: tuple[str, ...]
    command: PipelineProcess
    seconds: float


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> SmokeRun:
    """The whole pipeline, once for all tests of the session."""
    folder = tmp_path_factory.mktemp("smoke")
    words = ("run", "all", "--preset", "smoke", "--run", str(folder / "run"))
    began = time.monotonic()
    command = PipelineProcess(*words, log=folder / "command.log")
    code = command.finish()
    assert code == 0, command.output
    return SmokeRun(folder / "run", words, command, time.monotonic() - began)
