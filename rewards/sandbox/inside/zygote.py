"""The zygote: a small single-threaded process that forks one child per job and supervises it.

It speaks over one SOCK_SEQPACKET socket. A request is a JSON header with the limits and four or five file descriptors
(payload, stdout, stderr, result, and a compiled program where there is one); a reply says how the child ended. The
contents of a job never pass through here. When the socket closes, the zygote kills its children and exits: that is what
ties its life to its owner's. (bubblewrap's --die-with-parent would tie it to the *thread* that started it.)
"""

from __future__ import annotations

import array
import gc
import importlib
import json
import os
import select
import shutil
import signal
import socket
import sys
import time
from dataclasses import dataclass
from typing import Any

from .confine import Confinement
from .jobs import run_child
from .watch import WATCH_SECONDS, excess, thread_count

# What programs import most: loading it once here saves each child the time.
COMMON_MODULES = (
    "bisect", "collections", "copy", "dataclasses", "datetime", "decimal", "fractions", "functools", "heapq",
    "io", "itertools", "json", "math", "operator", "random", "re", "statistics", "string", "typing",
)  # fmt: skip
_HEADER_BYTES = 4096
_DESCRIPTORS = 5
_BUSY_SHARE = 0.1
# A busy job may use this many times its wall limit.
MAX_WALL_FACTOR = 3
# How long a fork may be refused because other jobs hold all the processes that the sandbox has.
_FORK_SECONDS = 3.0
_REMOVALS = 20


@dataclass
class Child:
    job: int
    pid: int
    ready: int
    box: str | None
    started: float
    deadline: float
    wall_seconds: float
    limits: dict[str, int]
    timed_out: bool = False
    excess: tuple[str, str] | None = None

    @property
    def killed(self) -> bool:
        return self.timed_out or self.excess is not None


class Zygote:
    def __init__(self, control: socket.socket, confinement: Confinement, boxes: str):
        self.control = control
        self.confinement = confinement
        self.boxes = boxes
        self.children: dict[int, Child] = {}
        self.next_watch = 0.0
        self.boxes_made = 0
        self.poll = select.poll()
        self.poll.register(control.fileno(), select.POLLIN)

    def serve(self) -> None:
        while True:
            for descriptor, _ in self.poll.poll(self._timeout_ms()):
                if descriptor in self.children:
                    self._reap(descriptor)
                elif not self._accept():
                    return
            self._kill_offenders()

    def _timeout_ms(self) -> int | None:
        waiting = [child.deadline for child in self.children.values() if not child.killed]
        if not waiting:
            return None
        return max(0, int((min(self.next_watch, *waiting) - time.monotonic()) * 1000) + 1)

    def _accept(self) -> bool:
        data, ancillary, _, _ = self.control.recvmsg(_HEADER_BYTES, socket.CMSG_SPACE(_DESCRIPTORS * 4))
        if not data:
            return False
        descriptors = array.array("i")
        for level, kind, raw in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors.frombytes(raw)
        try:
            self._spawn(json.loads(data), tuple(descriptors))
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return True

    def _spawn(self, header: dict[str, Any], descriptors: tuple[int, ...]) -> None:
        box = None
        if header["box"]:
            # Never the same name twice, so that no remainder can be met.
            self.boxes_made += 1
            box = os.path.join(self.boxes, str(self.boxes_made))
            os.mkdir(box, 0o700)
        ready, child_ready = os.pipe()
        started = time.monotonic()
        parent = os.getpid()
        try:
            pid = self._fork(started + _FORK_SECONDS)
        except OSError as error:
            os.close(ready)
            os.close(child_ready)
            if box is not None:
                os.rmdir(box)
            self._reply(header["job"], setup_error=f"fork: {error}")
            return
        if pid == 0:
            run_child(self.confinement, header["limits"], box, parent, descriptors, ready=child_ready)
        os.close(child_ready)
        handle = os.pidfd_open(pid)
        wall = header["wall_seconds"]
        child = Child(header["job"], pid, ready, box, started, started + wall, wall, header["limits"])
        if not self.children:
            self.next_watch = started + WATCH_SECONDS
        self.children[handle] = child
        self.poll.register(handle, select.POLLIN)

    def _fork(self, deadline: float) -> int:
        """Fork; while another job's threads leave no room for it, watch that one until it is killed."""
        while True:
            try:
                return os.fork()
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(WATCH_SECONDS)
            self._kill_offenders()

    def _kill_offenders(self) -> None:
        now = time.monotonic()
        watching = now >= self.next_watch
        for child in self.children.values():
            if child.killed:
                continue
            if now >= child.deadline:
                if _is_starved(child, now):
                    child.deadline += child.wall_seconds
                else:
                    child.timed_out = True
                    _kill(child)
            elif watching:
                child.excess = excess(child.pid, child.box, child.limits)
                if child.excess is not None:
                    _kill(child)
        if watching:
            self.next_watch = time.monotonic() + WATCH_SECONDS

    def _reap(self, handle: int) -> None:
        child = self.children.pop(handle)
        self.poll.unregister(handle)
        os.close(handle)
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.monotonic() - child.started
        said = os.read(child.ready, 512).decode("utf-8", "replace")
        os.close(child.ready)
        if child.box is not None:
            remove_tree(child.box)
        self._reply(
            child.job,
            setup_error=None if said == "ready" else (said or "the child died before it was confined"),
            timed_out=child.timed_out,
            excess=child.excess,
            signal=os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
            exit_code=os.WEXITSTATUS(status) if os.WIFEXITED(status) else -1,
            cpu_seconds=usage.ru_utime + usage.ru_stime,
            wall_seconds=wall,
            max_rss_bytes=usage.ru_maxrss * 1024,
        )

    def _reply(self, job: int, **facts: Any) -> None:
        self.control.sendall(json.dumps({"job": job, **facts}).encode())

    def stop(self) -> None:
        """End what still runs."""
        for child in self.children.values():
            _kill(child)
            os.wait4(child.pid, 0)


def _is_starved(child: Child, now: float) -> bool:
    """Whether the child computes on a machine that is too busy for it: its CPU limit shall end it, not the
    clock.

    The wall limit is for sleepers; a busy machine must not turn a right answer into a wrong one.
    """
    elapsed = now - child.started
    # The kernel's number for "CPU clock of that process" (glibc's clock_getcpuclockid).
    used = time.clock_gettime((~child.pid << 3) | 2)
    return used > _BUSY_SHARE * elapsed and elapsed < MAX_WALL_FACTOR * child.wall_seconds


def _kill(child: Child) -> None:
    # The child may not have made its own group yet, so the process is killed by number first.
    os.kill(child.pid, signal.SIGKILL)
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def remove_tree(top: str) -> None:
    """Delete a tree that somebody else shaped: any depth (no recursion, no long paths), never through a
    link. What a process that is just dying put there meanwhile goes with the next look.
    """
    for _ in range(_REMOVALS):
        try:
            return _remove_once(top)
        except OSError:
            time.sleep(0.01)
    # Its name is not used again, and all boxes go when the zygote ends.
    shutil.rmtree(top, ignore_errors=True)


def _remove_once(top: str) -> None:
    nursery, moved = top + ".removing", 0
    os.makedirs(nursery, 0o700, exist_ok=True)
    pending = [*([top] if os.path.isdir(top) else []), *(entry.path for entry in os.scandir(nursery))]
    while pending:
        folder = pending.pop()
        os.chmod(folder, 0o700)
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    moved += 1
                    target = os.path.join(nursery, f"{time.monotonic_ns()}-{moved}")
                    os.chmod(entry.path, 0o700)
                    os.rename(entry.path, target)
                    pending.append(target)
                else:
                    os.unlink(entry.path)
        os.rmdir(folder)
    os.rmdir(nursery)


def main(arguments: list[str]) -> None:
    """`arguments` is one JSON object: control (descriptor), boxes, readable, import_paths, preload."""
    options = json.loads(arguments[0])
    control = socket.socket(fileno=options["control"])
    try:
        _serve(control, options)
    except ConnectionError:
        # The owner died before it read what was said to it.
        return
    finally:
        shutil.rmtree(options["boxes"], ignore_errors=True)


def _serve(control: socket.socket, options: dict[str, Any]) -> None:
    try:
        sys.path.extend(options["import_paths"])
        for name in (*COMMON_MODULES, *options["preload"]):
            importlib.import_module(name)
        confinement = Confinement(options["readable"])
    except (OSError, NotImplementedError, ImportError) as error:
        control.sendall(json.dumps({"error": f"{type(error).__name__}: {error}"}).encode())
        return
    # Objects made so far are never collected: fewer pages to copy in each child.
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    hello = {"landlock_abi": confinement.abi, "counts_threads": thread_count(os.getpid()) > 0}
    control.sendall(json.dumps(hello).encode())
    zygote = Zygote(control, confinement, options["boxes"])
    try:
        zygote.serve()
    finally:
        zygote.stop()
