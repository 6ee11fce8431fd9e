"""What one input that never ends does to each way of grading: `python -m benchmarks.reward_hangs NAME` is one trial.

A trial grades the bad input, then ordinary ones, and prints one JSON line. It runs in a process group of its own that
`trial` ends after a deadline, so that a contender that can not be stopped is a finding and not a hang of ours.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import TimeoutError as PoolTimeout
from itertools import pairwise
from pathlib import Path
from typing import Any

DEADLINE_S = 30.0
WAIT_S = 10.0
"""How long a caller waits for one grade."""

TOWER = r"\boxed{\dfrac{5^{\left(5^{\left(5^{\left(5^5\right)}\right)} - 4\right)} - 5}{16}}"
"""Math-Verify's issue 65: a C operation on big integers that holds the interpreter's lock."""

GOOD = (r"\boxed{\frac{1}{2}}", "0.5")
SINES = "+".join(rf"\sin({k}x)" for k in range(1, 20)), r"\sin(20x)"
"""Answer and truth that keep sympy busy for longer than any limit."""

SLEEPER = """
import os, time
try:
    if os.fork() == 0:
        os.setsid()
        time.sleep(600)
except OSError:
    pass
while True:
    time.sleep(60)
"""
"""Leaves a child in a session of its own, which keeps the output open, and then sleeps for ever."""


def trial(name: str, deadline_s: float = DEADLINE_S) -> dict[str, Any]:
    """One trial in its own process group, killed after the deadline: what it printed, and whether it ended itself."""
    words = [sys.executable, "-m", "benchmarks.reward_hangs", name]
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    )
    try:
        output, _ = process.communicate(timeout=deadline_s)
        ended = True
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        ended = False
    lines = output.splitlines()
    return {"ended": ended or f"no: killed after {deadline_s:g} s", **(json.loads(lines[-1]) if lines else {})}


def polymath_math() -> dict[str, Any]:
    from rewards.math.grade import grade_math
    from rewards.sandbox import SandboxWorker

    with SandboxWorker() as worker:
        grade_math(r"2\sin(x)\cos(x)", r"\sin(2x)", worker)
        tower = _timed(lambda: grade_math(TOWER[len(r"\boxed{") : -1], r"\sin(1)+x", worker).reason)
        bad = _timed(lambda: grade_math(*SINES, worker).reason)
        good = _timed(lambda: grade_math(r"\frac{1}{2}", "0.5", worker).correct)
        child = _timed(lambda: grade_math(r"2\sin(x)\cos(x)", r"\sin(2x)", worker).correct)
    return {"bad": tower, "bad for sympy": bad, "next good": good, "next good in the child": child}


def math_verify_pool() -> dict[str, Any]:
    """Two bad inputs at once take both workers; a good one is asked for behind them."""
    from benchmarks.reward_rivals import math_verify_grade

    pool = ProcessPoolExecutor(2)
    list(pool.map(math_verify_grade, [GOOD] * 8))
    bad = [pool.submit(math_verify_grade, (TOWER, "7")) for _ in range(2)]
    good = _timed(lambda: pool.submit(math_verify_grade, GOOD).result(timeout=WAIT_S))
    said = _timed(lambda: bad[0].result(timeout=WAIT_S))
    _print({"bad": said, "next good": good})
    return {}


def trl_in_a_thread() -> dict[str, Any]:
    """As a reward function in a thread, where TRL turns the time limits off; does the main thread still run?"""
    from benchmarks.reward_rivals import trl_grade

    trl_grade(GOOD)
    ticks: list[float] = []
    _print({"bad": "no answer", "main thread": "frozen for the whole trial"})
    threading.Thread(target=lambda: trl_grade((TOWER, "7")), daemon=True).start()
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        ticks.append(time.monotonic())
        time.sleep(0.05)
    longest = max(after - before for before, after in pairwise(ticks))
    _print({"bad": "no answer", "main thread": f"stood still for {longest:.2f} s at most"})
    os._exit(0)


def trl_in_the_main_thread() -> dict[str, Any]:
    from benchmarks.reward_rivals import trl_grade

    trl_grade(GOOD)
    return {"bad": _timed(lambda: trl_grade((TOWER, "7"))), "next good": _timed(lambda: trl_grade(GOOD))}


def polymath_code() -> dict[str, Any]:
    from rewards.code import grade_program
    from rewards.sandbox import Limits, SandboxWorker

    limits = Limits(cpu_seconds=2, wall_seconds=2.0)
    tests = [{"stdin": "", "stdout": "1"}]
    with SandboxWorker(limits=limits) as worker:
        bad = _timed(lambda: grade_program(SLEEPER, tests, worker).reason)
        good = _timed(lambda: grade_program("print(1)", tests, worker).correct)
    return {"bad": bad, "next good": good, "left over": _left_over()}


def plain_subprocess() -> dict[str, Any]:
    """`subprocess.run` with the time limit of 2 s, as a reward function would call it."""

    def run(source: str) -> object:
        command = [sys.executable, "-I", "-S", "-c", source]
        try:
            return subprocess.run(command, capture_output=True, text=True, timeout=2.0, check=False).stdout.strip()
        except subprocess.TimeoutExpired:
            return "timeout"

    bad, good = _timed(lambda: run(SLEEPER)), _timed(lambda: run("print(1)"))
    return {"bad": bad, "next good": good, "left over": _left_over()}


TRIALS: dict[str, Callable[[], dict[str, Any]]] = {
    function.__name__: function
    for function in (
        polymath_math, math_verify_pool, trl_in_a_thread, trl_in_the_main_thread, polymath_code, plain_subprocess
    )
}  # fmt: skip


def _timed(call: Callable[[], object]) -> dict[str, Any]:
    started = time.monotonic()
    try:
        said = call()
    except PoolTimeout:
        said = f"no answer within {WAIT_S:g} s"
    return {"seconds": round(time.monotonic() - started, 3), "said": said}


def _print(record: dict[str, Any]) -> None:
    print(json.dumps(record), flush=True)


def _adopt() -> None:
    """Orphans of what this process starts become its children, so that they can be counted and ended."""
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def _left_over() -> int:
    """How many processes the contender left behind; they are ended here."""
    time.sleep(0.2)
    pids = [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
    alive = [pid for pid in pids if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"]
    for pid in alive:
        os.kill(pid, signal.SIGKILL)
    return len(alive)


if __name__ == "__main__":
    _adopt()
    done = TRIALS[sys.argv[1]]()
    if done:
        _print(done)
