"""C++ sources that were compiled already, and the compiler that does it."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import OrderedDict

from rewards.sandbox.records import Job, JobResult, Limits, SandboxUnavailable
from rewards.sandbox.tiers import Tier

COMPILE_LIMITS = Limits(
    cpu_seconds=20, wall_seconds=40.0, memory_bytes=2 << 30, output_bytes=16 << 20, box_bytes=48 << 20
)
_KEPT = 16


def find_compiler(tier: Tier) -> str:
    """Path of g++. Raises `SandboxUnavailable` where there is none, or where the tier is too weak to run it on sources
    that the policy wrote: it may start programs, and needs namespaces of its own around it.
    """
    if tier != "bubblewrap":
        raise SandboxUnavailable(f"C++ needs the sandbox tier bubblewrap, and this is {tier}")
    found = shutil.which("g++", path="/usr/bin:/bin")
    if found is None:
        raise SandboxUnavailable("C++ needs g++ in /usr/bin, which is not installed (Debian, Ubuntu: apt install g++)")
    return os.path.realpath(found)


def compile_job(source: str, compiler: str) -> Job:
    """The step before a program can run."""
    return Job("compile", source=source, target=compiler)


def not_compiled(result: JobResult) -> JobResult:
    """What the runs of a source end as whose compile job ended like this. Not compiled in time is not compiled."""
    if result.status == "sandbox_error":
        return result
    why = "the compiler refused it" if result.status == "runtime_error" else f"compiling it: {result.error}"
    return JobResult("compile_error", stderr=result.stderr, error=why, cpu_seconds=result.cpu_seconds)


class CompiledPrograms:
    """The last few sources, each with the descriptor of its program or with how its runs end."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, int | JobResult] = OrderedDict()

    def get(self, source: str) -> int | JobResult | None:
        key = _key(source)
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def keep(self, source: str, made: int | JobResult) -> None:
        """Remember; a failure of the sandbox is remembered only until `trim`, so that it is tried again."""
        self._kept[_key(source)] = made

    def trim(self) -> None:
        """Forget failures of the sandbox and all but the last few."""
        for key, made in list(self._kept.items()):
            failed = isinstance(made, JobResult) and made.status == "sandbox_error"
            if failed or len(self._kept) > _KEPT:
                self._forget(key)

    def close(self) -> None:
        for key in list(self._kept):
            self._forget(key)

    def _forget(self, key: bytes) -> None:
        made = self._kept.pop(key)
        if isinstance(made, int):
            os.close(made)


def _key(source: str) -> bytes:
    return hashlib.sha256(source.encode("utf-8", "surrogatepass")).digest()
