"""The zygote: a small single-threaded process that forks one child per job and supervises it.

It speaks over one SOCK_SEQPACKET socket. A request is a JSON header with the limits and four file descriptors
(payload, stdout, stderr, result); a reply says how the child ended. The contents of a job never pass
through here. When the socket closes, the zygote kills its children and exits: that is what ties its life to
its owner's. (bubblewrap's --die-with-parent would tie it to the *thread* that started it.)
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

# What programs import most: loading it once here saves each child the time.
COMMON_MODULES = (
    "bisect", "collections", "copy", "dataclasses", "datetime", "decimal", "fractions", "functools", "heapq",
    "io", "itertools", "json", "math", "operator", "random", "re", "statistics", "string", "typing",
)  # fmt: skip
_HEADER_BYTES = 4096
_DESCRIPTORS = 4
_BUSY_SHARE = 0.1
# A busy job may use this many times its wall limit.
MAX_WALL_FACTOR = 3


@dataclass
class Child:
    job: int
    pid: int
    ready: int
    box: str | None
    started: float
    deadline: float
    wall_seconds: float
    timed_out: bool = False


class Zygote:
    def __init__(self, control: socket.socket, confinement: Confinement, boxes: str):
        self.control = control
        self.confinement = confinement
        self.boxes = boxes
        self.children: dict[int, Child] = {}
        self.poll = select.poll()
        self.poll.register(control.fileno(), select.POLLIN)

    def serve(self) -> None:
        while True:
            for descriptor, _ in self.poll.poll(self._timeout_ms()):
                if descriptor in self.children:
                    self._reap(descriptor)
                elif not self._accept():
                    return
            self._kill_late()

    def _timeout_ms(self) -> int | None:
        waiting = [child.deadline for child in self.children.values() if not child.timed_out]
        return max(0, int((min(waiting) - time.monotonic()) * 1000) + 1) if waiting else None

    def _accept(self) -> bool:
        data, ancillary, _, _ = self.control.recvmsg(_HEADER_BYTES, socket.CMSG_SPACE(_DESCRIPTORS * 4))
        if not data:
            self.stop()
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
            box = os.path.join(self.boxes, str(header["job"]))
            os.mkdir(box, 0o700)
        ready, child_ready = os.pipe()
        started = time.monotonic()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            payload, out, err, result = descriptors
            run_child(
                self.confinement,
                header["limits"],
                box,
                parent,
                (payload, out, err, result),
                ready=child_ready,
            )
        os.close(child_ready)
        handle = os.pidfd_open(pid)
        wall = header["wall_seconds"]
        self.children[handle] = Child(header["job"], pid, ready, box, started, started + wall, wall)
        self.poll.register(handle, select.POLLIN)

    def _kill_late(self) -> None:
        now = time.monotonic()
        for child in self.children.values():
            if now < child.deadline or child.timed_out:
                continue
            if _is_starved(child, now):
                child.deadline += child.wall_seconds
            else:
                child.timed_out = True
                _kill(child)

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
        reply = {
            "job": child.job,
            "setup_error": None if said == "ready" else (said or "the child died before it was confined"),
            "timed_out": child.timed_out,
            "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
            "exit_code": os.WEXITSTATUS(status) if os.WIFEXITED(status) else -1,
            "cpu_seconds": usage.ru_utime + usage.ru_stime,
            "wall_seconds": wall,
            "max_rss_bytes": usage.ru_maxrss * 1024,
        }
        self.control.sendall(json.dumps(reply).encode())

    def stop(self) -> None:
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
    link.
    """
    pending, moved = [top], 0
    nursery = top + ".removing"
    os.mkdir(nursery, 0o700)
    while pending:
        folder = pending.pop()
        os.chmod(folder, 0o700)
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    moved += 1
                    target = os.path.join(nursery, str(moved))
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
    control.sendall(json.dumps({"landlock_abi": confinement.abi, "pid": os.getpid()}).encode())
    zygote = Zygote(control, confinement, options["boxes"])
    try:
        zygote.serve()
    except ConnectionError:
        # The owner died before it read a reply.
        zygote.stop()
    finally:
        shutil.rmtree(options["boxes"], ignore_errors=True)
