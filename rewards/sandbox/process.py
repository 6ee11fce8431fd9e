"""One zygote process seen from its owner: start it, hand it jobs, hear how they ended, kill it.

Not thread-safe; `SandboxWorker` owns it under a lock.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rewards.sandbox.cgroup import Cgroup, make_cgroup
from rewards.sandbox.records import CallResult, Job, JobResult, Limits, SandboxUnavailable, Status, parse_results
from rewards.sandbox.tiers import ENVIRONMENT, Tier, command, limits_of, readable_paths

_EXIT_MEMORY = 71
_REPLY_BYTES = 8192
_STDERR_CHARS = 2000


# What the zygote itself needs beside its jobs: its modules, bubblewrap, the boxes' pages.
_OVERHEAD_BYTES = 512 << 20


@dataclass(frozen=True)
class _Pending:
    descriptors: tuple[int, int, int]
    job: Job
    limits: Limits


@dataclass(frozen=True)
class Ended:
    """A job that ended; `binary` is a descriptor (now the caller's) of what a compile job made."""

    number: int
    result: JobResult
    binary: int | None = None


class ZygoteProcess:
    """Raises `SandboxUnavailable` when the process does not come up confined within `start_seconds`.

    `cgroup` says whether its memory and processes are bounded as a whole: `Cgroup`, or why there is none.
    """

    def __init__(
        self,
        tier: Tier,
        limits: Limits,
        start_seconds: float,
        readable: Sequence[str] = (),
        import_paths: Sequence[str] = (),
        preload: Sequence[str] = (),
        parallel: int = 2,
        proc: bool = True,
    ):
        self.tier = tier
        self.limits = limits
        self.pid = 0
        self._pending: dict[int, _Pending] = {}
        self._boxes = None if tier == "bubblewrap" else tempfile.mkdtemp(prefix="polymath-box-")
        self._control, remote = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        errors = os.memfd_create("zygote-stderr")
        paths = readable_paths(readable)
        options = json.dumps(
            {
                "control": remote.fileno(),
                "boxes": self._boxes or "/tmp",
                "readable": paths,
                "import_paths": list(import_paths),
                "preload": list(preload),
            }
        )
        self._processes = parallel * 2 * limits.threads
        self.cgroup = make_cgroup(parallel * limits.memory_bytes + _OVERHEAD_BYTES, self._processes)
        try:
            start = command(tier, options, paths, proc)
            # No preexec_fn: it would fork this (large, threaded) process instead of vforking it.
            self._process = subprocess.Popen(
                self.cgroup.command(start) if isinstance(self.cgroup, Cgroup) else start,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env=ENVIRONMENT,
                pass_fds=(remote.fileno(),),
                start_new_session=True,
            )
        except OSError as error:
            self._control.close()
            self._remove_places()
            os.close(errors)
            raise SandboxUnavailable(f"{tier}: {error}") from error
        finally:
            remote.close()
        try:
            self._greet(start_seconds, errors)
        except SandboxUnavailable:
            self.kill()
            raise
        finally:
            os.close(errors)

    def _greet(self, seconds: float, errors: int) -> None:
        self._control.settimeout(seconds)
        try:
            data = self._control.recv(_REPLY_BYTES)
        except TimeoutError:
            raise SandboxUnavailable(
                f"{self.tier}: the helper process said nothing for {seconds} s"
            ) from None
        if not data:
            said = os.pread(errors, _STDERR_CHARS, 0).decode("utf-8", "replace").strip()
            raise SandboxUnavailable(f"{self.tier}: the helper process ended at once: {said or 'no message'}")
        hello = json.loads(data)
        if "error" in hello:
            raise SandboxUnavailable(f"{self.tier}: {hello['error']}")
        self.landlock_abi: int = hello["landlock_abi"]
        self.counts_threads: bool = hello["counts_threads"]
        self.pid = self._process.pid

    def weaknesses(self) -> tuple[str, ...]:
        """What this zygote's tier does not stop here."""
        no_cgroup = "" if isinstance(self.cgroup, Cgroup) else self.cgroup
        return limits_of(self.tier, self.landlock_abi, no_cgroup, self.counts_threads)

    def submit(self, number: int, job: Job, limits: Limits | None = None, binary: int | None = None) -> None:
        """Send one job, with `limits` other than the zygote's where it needs them, and the descriptor of its compiled
        program where it is one. Raises `OSError` when the zygote is gone.
        """
        limits = limits or self.limits
        payload = os.memfd_create("payload")
        outputs = tuple(os.memfd_create(name) for name in ("stdout", "stderr", "result"))
        try:
            _write_all(payload, job.payload())
            own: dict[str, Any] = asdict(limits)
            wall = own.pop("wall_seconds")
            if self.tier == "bubblewrap":
                own["processes"] = self._processes
            box = bool(job.files) or job.kind == "compile"
            header = {"job": number, "box": box, "wall_seconds": wall, "limits": own}
            programs = [] if binary is None else [binary]
            socket.send_fds(self._control, [json.dumps(header).encode()], [payload, *outputs, *programs])
        except BaseException:
            for descriptor in outputs:
                os.close(descriptor)
            raise
        finally:
            os.close(payload)
        self._pending[number] = _Pending((outputs[0], outputs[1], outputs[2]), job, limits)

    def receive(self, seconds: float) -> Ended:
        """The next job to end. Raises `TimeoutError` after `seconds` and `EOFError` when the zygote is
        gone.
        """
        self._control.settimeout(seconds)
        try:
            data = self._control.recv(_REPLY_BYTES)
        except ConnectionError as error:
            raise EOFError("the sandbox's helper process ended") from error
        if not data:
            raise EOFError("the sandbox's helper process ended")
        reply = json.loads(data)
        pending = self._pending.pop(reply["job"])
        try:
            result = self._result(reply, pending)
            made = result.status == "ok" and pending.job.kind == "compile"
            return Ended(reply["job"], result, _read_only(pending.descriptors[2]) if made else None)
        finally:
            for descriptor in pending.descriptors:
                os.close(descriptor)

    def _result(self, reply: dict[str, Any], pending: _Pending) -> JobResult:
        if "signal" not in reply:
            return JobResult("sandbox_error", error=f"the job was not started: {reply['setup_error']}")
        cap = pending.limits.output_bytes
        sizes = [os.fstat(descriptor).st_size for descriptor in pending.descriptors]
        status, error = self._status(reply, pending.limits, max(sizes) >= cap)
        out, err = (_read_capped(descriptor, cap) for descriptor in pending.descriptors[:2])
        results: tuple[CallResult, ...] = ()
        if status == "ok" and pending.job.kind in ("calls", "trusted"):
            parsed = parse_results(_read_capped(pending.descriptors[2], cap))
            if parsed is None:
                status, error = "runtime_error", "the job ended without a result"
            else:
                results = parsed
        said = err.decode("utf-8", "replace")
        return JobResult(
            status=status,
            stdout=out.decode("utf-8", "replace"),
            # Of a traceback the end matters, of a compiler's complaints the beginning.
            stderr=said[:_STDERR_CHARS] if pending.job.kind == "compile" else said[-_STDERR_CHARS:],
            results=results,
            exit_code=reply["exit_code"],
            signal=reply["signal"],
            cpu_seconds=reply["cpu_seconds"],
            wall_seconds=reply["wall_seconds"],
            max_rss_bytes=reply["max_rss_bytes"],
            error=error,
        )

    def _status(self, reply: dict[str, Any], limits: Limits, full: bool) -> tuple[Status, str]:
        killed_by = reply["signal"]
        if reply["excess"]:
            kind, what = reply["excess"]
            return ("output_limit" if kind == "box" else "runtime_error"), what
        if reply["timed_out"]:
            return "wall_limit", f"killed after {limits.wall_seconds} s"
        if reply["setup_error"]:
            return "sandbox_error", f"the job was not started: {reply['setup_error']}"
        # Past the soft limit the kernel sends SIGXCPU, past the hard one SIGKILL; its clock is coarser
        # than rusage.
        if killed_by == signal.SIGXCPU or (
            killed_by == signal.SIGKILL and reply["cpu_seconds"] >= limits.cpu_seconds * 0.9
        ):
            return "cpu_limit", f"used its {limits.cpu_seconds} CPU seconds"
        if killed_by == signal.SIGKILL:
            # Nobody inside can send it and our own kills are counted above: the kernel's out-of-memory
            # killer did.
            return "sandbox_error", "killed from outside the sandbox (out of memory on the machine?)"
        if full:
            return "output_limit", f"wrote {limits.output_bytes} bytes or more"
        if reply["exit_code"] == _EXIT_MEMORY:
            return "memory", f"needed more than {limits.memory_bytes} bytes"
        if killed_by:
            return "runtime_error", f"ended by signal {killed_by}"
        if reply["exit_code"]:
            return "runtime_error", f"exit code {reply['exit_code']}"
        return "ok", ""

    def kill(self) -> None:
        """End the zygote and all its children at once; safe to call twice."""
        self._control.close()
        if self._process.poll() is None:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                self._process.kill()
        self._process.wait()
        self._forget()

    def close(self) -> None:
        """Let the zygote end by itself (it kills its children and removes their boxes), then make sure."""
        self._control.close()
        try:
            self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self.kill()
        self._forget()

    def _forget(self) -> None:
        for pending in self._pending.values():
            for descriptor in pending.descriptors:
                os.close(descriptor)
        self._pending.clear()
        self._remove_places()

    def _remove_places(self) -> None:
        if self._boxes is not None:
            shutil.rmtree(self._boxes, ignore_errors=True)
        if isinstance(self.cgroup, Cgroup):
            self.cgroup.remove()


def _read_capped(descriptor: int, cap: int) -> bytes:
    return os.pread(descriptor, min(cap, os.fstat(descriptor).st_size), 0)


def _read_only(descriptor: int) -> int:
    """The same file once more, for reading: the kernel starts no program that somebody may write to."""
    return os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
