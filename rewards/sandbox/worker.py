"""The killable worker: untrusted programs and trusted-function calls, each in a fresh confined child.

One worker owns a zygote for untrusted code and, from the first `trusted_call` on, a second one that has
imported sympy and Math-Verify. Start it before torch or Ray fill the process. It is thread-safe; jobs of
one `run_many` overlap two at a time, calls from several threads queue.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from rewards.sandbox.cgroup import Cgroup
from rewards.sandbox.compiled import COMPILE_LIMITS, CompiledPrograms, compile_job, find_compiler, not_compiled
from rewards.sandbox.inside.zygote import MAX_WALL_FACTOR
from rewards.sandbox.process import ZygoteProcess
from rewards.sandbox.records import Job, JobResult, Limits, SandboxUnavailable
from rewards.sandbox.tiers import TIERS, Tier, TierReport

_START_SECONDS = 15.0
_TRUSTED_START_SECONDS = 90.0
# Beyond a job's wall limit the zygote itself must be stuck: its owner kills it.
_GRACE_SECONDS = 10.0
_REPOSITORY = Path(__file__).resolve().parents[2]
CODE_LIMITS = Limits()
TRUSTED_LIMITS = Limits(cpu_seconds=2, wall_seconds=8.0, memory_bytes=1 << 30)

_Side = Literal["code", "trusted"]


class SandboxWorker:
    """`tier=None` takes the strongest tier that works. Raises `SandboxUnavailable` when the wanted one (or
    none) does.

    `trusted_paths` are folders that trusted functions may import from, besides this repository's and the
    environment's packages; `preload` are the modules that the trusted zygote imports once.
    """

    def __init__(
        self,
        tier: Tier | None = None,
        limits: Limits = CODE_LIMITS,
        trusted_limits: Limits = TRUSTED_LIMITS,
        parallel: int = 2,
        preload: Sequence[str] = ("rewards.math.opinion",),
        trusted_paths: Sequence[str] = (),
    ):
        if parallel < 1:
            raise ValueError(f"parallel must be at least 1, got {parallel}")
        self.limits = limits
        self.trusted_limits = trusted_limits
        self.parallel = parallel
        self.restarts = 0
        self._preload = tuple(preload)
        self._trusted_paths = tuple(trusted_paths)
        self._lock = threading.Lock()
        self._closed = False
        self._zygotes: dict[_Side, ZygoteProcess] = {}
        self._programs = CompiledPrograms()
        self.tier: Tier = self._start_strongest(TIERS if tier is None else (tier,))

    def _start_strongest(self, tiers: Sequence[Tier]) -> Tier:
        reasons = []
        for tier in tiers:
            try:
                self._zygotes["code"] = self._start("code", tier)
            except SandboxUnavailable as error:
                reasons.append(str(error))
            else:
                return tier
        raise SandboxUnavailable("no sandbox for untrusted code works on this machine. " + "; ".join(reasons))

    def _start(self, side: _Side, tier: Tier) -> ZygoteProcess:
        try:
            return self._start_zygote(side, tier)
        except SandboxUnavailable as error:
            if tier != "bubblewrap" or "proc" not in str(error):
                raise
            return self._start_zygote(side, tier, proc=False)

    def _start_zygote(self, side: _Side, tier: Tier, proc: bool = True) -> ZygoteProcess:
        try:
            if side == "code":
                return ZygoteProcess(tier, self.limits, _START_SECONDS, parallel=self.parallel, proc=proc)
            packages = _site_packages()
            return ZygoteProcess(
                tier,
                self.trusted_limits,
                _TRUSTED_START_SECONDS,
                readable=[*packages, str(_REPOSITORY / "rewards"), *self._trusted_paths],
                import_paths=[*packages, str(_REPOSITORY), *self._trusted_paths],
                preload=self._preload,
                parallel=self.parallel,
                proc=proc,
            )
        except OSError as error:
            # No room for its folder, no descriptors left: the machine has no sandbox now.
            raise SandboxUnavailable(f"{tier}: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End both zygotes; later runs raise `RuntimeError`."""
        with self._lock:
            self._closed = True
            for zygote in self._zygotes.values():
                zygote.close()
            self._zygotes.clear()
            self._programs.close()

    def compiler(self) -> str:
        """Path of the C++ compiler. Raises `SandboxUnavailable` with the reason where this worker can not compile."""
        return find_compiler(self.tier)

    def run(self, job: Job) -> JobResult:
        return self.run_many([job])[0]

    def run_many(self, jobs: Sequence[Job]) -> list[JobResult]:
        """The results in the order of `jobs`. A job whose zygote died is tried once more, then
        `sandbox_error`.
        """
        with self._lock:
            if self._closed:
                raise RuntimeError("this SandboxWorker is closed")
            results = self._compile(jobs)
            for side in ("code", "trusted"):
                mine = {
                    index: job
                    for index, job in enumerate(jobs)
                    if index not in results and (job.kind == "trusted") == (side == "trusted")
                }
                results.update(self._run_side(side, mine))
            self._programs.trim()
            return [results[index] for index in range(len(jobs))]

    def _compile(self, jobs: Sequence[Job]) -> dict[int, JobResult]:
        """Compile what is not compiled yet; the results of the jobs whose source gave no program, by their index."""
        sources = {index: job.source or "" for index, job in enumerate(jobs) if job.kind == "cpp"}
        if not sources:
            return {}
        try:
            compiler = self.compiler()
        except SandboxUnavailable as error:
            return {index: JobResult("sandbox_error", error=str(error)) for index in sources}
        new = [source for source in dict.fromkeys(sources.values()) if self._programs.get(source) is None]
        results = self._run_side("code", {number: compile_job(source, compiler) for number, source in enumerate(new)})
        for number, source in enumerate(new):
            if self._programs.get(source) is None:
                self._programs.keep(source, not_compiled(results[number]))
        made = {index: self._programs.get(source) for index, source in sources.items()}
        return {index: result for index, result in made.items() if isinstance(result, JobResult)}

    def _run_side(self, side: _Side, jobs: dict[int, Job]) -> dict[int, JobResult]:
        results: dict[int, JobResult] = {}
        waiting, in_flight = list(jobs), set[int]()
        second_try: set[int] = set()
        while waiting or in_flight:
            try:
                zygote = self._zygote(side)
                while waiting and len(in_flight) < self.parallel:
                    number = waiting.pop(0)
                    in_flight.add(number)
                    self._submit(zygote, number, jobs[number])
                longest = max(self._limits(zygote, jobs[number]).wall_seconds for number in in_flight)
                ended = zygote.receive(MAX_WALL_FACTOR * longest + _GRACE_SECONDS)
                in_flight.remove(ended.number)
                results[ended.number] = ended.result
                if ended.binary is not None:
                    self._programs.keep(jobs[ended.number].source or "", ended.binary)
            except (TimeoutError, EOFError, OSError) as error:
                self._drop(side)
                for number in sorted(in_flight, reverse=True):
                    if number in second_try:
                        results[number] = JobResult("sandbox_error", error=f"the sandbox died twice: {error}")
                    else:
                        second_try.add(number)
                        waiting.insert(0, number)
                in_flight.clear()
            except SandboxUnavailable as error:
                message = f"the sandbox could not be started again: {error}"
                results.update({number: JobResult("sandbox_error", error=message) for number in waiting})
                waiting.clear()
        return results

    def _submit(self, zygote: ZygoteProcess, number: int, job: Job) -> None:
        program = self._programs.get(job.source or "") if job.kind == "cpp" else None
        zygote.submit(number, job, self._limits(zygote, job), program if isinstance(program, int) else None)

    @staticmethod
    def _limits(zygote: ZygoteProcess, job: Job) -> Limits:
        return COMPILE_LIMITS if job.kind == "compile" else zygote.limits

    def _zygote(self, side: _Side) -> ZygoteProcess:
        if side not in self._zygotes:
            self._zygotes[side] = self._start(side, self.tier)
        return self._zygotes[side]

    def _drop(self, side: _Side) -> None:
        self.restarts += 1
        self._zygotes.pop(side).kill()

    @property
    def zygote_pids(self) -> dict[str, int]:
        """Process ids of the helper processes that live now (for tests and for `pipeline doctor`)."""
        return {side: zygote.pid for side, zygote in self._zygotes.items()}


@functools.cache
def _site_packages() -> tuple[str, ...]:
    """Folders of installed packages: the interpreter's, and wherever else the graders' libraries are (a folder on
    PYTHONPATH, for example)."""
    import site
    import sysconfig
    from importlib.util import find_spec

    paths = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()]
    for library in ("sympy", "mpmath", "math_verify", "latex2sympy2_extended", "antlr4"):
        found = find_spec(library)
        if found is not None and found.origin is not None:
            paths.append(str(Path(found.origin).parents[1]))
    return tuple(path for path in dict.fromkeys(paths) if Path(path).is_dir())


_PROBE = """
import socket
stopped = 0
try:
    open("/etc/passwd")
except OSError:
    stopped += 1
try:
    socket.socket()
except OSError:
    stopped += 1
print("stopped", stopped)
"""


def detect_tier() -> TierReport:
    """Which tier works here, found by running a program in each and looking whether it was confined (< 1
    s).
    """
    details: dict[str, str] = {}
    reached: Tier | None = None
    limits: tuple[str, ...] = ()
    for tier in TIERS:
        details[tier], found = _try_tier(tier)
        if reached is None and details[tier].startswith("works"):
            reached, limits = tier, found
    higher = TIERS[: TIERS.index(reached)] if reached else TIERS
    return TierReport(reached, details, "; ".join(details[tier] for tier in higher), limits)


def _try_tier(tier: Tier) -> tuple[str, tuple[str, ...]]:
    started = time.monotonic()
    try:
        with SandboxWorker(tier) as worker:
            result = worker.run(Job.program(_PROBE))
            zygote = worker._zygotes["code"]
    except SandboxUnavailable as error:
        return str(error), ()
    if result.status != "ok" or result.stdout.strip() != "stopped 2":
        return f"{tier}: a program ran but was not confined ({result.status}: {result.stdout}{result.error})", ()
    cgroup = "cgroup" if isinstance(zygote.cgroup, Cgroup) else "no cgroup"
    milliseconds = 1000 * (time.monotonic() - started)
    works = f"works: Landlock ABI {zygote.landlock_abi}, seccomp, {cgroup}; {milliseconds:.0f} ms from start to end"
    return works, zygote.weaknesses()
