"""What `benchmarks.rewards` compares with: Math-Verify in a pool of processes, TRL's `accuracy_reward`, and programs in
a plain subprocess. Each is used as its documentation shows."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

TIMEOUT_S = 10.0
"""Of one program in a plain subprocess."""

_CALL = """
import json, sys
space = {}
exec(compile(sys.argv[1], "solution", "exec"), space)
print(json.dumps([space["f"](*args) for args in json.load(sys.stdin)]))
"""


def math_verify_grade(pair: tuple[str, str]) -> bool:
    """One grade by Math-Verify with its own defaults, in a worker of the pool (its main thread may use SIGALRM)."""
    from math_verify import parse, verify

    answer, truth = pair
    return bool(verify(parse(f"${truth}$"), parse(answer)))


class MathVerifyPool:
    """Math-Verify in `workers` processes, each warm before it is timed."""

    def __init__(self, workers: int = 2) -> None:
        self.pool = ProcessPoolExecutor(workers)
        list(self.pool.map(math_verify_grade, [(r"\boxed{x+1}", "x+1")] * 8 * workers))

    def grade(self, pair: tuple[str, str]) -> bool:
        return self.pool.submit(math_verify_grade, pair).result()

    def grade_all(self, pairs: list[tuple[str, str]]) -> list[bool]:
        return list(self.pool.map(math_verify_grade, pairs))

    def close(self) -> None:
        self.pool.shutdown()


def trl_grade(pair: tuple[str, str]) -> bool | None:
    """One grade by TRL's `accuracy_reward`; None where it skips the example."""
    from trl.rewards import accuracy_reward

    answer, truth = pair
    (reward,) = accuracy_reward([[{"role": "assistant", "content": answer}]], [f"${truth}$"])
    return None if reward is None else reward == 1.0


class PlainSubprocess:
    """Programs as `python -I -S` in a subprocess with a time limit and no walls, two at a time."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(2)

    def program(self, source: str, tests: tuple[dict[str, str], ...]) -> bool:
        outputs = self._threads.map(lambda test: _run(["-c", source], test["stdin"]), tests)
        return all(output.split() == test["stdout"].split() for output, test in zip(outputs, tests, strict=True))

    def function(self, source: str, tests: tuple[dict[str, Any], ...]) -> bool:
        output = _run(["-c", _CALL, source], json.dumps([test["args"] for test in tests]))
        return bool(json.loads(output) == [test["result"] for test in tests])

    def close(self) -> None:
        self._threads.shutdown()


def _run(words: list[str], stdin: str) -> str:
    command = [sys.executable, "-I", "-S", *words]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=TIMEOUT_S, check=False).stdout
