"""Runs the validation ladder of every kernel on the GPU and prints one line for each check.

    python -m benchmarks.gpu_check [NAME ...] [--jobs 3] [--deadline 180]

A module of `kernels/checks/` holds functions `check_<name>(report)`; each calls `report(what, ok, detail)` for each
thing that it checks. Every module runs in a process of its own, so that a kernel that hangs or breaks its CUDA context
is one failed line and the others go on. Exit code 1 when anything failed, 2 without a GPU.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import pkgutil
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection

import torch

import kernels.checks
from benchmarks.provenance import provenance, result_path

NAMES = sorted(module.name for module in pkgutil.iter_modules(kernels.checks.__path__))


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
        return f"{self.module:<14} {self.what:<58} {state:<6} {self.seconds:6.1f} s  {self.detail}".rstrip()


def main() -> int:
    parser = argparse.ArgumentParser(description="The validation ladder of every kernel, on the GPU.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only these: {', '.join(NAMES)}")
    parser.add_argument("--jobs", type=int, default=3, help="modules checked at one time")
    parser.add_argument("--deadline", type=float, default=180, help="seconds for a module, its compilation included")
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
        found = run_module(name, arguments.deadline)
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


def run_module(name: str, deadline: float) -> list[Line]:
    """Lines of one module, checked in a process of its own."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=check_module, args=(name, sender), daemon=True)
    process.start()
    sender.close()
    lines: list[Line] = []
    end = time.monotonic() + deadline
    last = time.monotonic()
    while True:
        if not receiver.poll(max(0.0, end - time.monotonic())):
            process.kill()
            why = f"no result within {deadline:.0f} s: it hangs, or takes too long after the line above"
            lines.append(Line(name, "deadline", False, time.monotonic() - last, why))
            break
        try:
            what, ok, seconds, detail = receiver.recv()
        except EOFError:
            process.join()
            if process.exitcode != 0:
                why = f"its process ended with code {process.exitcode}"
                lines.append(Line(name, "process", False, time.monotonic() - last, why))
            elif not lines:
                lines.append(Line(name, "nothing checked", False, time.monotonic() - last, "no function check_*"))
            break
        lines.append(Line(name, what, ok, seconds, detail))
        last = time.monotonic()
    process.join()
    return lines


def check_module(name: str, sender: Connection) -> None:
    """Runs every `check_*` of `kernels.checks.<name>`; sends (what, ok, seconds, detail). Body of the process."""
    last = time.perf_counter()

    def report(what: str, ok: bool, detail: str = "") -> None:
        nonlocal last
        now = time.perf_counter()
        sender.send((what, bool(ok), now - last, detail))
        last = now

    for function_name, check in _checks(name, report):
        try:
            check(report)
            torch.cuda.synchronize()
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            text = f"{type(error).__name__}: {str(error).strip() or 'no message'}".splitlines()[0]
            report(function_name, False, f"{text[:300]} ({where.filename.rpartition('/')[2]}:{where.lineno})")
            traceback.print_exc()
    sender.close()


def _checks(name: str, report: Callable[..., None]) -> list[tuple[str, Callable[..., None]]]:
    try:
        module = importlib.import_module(f"kernels.checks.{name}")
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
    versions = ", ".join(f"{name} {head['versions'][name]}" for name in ("torch", "triton", "cuda", "python"))
    rows = {**{key: head[key] for key in ("device", "date", "commit", "command")}, "versions": versions}
    return "\n".join(f"{key:<9} {value}" for key, value in rows.items()) + "\n"


if __name__ == "__main__":
    sys.exit(main())
