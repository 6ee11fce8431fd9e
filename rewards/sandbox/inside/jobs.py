"""One job in one forked child: read the payload, confine, say "ready", run, write the result, exit.

The payload comes by file descriptor straight from the parent and the output goes back the same way, so the
zygote (whose memory every later child inherits) never holds a job's source, its inputs or another job's
output.
"""

from __future__ import annotations

import atexit
import builtins
import fcntl
import importlib
import json
import os
import random
import sys
import threading
import traceback
import types
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from .confine import FIRST_OWN_FD, Confinement, die_with_parent, set_limits
from .filters import BINARY_FD, Profile
from .native import compile_source, start_binary

EXIT_ERROR = 1
EXIT_MEMORY = 71
_RESULT_FD, _READY_FD = 3, 4
_PROFILES: dict[str, Profile] = {"compile": "compiler", "cpp": "binary"}
_ERROR_CHARS = 500


def run_child(
    confinement: Confinement,
    limits: Mapping[str, int],
    box: str | None,
    parent: int,
    descriptors: tuple[int, ...],
    ready: int,
) -> NoReturn:
    """Run the job of `descriptors` = (payload, stdout, stderr, result[, compiled program]). Never returns.

    A failure before "ready" is the sandbox's fault and is written to `ready`; a failure after it is the
    job's.
    """
    own_ready = ready
    try:
        os.setpgid(0, 0)
        die_with_parent(parent)
        payload = _read_payload(descriptors[0])
        profile = _PROFILES.get(payload["kind"], "job")
        _install_descriptors(payload.get("stdin", ""), descriptors[1:], ready)
        own_ready = _READY_FD
        os.chdir(box or "/")
        set_limits(limits)
        confinement.apply(box, profile)
        # Everything else goes: the control socket, the other children's handles.
        os.closerange((BINARY_FD if profile == "binary" else _READY_FD) + 1, 1 << 20)
        _forget_the_sandbox()
    except BaseException as error:
        # Too early to be the job's fault; the zygote reads this as a sandbox error.
        os.write(own_ready, f"{type(error).__name__}: {error}".encode()[:400])
        os._exit(EXIT_ERROR)
    os.write(_READY_FD, b"ready")
    if profile == "binary":
        start_binary(_READY_FD)
    os.close(_READY_FD)
    os._exit(_run(payload, box))


def _read_payload(descriptor: int) -> dict[str, Any]:
    size = os.fstat(descriptor).st_size
    parts, offset = [], 0
    while offset < size:
        part = os.pread(descriptor, size - offset, offset)
        parts.append(part)
        offset += len(part)
    payload: dict[str, Any] = json.loads(b"".join(parts))
    return payload


def _install_descriptors(stdin: str, outputs: tuple[int, ...], ready: int) -> None:
    source = os.memfd_create("stdin")
    with open(source, "wb", closefd=False) as file:
        file.write(stdin.encode("utf-8", "surrogatepass"))
    os.lseek(source, 0, os.SEEK_SET)
    # First out of the way, then into place: a target number may be one of the sources.
    out, err, result, *binary = outputs
    moved = [
        fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, FIRST_OWN_FD)
        for descriptor in (source, out, err, result, ready, *binary)
    ]
    for target, descriptor in enumerate(moved):
        os.dup2(descriptor, target, inheritable=target <= 2)


def _forget_the_sandbox() -> None:
    """What a program would find in an interpreter of its own: no trace of ours, a fixed seed, `exit` and
    `quit`.
    """
    sys.argv = ["program.py"]
    random.seed(0)
    for name, value in (("exit", sys.exit), ("quit", sys.exit)):
        setattr(builtins, name, value)


def _run(payload: Mapping[str, Any], box: str | None) -> int:
    kind = payload["kind"]
    try:
        for path, text in payload.get("files", {}).items():
            _write(path, text)
        if box is not None:
            sys.path.insert(0, box)
        if kind == "program":
            _execute(payload["source"], "__main__")
        elif kind == "calls":
            _answer(_call_all(payload))
        elif kind == "compile":
            return compile_source(payload["source"], payload["target"])
        elif kind == "trusted":
            module, _, name = payload["target"].partition(":")
            value = getattr(importlib.import_module(module), name)(*payload["args"])
            _answer(json.dumps([{"value": value}], allow_nan=False))
        else:
            raise ValueError(f"unknown kind of job: {kind!r}")
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        return 0
    except SystemExit as stop:
        return _exit_code(stop)
    except MemoryError:
        return EXIT_MEMORY
    except BaseException:
        return _report()


def _exit_code(stop: SystemExit) -> int:
    try:
        sys.stdout.flush()
    except OSError:
        return EXIT_ERROR
    return 0 if stop.code is None or stop.code == 0 else EXIT_ERROR


def _report() -> int:
    try:
        traceback.print_exc(limit=-5)
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, MemoryError, RecursionError):
        # The output is full or the process is: the exit status says the rest.
        return EXIT_ERROR
    return EXIT_ERROR


def _write(path: str, text: str) -> None:
    folder = os.path.dirname(path)
    if folder:
        os.makedirs(folder, exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def _execute(source: str, name: str) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__file__ = "program.py"
    sys.modules[name] = module
    exec(compile(source, "program.py", "exec", dont_inherit=True), module.__dict__)
    return module


def _call_all(payload: Mapping[str, Any]) -> str:
    """One JSON entry per call, `{"value": ...}` or `{"error": ...}`."""
    solution = _execute(payload["source"], "solution") if payload.get("source") is not None else None
    entries = []
    for module, name, arguments in payload["calls"]:
        try:
            owner = solution if module is None else importlib.import_module(module)
            function: Callable[..., object] = getattr(owner, name)
            entries.append('{"value":' + json.dumps(function(*arguments), allow_nan=False) + "}")
        except BaseException as error:
            text = "".join(traceback.format_exception_only(error)).strip()[-_ERROR_CHARS:]
            entries.append(json.dumps({"error": text}))
    return "[" + ",".join(entries) + "]"


def _answer(text: str) -> None:
    data = text.encode("utf-8", "surrogatepass")
    while data:
        data = data[os.write(_RESULT_FD, data) :]
