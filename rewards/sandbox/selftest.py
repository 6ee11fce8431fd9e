"""A dozen attacks against a running worker: what `pipeline doctor` prints and what training on code refuses
to miss.

Each attack is a program that prints ESCAPED when it gets through; how it must end is said beside it. The
list is short on purpose (a few seconds); the full corpus lives in the tests.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable
from dataclasses import dataclass

from rewards.sandbox.records import Job, JobResult
from rewards.sandbox.worker import SandboxWorker

ESCAPED = "ESCAPED"


@dataclass(frozen=True)
class AttackResult:
    """`stopped` is the verdict; `how` is what the attacker saw (a status or the error it got)."""

    name: str
    stopped: bool
    how: str


def _try(action: str) -> str:
    head = "import os, resource, socket"
    tail = "except (OSError, ValueError) as error:\n    print(error)\n"
    return f"{head}\ntry:\n    {action}\n    print('{ESCAPED}')\n{tail}"


def self_test(worker: SandboxWorker) -> list[AttackResult]:
    """Run the attacks; every `stopped` must be True. Takes about three seconds (one is an infinite loop)."""
    handle, outside = tempfile.mkstemp(prefix="polymath-selftest-")
    listener = socket.create_server(("127.0.0.1", 0))
    os.close(handle)
    port = listener.getsockname()[1]
    flood = "import sys\nwhile True: sys.stdout.write('x' * 65536)"
    parent = f"{os.getpid()}, 0" if worker.tier == "landlock" else "os.getppid(), 9"
    attacks: list[tuple[str, str, Callable[[JobResult], bool]]] = [
        ("fork", _try("os.fork()"), _quiet),
        ("execute a program", _try("os.execv('/bin/sh', ['sh', '-c', 'echo " + ESCAPED + "'])"), _quiet),
        ("read /etc/passwd", _try("open('/etc/passwd').read()"), _quiet),
        (
            "read another process's environment",
            _try("open(f'/proc/{os.getppid()}/environ', 'rb').read()"),
            _quiet,
        ),
        ("write outside", _try(f"open({outside!r}, 'w').write('x')"), _quiet),
        ("change a file's mode outside", _try(f"os.chmod({outside!r}, 0o777)"), _quiet),
        ("connect to the host", _try(f"socket.create_connection(('127.0.0.1', {port}), 1)"), _quiet),
        ("kill the parent", _try(f"os.kill({parent})"), _quiet),
        (
            "raise the limits",
            _try("resource.setrlimit(resource.RLIMIT_CPU, (9, 9))"),
            _quiet,
        ),
        (
            "eat memory",
            f"x = bytearray(4 << 30)\nprint('{ESCAPED}')",
            lambda result: result.status == "memory",
        ),
        ("loop for ever", "while True: pass", lambda result: result.status == "cpu_limit"),
        ("flood the output", flood, lambda result: result.status == "output_limit"),
        ("exit 0 without an answer", "import os; os._exit(0)", lambda result: result.stdout == ""),
    ]
    try:
        results = worker.run_many([Job.program(source) for _, source, _ in attacks])
        report = [
            AttackResult(name, ESCAPED not in result.stdout and stopped(result), _how(result))
            for (name, _, stopped), result in zip(attacks, results, strict=True)
        ]
        return [*report, _leave_a_file(worker)]
    finally:
        listener.close()
        os.unlink(outside)


def _quiet(result: JobResult) -> bool:
    return result.status in ("ok", "runtime_error")


def _how(result: JobResult) -> str:
    said = result.stdout[:80] or result.stderr.strip().splitlines()[-1:] or [""]
    text = said if isinstance(said, str) else said[0][:80]
    return f"{result.status}: {text.strip()}" if result.status in ("ok", "runtime_error") else result.status


def _leave_a_file(worker: SandboxWorker) -> AttackResult:
    leave = "import os\nopen('left', 'w').write('x')\nprint(os.getcwd())"
    first = worker.run(Job.program(leave, files={"a.txt": ""}))
    place = first.stdout.strip()
    look = (
        f"import os\nfor folder in ('.', {place!r}, '/tmp'):\n"
        f"    try:\n        if 'left' in os.listdir(folder): print('{ESCAPED}')\n"
        "    except OSError as e: print(e)\n"
    )
    second = worker.run(Job.program(look, files={"a.txt": ""}))
    stopped = first.status == second.status == "ok" and ESCAPED not in second.stdout
    return AttackResult("leave a file for the next job", stopped, _how(second))
