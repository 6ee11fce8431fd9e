"""Runs the validation ladder of every kernel on the GPU and prints one line for each check.

    python -m benchmarks.gpu_check [NAME ...] [--jobs 3] [--patience 120]

A module of `kernels/checks/`, and `benchmarks/model_check.py` for the whole model, holds functions
`check_<name>(report)`; each calls `report(what, ok, detail)` for each thing that it checks. Every module runs in a
process of its own, so that a kernel that hangs or breaks its CUDA context is one failed line and the others go on. Exit
code 1 when anything failed, 2 without a GPU.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch

import kernels.checks
from benchmarks.provenance import provenance, result_path
from benchmarks.worker import WorkerFailed, messages

MODULES = {name: f"kernels.checks.{name}" for _, name, _ in pkgutil.iter_modules(kernels.checks.__path__)}
MODULES["model"] = "benchmarks.model_check"
NAMES = sorted(MODULES)


@dataclass(frozen=True)
class Line:
    """One checked thing."""

    module: str
    what: str
    ok: bool
    seconds: float
    detail: str

    def __str__(self) -> str:
        state = "ok" if self.ok else "FAILED"
        return f"{self.module:<20} {self.what:<82} {state:<6} {self.seconds:6.1f} s  {self.detail}".rstrip()


def main() -> int:
    parser = argparse.ArgumentParser(description="The validation ladder of every kernel, on the GPU.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only these: {', '.join(NAMES)}")
    parser.add_argument("--jobs", type=int, default=3, help="modules checked at one time")
    parser.add_argument("--patience", type=float, default=120, help="seconds from one line of a module to the next")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(NAMES))
    if unknown:
        parser.error(f"no checks called {', '.join(unknown)}; there are {', '.join(NAMES)}")
    if not torch.cuda.is_available():
        print(
            "gpu_check runs the kernels on a GPU, and torch sees none here. The same kernels run on a CPU in Triton's"
        )
        print("interpreter: python -m pytest tests/kernels")
        return 2
    head = _head()
    print(head, flush=True)
    start, lines = time.perf_counter(), []

    def run(name: str) -> list[Line]:
        found = run_module(name, arguments.patience)
        print("\n".join(map(str, found)), flush=True)
        return found

    with ThreadPoolExecutor(arguments.jobs) as pool:
        for found in pool.map(run, arguments.names or NAMES):
            lines += found
    close = closing_line(lines, time.perf_counter() - start)
    print(close)
    path = result_path("gpu_check", "txt")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([head, *map(str, lines), close]) + "\n", encoding="utf-8")
    print(f"written to {path}")
    return 0 if lines and all(line.ok for line in lines) else 1


def run_module(name: str, patience: float) -> list[Line]:
    """Lines of one module, checked in a process of its own."""
    lines: list[Line] = []
    last = time.monotonic()
    try:
        for message in messages(check_module, name, patience=patience):
            lines.append(Line(name, *message))
            last = time.monotonic()
        failure = "" if lines else "it has no function check_*"
    except WorkerFailed as error:
        failure = str(error)
    return [*lines, Line(name, "process", False, time.monotonic() - last, failure)] if failure else lines


def check_module(send: Callable[[Any], None], name: str) -> None:
    """Runs every `check_*` of the module of that name; sends (what, ok, seconds, detail)."""
    last = time.perf_counter()

    def report(what: str, ok: bool, detail: str = "") -> None:
        nonlocal last
        now = time.perf_counter()
        send((what, bool(ok), now - last, detail))
        last = now

    for function_name, check in _checks(name, report):
        try:
            check(report)
            torch.cuda.synchronize()
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            text = (str(error).strip().splitlines() or ["no message"])[0]
            at = f"{where.filename.rpartition('/')[2]}:{where.lineno}"
            report(function_name, False, f"{type(error).__name__}: {text[:300]} ({at})")
            traceback.print_exc()


def _checks(name: str, report: Callable[..., None]) -> list[tuple[str, Callable[..., None]]]:
    try:
        module = importlib.import_module(MODULES.get(name, name))
    except Exception as error:
        traceback.print_exc()
        report("import", False, f"{type(error).__name__}: {error}")
        return []
    found = [(key, value) for key, value in vars(module).items() if key.startswith("check_") and callable(value)]
    return [(key, value) for key, value in found if value.__module__ == module.__name__]


def closing_line(lines: list[Line], seconds: float) -> str:
    failed = sum(not line.ok for line in lines)
    return f"{len(lines)} checks, {len(lines) - failed} ok, {failed} failed, in {seconds:.0f} s"


def _head() -> str:
    head = provenance("benchmarks.gpu_check")
    versions = ", ".join(f"{name} {version}" for name, version in head["versions"].items())
    rows = {**{key: head[key] for key in ("device", "date", "commit", "command")}, "versions": versions}
    return "\n".join(f"{key:<9} {value}" for key, value in rows.items()) + "\n"


if __name__ == "__main__":
    sys.exit(main())
