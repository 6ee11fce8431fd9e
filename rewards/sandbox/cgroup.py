"""A control group for one zygote and its jobs, where this process may make one: the sum of their memory and processes.

Beside the limits of each job it is a second wall, and the only one that counts the kernel's own memory (threads,
inodes, pipes). cgroup v2 as well as v1, below the groups that this process is in: no limit of theirs is escaped.
Source: Linux `Documentation/admin-guide/cgroup-v2.rst`, `cgroup-v1/memory.rst` and `pids.rst`.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PREFIX = "polymath-sandbox-"
_NAMES = itertools.count()
_REMOVE_SECONDS = 2.0
# Joins every group by itself, then becomes the command: what is started later can not be outside.
_JOIN = (
    'while [ "$1" != -- ]; do echo 0 > "$1/cgroup.procs" || exit 70; shift; done; shift; exec "$@"'
)


@dataclass(frozen=True)
class Cgroup:
    """The folders of one group: one on cgroup v2, one per controller on v1."""

    folders: tuple[Path, ...]

    def command(self, command: list[str]) -> list[str]:
        """The command line that starts `command` inside the group."""
        return ["/bin/sh", "-c", _JOIN, "sh", *(str(folder) for folder in self.folders), "--", *command]

    def remove(self) -> None:
        """Remove the group; its processes, killed already, may take a moment to go."""
        deadline = time.monotonic() + _REMOVE_SECONDS
        for folder in self.folders:
            while not _removed(folder) and time.monotonic() < deadline:
                time.sleep(0.005)


def make_cgroup(memory_bytes: int, processes: int) -> Cgroup | str:
    """A group with these limits, or a sentence that says why there is none."""
    name = f"{_PREFIX}{os.getpid()}-{next(_NAMES)}"
    why = "no cgroup with the controllers memory and pids is mounted"
    for parents, limits in _candidates(memory_bytes, processes):
        made: list[Path] = []
        try:
            for parent, files in zip(parents, limits, strict=True):
                _sweep(parent)
                folder = parent / name
                folder.mkdir()
                made.append(folder)
                for file, value in files.items():
                    (folder / file).write_text(str(value))
            return Cgroup(tuple(made))
        except OSError as error:
            why = f"{error.filename}: {error.strerror}"
            Cgroup(tuple(made)).remove()
    return why


def _candidates(memory_bytes: int, processes: int) -> Iterator[tuple[tuple[Path, ...], tuple[dict[str, int], ...]]]:
    """Where a group may be made, and what to write into it."""
    mounts, own = _mounts(), _own_groups()
    if "" in own and "v2" in mounts:
        here = mounts["v2"] / own[""].lstrip("/")
        # A group that holds processes can not hand on controllers (but the root): the parent's children are siblings.
        for parent in (here, here.parent):
            try:
                handed_on = (parent / "cgroup.subtree_control").read_text().split()
            except OSError:
                continue
            if {"memory", "pids"} <= set(handed_on):
                yield (parent,), ({"memory.max": memory_bytes, "pids.max": processes},)
    if {"memory", "pids"} <= own.keys() & mounts.keys():
        yield (
            (mounts["memory"] / own["memory"].lstrip("/"), mounts["pids"] / own["pids"].lstrip("/")),
            ({"memory.limit_in_bytes": memory_bytes}, {"pids.max": processes}),
        )


def _mounts() -> dict[str, Path]:
    """Mount points: `v2`, and on v1 one per controller."""
    found: dict[str, Path] = {}
    try:
        lines = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return found
    for line in lines:
        _, point, kind, options, *_ = line.split(" ")
        if kind == "cgroup2":
            found.setdefault("v2", Path(point))
        elif kind == "cgroup":
            found.update({name: Path(point) for name in options.split(",") if name in ("memory", "pids")})
    return found


def _own_groups() -> dict[str, str]:
    """This process's group by controller; the empty name is cgroup v2."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return {}
    found: dict[str, str] = {}
    for line in lines:
        _, names, path = line.split(":", 2)
        found.update(dict.fromkeys(names.split(","), path))
    return found


def _sweep(parent: Path) -> None:
    """Remove groups whose owner was killed before it could."""
    for folder in parent.glob(f"{_PREFIX}*"):
        owner = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if not Path(f"/proc/{owner}").exists():
            _removed(folder)


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
