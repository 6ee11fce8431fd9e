"""Compiled programs: the compiler's step, and the start of what it made, each in its own confined child."""

from __future__ import annotations

import os
import signal
from typing import Any, NoReturn

from .filters import BINARY_FD

_RESULT_FD = 3
_SOURCE, _OUTPUT = "program.cpp", "program"


def compile_source(source: str, compiler: str) -> int:
    """Compile a C++ source in the working folder and write the static binary to the result; 0 or 1, the exit code."""
    with open(_SOURCE, "w", encoding="utf-8", errors="surrogatepass") as file:
        file.write(source)
    command = [compiler, "-std=c++20", "-O2", "-s", "-static", "-pipe", _SOURCE, "-o", _OUTPUT]
    surroundings = {"PATH": "/usr/bin:/bin", "TMPDIR": os.getcwd(), "LC_ALL": "C"}
    status = os.waitpid(os.posix_spawn(compiler, command, surroundings), 0)[1]
    code = os.waitstatus_to_exitcode(status)
    if code == 0:
        with open(_OUTPUT, "rb") as binary:
            while os.sendfile(_RESULT_FD, binary.fileno(), None, 1 << 24):
                continue
    return 0 if code == 0 else 1


def start_binary(ready: int) -> NoReturn:
    """Become the program that waits at `BINARY_FD`. A start that fails is written to `ready`: no fault of the job.

    Until a start succeeds, nothing of the job has run.
    """
    try:
        # Python ignores these; a program expects them to end it.
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        surroundings: dict[str, Any] = dict(os.environ)
        os.execve(BINARY_FD, ["program"], surroundings)
    except OSError as error:
        os.write(ready, f", but the program could not be started: {error}".encode())
    os._exit(1)
