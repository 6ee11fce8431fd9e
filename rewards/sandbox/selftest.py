"""The attack list against a running worker: what `pipeline doctor` prints and a run's manifest keeps.

Each attack of `attacks` runs as a job; afterwards the baits are looked at (a file, a process, listeners), and what is
left of the attackers. Works as root and as an ordinary user.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rewards.sandbox.attack import ESCAPED, LIMITS, Attack, Bait
from rewards.sandbox.attacks import attacks, cpp_attacks
from rewards.sandbox.records import Job, JobResult, SandboxUnavailable
from rewards.sandbox.worker import SandboxWorker

_SHOWN = 100
_TRIES = 3
"""Of an attack that the clock ended although it ends by itself."""


@dataclass(frozen=True)
class AttackResult:
    """`stopped` is the verdict; `how` is what the attacker saw (a status or the error it got)."""

    area: str
    name: str
    stopped: bool
    how: str


def self_test(worker: SandboxWorker) -> list[AttackResult]:
    """Run the attacks; every `stopped` must be True. Takes a few times the worker's CPU and wall limits: start it with
    short ones.
    """
    restarts = worker.restarts
    with _baits() as (bait, listeners):
        areas = attacks(bait)
        try:
            worker.compiler()
        except SandboxUnavailable:
            # Nothing is compiled here, so nothing can be attacked.
            areas["C++"] = []
        else:
            areas["C++"] = cpp_attacks()
        listed = [(area, attack) for area, found in areas.items() for attack in found]
        before = len(descendants(worker))
        results = worker.run_many([attack.job for _, attack in listed])
        report = [_judged(worker, *one, result) for one, result in zip(listed, results, strict=True)]
        report += [_leave_a_file(worker), *_looked_at(bait, listeners)]
        left = len(descendants(worker)) - before
    report.append(_after("leave a process behind", left == 0, f"{left} processes more than before"))
    died = worker.restarts - restarts
    report.append(_after("kill the sandbox's helper", died == 0, f"started again {died} times"))
    return report


def _after(name: str, stopped: bool, how: str) -> AttackResult:
    return AttackResult("aftermath", name, stopped, how)


def descendants(worker: SandboxWorker) -> set[int]:
    """Processes below the worker's helpers, as this process sees them."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(fields[1])
    found: set[int] = set()
    level = set(worker.zygote_pids.values())
    while level:
        level = {pid for pid, parent in parents.items() if parent in level} - found
        found |= level
    return found


@contextmanager
def _baits() -> Iterator[tuple[Bait, list[socket.socket]]]:
    secret = secrets.token_hex(16)
    with ExitStack() as stack:
        file = stack.enter_context(tempfile.NamedTemporaryFile("w", prefix="polymath-selftest-"))
        file.write(secret)
        file.flush()
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
        abstract.bind(f"\0polymath-selftest-{secret}")
        abstract.listen()
        victim = subprocess.Popen(["sleep", "600"], env={"SECRET": secret}, stdin=subprocess.DEVNULL)
        stack.callback(victim.wait)
        stack.callback(victim.kill)
        port = tcp.getsockname()[1]
        yield Bait(file.name, victim.pid, port, f"polymath-selftest-{secret}", secret), [tcp, abstract]


def _judged(worker: SandboxWorker, area: str, attack: Attack, result: JobResult) -> AttackResult:
    """An attack that the clock ended before it was done has shown nothing: on a busy machine it is tried again, alone.
    What it did until then counts."""
    for _ in range(_TRIES - 1):
        if result.status in attack.ends or result.status not in LIMITS or not _is_harmless(worker, attack, result):
            break
        result = worker.run(attack.job)
    stopped = result.status in attack.ends and _is_harmless(worker, attack, result)
    return AttackResult(area, attack.name, stopped, _how(result))


def _is_harmless(worker: SandboxWorker, attack: Attack, result: JobResult) -> bool:
    memory = worker.limits.memory_bytes if attack.job.kind != "cpp" else result.max_rss_bytes
    return (
        ESCAPED not in result.stdout + result.stderr
        and len(result.stdout) <= worker.limits.output_bytes
        and result.max_rss_bytes <= memory
    )


def _how(result: JobResult) -> str:
    said = (result.stdout.strip() or result.stderr.strip()).splitlines()
    text = said[-1][:_SHOWN] if said and result.status in ("ok", "runtime_error", "compile_error") else result.error
    return f"{result.status}: {text}" if text.isprintable() else result.status


def _leave_a_file(worker: SandboxWorker) -> AttackResult:
    leave = "import os\nopen('left', 'w').write('x')\nprint(os.getcwd())"
    first = worker.run(Job.program(leave, files={"a.txt": ""}))
    place = first.stdout.strip()
    look = (
        f"import os\nfor folder in ('.', {place!r}, {os.path.dirname(place)!r}, '/tmp'):\n"
        f"    try:\n        if 'left' in os.listdir(folder): print('{ESCAPED}')\n"
        "    except OSError as e: print(e)\n"
    )
    second = worker.run(Job.program(look, files={"a.txt": ""}))
    stopped = first.status == second.status == "ok" and ESCAPED not in second.stdout
    return _after("leave a file for the next job", stopped, _how(second))


def _looked_at(bait: Bait, listeners: list[socket.socket]) -> Iterator[AttackResult]:
    """What the attacks did to the baits."""
    file = Path(bait.file)
    kept = file.exists() and file.read_text() == bait.secret and file.stat().st_mode & 0o777 == 0o600
    yield _after("harm a file outside", kept, "as it was" if kept else "changed")
    lives = Path(f"/proc/{bait.pid}").exists()
    yield _after("harm another process", lives, "alive" if lives else "dead")
    for listener in listeners:
        listener.setblocking(False)
        try:
            listener.accept()
            reached = True
        except BlockingIOError:
            reached = False
        kind = "TCP" if listener.family == socket.AF_INET else "abstract UNIX"
        yield _after(f"reach a listener ({kind})", not reached, "reached" if reached else "nobody came")
