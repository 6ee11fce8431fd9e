"""The two ways to start a zygote, strongest first, and the measurement of which one this machine can do.

- `bubblewrap`: own user, mount, process, network, IPC and host-name namespaces; an almost empty read-only
  file system
  with one bounded `/tmp`. Inside it, everything of the next tier as well.
- `landlock`: Landlock, seccomp, rlimits, no capabilities, on the host's own namespaces. It needs no
  privilege.

A machine that can do neither gets no sandbox at all: `SandboxUnavailable`.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Tier = Literal["bubblewrap", "landlock"]
TIERS: tuple[Tier, ...] = ("bubblewrap", "landlock")

HERE = Path(__file__).resolve().parent
# Of all boxes together; a job that goes beyond its own share of it (Limits.box_bytes) is ended.
BOXES_BYTES = 64 << 20
# PYTHONHASHSEED fixes set order, so that the same program gets the same verdict twice. (`-I` would ignore
# it.)
ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "PYTHONUTF8": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "TZ": "UTC",
    "LC_ALL": "C.UTF-8",
}
_SYSTEM = ("/usr", "/lib", "/lib64", "/lib32", "/bin")
_BOOT = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); from inside import zygote; sys.path.pop(0); "
    "zygote.main(sys.argv[1:])"
)


@dataclass(frozen=True)
class TierReport:
    """`tier` is the strongest tier that ran a confined program here, or None. `details` maps each tier
    tried to what happened; `why_not_higher` is a sentence for each tier above the one reached; `limits` are what the
    tier does not stop, or stops by one wall only, here.
    """

    tier: Tier | None
    details: dict[str, str]
    why_not_higher: str
    limits: tuple[str, ...] = ()


def interpreter() -> str:
    """The base interpreter itself: a virtual environment's link would need the environment's folder to be
    visible.
    """
    return os.path.realpath(sys.executable)


def readable_paths(extra: Sequence[str] = ()) -> list[str]:
    """What a job may read: system libraries, this Python, and `extra`. No `/etc`, `/proc`, `/home` or
    working copy.
    """
    paths = [*_SYSTEM, sys.base_prefix, *extra]
    return [path for path in dict.fromkeys(paths) if os.path.exists(path)]


def limits_of(tier: Tier, landlock_abi: int, no_cgroup: str, counts_threads: bool) -> tuple[str, ...]:
    """What a tier does not stop, one sentence each. `no_cgroup` says why there is no control group, empty if there is
    one.
    """
    found = []
    if no_cgroup:
        found.append(
            f"no cgroup ({no_cgroup}): memory is bounded per process times the one process that seccomp allows, and "
            "memory that the kernel holds for a job (threads, inodes, pipes) by watching"
        )
    if not counts_threads:
        found.append("no /proc inside bubblewrap: a job's threads are not counted, only its processes")
    if tier == "landlock":
        found.append("no namespaces: a job can ask whether a path exists and how large the file is, and read no file")
        found.append(
            "no file system of its own: a job's files are bounded by watching (16 MiB, what it writes in 20 ms, and 64 "
            "open files of 1 MB that it has removed)"
        )
        if landlock_abi < 6:
            found.append(f"Landlock ABI {landlock_abi}: signals and abstract sockets are refused by seccomp alone")
        if landlock_abi < 4:
            found.append(f"Landlock ABI {landlock_abi}: TCP is refused by seccomp alone")
    return tuple(found)


def command(tier: Tier, options: str, readable: Sequence[str], proc: bool = True) -> list[str]:
    """The command line that starts a zygote; `options` is its JSON argument. Containers that hide parts of their /proc
    forbid a new one: `proc=False` goes without.
    """
    python = [interpreter(), "-s", "-S", "-P", "-c", _BOOT, str(HERE), options]
    if tier == "landlock":
        return python
    program = shutil.which("bwrap")
    if program is None:
        raise FileNotFoundError("bwrap is not installed (Debian, Ubuntu: apt install bubblewrap)")
    # No --new-session: the process has a session of its own already (no terminal to inject into), and one
    # killpg on its process group ends the whole tree.
    isolation = [
        "--unshare-user",
        "--unshare-all",
        "--disable-userns",
        "--cap-drop",
        "ALL",
        "--clearenv",
    ]
    for name, value in ENVIRONMENT.items():
        isolation += ["--setenv", name, value]
    # bubblewrap's own / and /dev are unbounded and writable unless sized and remounted. The box's /tmp comes before
    # what is bound: the working copy or the interpreter may themselves lie below /tmp.
    files = ["--size", "1048576", "--tmpfs", "/", "--size", str(BOXES_BYTES), "--tmpfs", "/tmp"]
    for path in (*readable, str(HERE)):
        files += ["--ro-bind", path, path]
    # The zygote counts a job's threads in /proc; the job itself is kept from it by Landlock.
    files += [*(["--proc", "/proc"] if proc else []), "--dev", "/dev", "--remount-ro", "/dev", "--remount-ro", "/"]
    return [program, *isolation, *files, "--chdir", "/", "--", *python]
