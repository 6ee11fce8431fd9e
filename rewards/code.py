"""Code: does this program, function or small repository pass every hidden test?

The sandbox gets inputs and gives outputs; the comparison and the expected values stay here. Exit codes and
anything that the program reports about itself are never evidence. All tests must pass: partial credit pays
for hard-coding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rewards.sandbox import Call, Job, JobResult, SandboxWorker
from rewards.types import Verdict

# Tests per round: a program that fails early does not use its time limit on every later test.
_FIRST_ROUND, _ROUND = 2, 8
_SHOWN_CHARS = 200
_MAX_DEPTH = 64


def grade_program(source: str, tests: Sequence[Mapping[str, str]], worker: SandboxWorker) -> Verdict:
    """Run `source` once per test `{"stdin": ..., "stdout": ...}`; outputs are compared by
    whitespace-separated tokens.
    """
    passed = 0
    start = 0
    while start < len(tests):
        chunk = tests[start : start + (_ROUND if start else _FIRST_ROUND)]
        results = worker.run_many([Job.program(source, test["stdin"]) for test in chunk])
        for index, (test, result) in enumerate(zip(chunk, results, strict=True), start):
            if result.status == "sandbox_error":
                return _unavailable(result)
            if result.status != "ok":
                return _failed(
                    index, len(tests), result.status, result.error, stderr=result.stderr[-_SHOWN_CHARS:]
                )
            if result.stdout.split() != test["stdout"].split():
                return _failed(index, len(tests), "wrong_output", got=result.stdout[:_SHOWN_CHARS])
            passed += 1
        start += len(chunk)
    return _all_passed(passed)


def grade_function(
    source: str, name: str, tests: Sequence[Mapping[str, Any]], worker: SandboxWorker
) -> Verdict:
    """Call `name` with the `args` of each test and compare with its `result`: JSON values, exact types.

    A test may carry `tolerance` (absolute and relative, for floats only); without it floats compare exactly.
    """
    result = worker.run(Job.function(source, name, [test["args"] for test in tests]))
    return _compare_calls(tests, result)


def grade_files(
    files: Mapping[str, str],
    protected: Mapping[str, str],
    calls: Sequence[Mapping[str, Any]],
    worker: SandboxWorker,
) -> Verdict:
    """Call functions of a small repository: `calls` are `{"module", "function", "args", "result"}`.

    `protected` files are put back over whatever the policy made of them. No test runner runs inside: a
    solution can patch any runner that shares its interpreter. A path that leaves the folder makes the
    answer wrong.
    """
    try:
        job = Job.in_files(
            {**files, **protected}, [Call(call["function"], call["args"], call["module"]) for call in calls]
        )
    except ValueError as error:
        return Verdict(False, "bad_path", {"error": str(error)})
    return _compare_calls(calls, worker.run(job))


def _compare_calls(tests: Sequence[Mapping[str, Any]], result: JobResult) -> Verdict:
    if result.status == "sandbox_error":
        return _unavailable(result)
    if result.status != "ok":
        return _failed(0, len(tests), result.status, result.error, stderr=result.stderr[-_SHOWN_CHARS:])
    if len(result.results) != len(tests):
        return _failed(
            0, len(tests), "runtime_error", f"{len(result.results)} results for {len(tests)} calls"
        )
    for index, (test, returned) in enumerate(zip(tests, result.results, strict=True)):
        if not returned.ok:
            return _failed(index, len(tests), "runtime_error", returned.error or "")
        if not json_equal(returned.value, test["result"], test.get("tolerance")):
            return _failed(index, len(tests), "wrong_output", got=repr(returned.value)[:_SHOWN_CHARS])
    return _all_passed(len(tests))


def json_equal(got: Any, expected: Any, tolerance: float | None = None, depth: int = 0) -> bool:
    """Equal JSON values with equal types: `True` is not 1, 1 is not 1.0, tuples have become lists. NaN
    equals nothing.
    """
    if type(got) is not type(expected) or depth > _MAX_DEPTH:
        return False
    if isinstance(expected, list):
        return len(got) == len(expected) and all(
            json_equal(a, b, tolerance, depth + 1) for a, b in zip(got, expected, strict=True)
        )
    if isinstance(expected, dict):
        return got.keys() == expected.keys() and all(
            json_equal(got[key], expected[key], tolerance, depth + 1) for key in expected
        )
    if isinstance(expected, float) and tolerance is not None:
        return abs(got - expected) <= tolerance * max(1.0, abs(expected))
    return bool(got == expected)


def _all_passed(count: int) -> Verdict:
    if count == 0:
        # Nothing was tested: neither right nor wrong.
        return Verdict.invalid("no_tests")
    return Verdict(True, "all_passed", {"passed": count, "total": count})


def _failed(index: int, total: int, status: str, error: str = "", **more: Any) -> Verdict:
    evidence = {"passed": index, "total": total, "first_failure": index, "error": error, **more}
    return Verdict(False, status, evidence)


def _unavailable(result: JobResult) -> Verdict:
    return Verdict.invalid("sandbox_error", error=result.error)
