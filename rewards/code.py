"""Code: does this program, function or small repository pass every hidden test?

The sandbox gets inputs and gives outputs; the comparison and the expected values stay here. Exit codes and
anything that the program reports about itself are never evidence. All tests must pass: partial credit pays
for hard-coding.

A verdict's reason is `ok`, `wrong`, how the program ended (`compile_error`, `runtime_error`, `cpu_limit`, `wall_limit`,
`memory`, `output_limit`) or, where there is no verdict, what failed (`sandbox_error`, `checker_error`, `bad_tests`,
`no_tests`, `no_hidden_tests`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from rewards.checkers import (
    FUNCTION_CHECKERS,
    PROGRAM_CHECKERS,
    Checker,
    CheckerError,
    Compare,
    comparison,
    run_checker,
)
from rewards.protected import restore
from rewards.sandbox import Call, Job, JobResult, SandboxWorker
from rewards.types import Verdict

# Tests per round: a program that fails early does not use its time limit on every later test.
_FIRST_ROUND, _ROUND = 2, 8
_SHOWN_CHARS = 200


Language = Literal["python", "cpp"]


def grade_program(
    source: str,
    tests: Sequence[Mapping[str, Any]],
    worker: SandboxWorker,
    checker: Checker = None,
    language: Language = "python",
) -> Verdict:
    """Run `source` once per test `{"stdin": ..., "stdout": ...}`; outputs are compared by tokens between white space.

    A test may carry `tolerance` (see `checkers.tokens_equal`) and `public`: true where the prompt shows it. At least
    one test must not be public, so that a program which knows the examples by heart is paid nothing. `checker` says
    what is right where more than one output is (`checkers.PROGRAM_CHECKERS`, or a checker's source).
    """
    if problem := program_problem(tests, checker):
        return problem
    compare = comparison(checker, PROGRAM_CHECKERS, "tokens")
    make_job = Job.cpp if language == "cpp" else Job.program
    outputs: list[str] = []
    while len(outputs) < len(tests):
        start = len(outputs)
        chunk = tests[start : start + (_ROUND if start else _FIRST_ROUND)]
        results = worker.run_many([make_job(source, test["stdin"]) for test in chunk])
        for test, result in zip(chunk, results, strict=True):
            index = len(outputs)
            if result.status == "sandbox_error":
                return _unavailable(result)
            if result.status != "ok":
                return _ended(index, len(tests), result)
            if compare is not None and not compare(result.stdout, test["stdout"], test.get("tolerance")):
                return _failed(index, len(tests), "wrong", got=result.stdout[:_SHOWN_CHARS])
            outputs.append(result.stdout)
    if compare is None:
        return _checked_by_source(checker, [test["stdin"] for test in tests], outputs, tests, "stdout", worker)
    return _passed(len(tests))


def grade_function(
    source: str, name: str, tests: Sequence[Mapping[str, Any]], worker: SandboxWorker, checker: Checker = None
) -> Verdict:
    """Call `name` with the `args` of each test and compare with its `result`: JSON values, exact types.

    A test may carry `tolerance` (for floats only, which then take whole numbers too; see `checkers.json_equal`) and
    `public`, as for programs.
    """
    if problem := function_problem(tests, checker):
        return problem
    compare = comparison(checker, FUNCTION_CHECKERS, "equal")
    result = worker.run(Job.function(source, name, [test["args"] for test in tests]))
    values = _values(tests, result)
    if isinstance(values, Verdict):
        return values
    if compare is None:
        inputs = [list(test["args"]) for test in tests]
        return _checked_by_source(checker, inputs, values, tests, "result", worker)
    return _compare(tests, values, compare)


def grade_files(
    files: Mapping[str, str],
    protected: Mapping[str, str],
    calls: Sequence[Mapping[str, Any]],
    worker: SandboxWorker,
) -> Verdict:
    """Call functions of a small repository: `calls` are `{"module", "function", "args", "result"}`.

    `protected` files are put back over whatever the policy made of them, and what steers an interpreter or a test
    runner is taken out unless it is protected (see `restore`). No test runner runs inside: a solution can patch any
    runner that shares its interpreter, and for the same reason a call must reach the function that is judged, never a
    protected function that judges it and reports. A path that leaves the folder makes the answer wrong.
    """
    if problem := calls_problem(calls):
        return problem
    try:
        job = Job.in_files(
            restore(files, protected),
            [Call(call["function"], call["args"], call["module"]) for call in calls],
        )
    except ValueError as error:
        return Verdict(False, "bad_path", {"error": str(error)})
    values = _values(calls, worker.run(job))
    return values if isinstance(values, Verdict) else _compare(calls, values, FUNCTION_CHECKERS["equal"])


def program_problem(tests: Sequence[Mapping[str, Any]], checker: Checker = None) -> Verdict | None:
    """The invalid verdict on every answer to a problem whose tests cannot judge a program; None where they can."""
    return _problem(tests, checker, PROGRAM_CHECKERS, "tokens", ("stdin", "stdout"))


def function_problem(tests: Sequence[Mapping[str, Any]], checker: Checker = None) -> Verdict | None:
    """As `program_problem`, for tests that call a function."""
    return _problem(tests, checker, FUNCTION_CHECKERS, "equal", ("args", "result"))


def calls_problem(calls: Sequence[Mapping[str, Any]]) -> Verdict | None:
    """As `program_problem`, for the checks of a repository."""
    for number, call in enumerate(calls):
        if not isinstance(call.get("module"), str) or not isinstance(call.get("function"), str):
            error = f"test {number}: expected names as 'module' and 'function', got {str(call)[:80]}"
            return Verdict.invalid("bad_tests", error=error)
    return function_problem(calls)


def _problem(
    tests: Sequence[Mapping[str, Any]],
    checker: Checker,
    known: Mapping[str, Compare],
    default: str,
    fields: tuple[str, str],
) -> Verdict | None:
    try:
        compare = comparison(checker, known, default)
        _check_tests(tests, *fields, compare)
    except CheckerError as error:
        return Verdict.invalid("bad_tests", error=str(error))
    if not tests:
        return Verdict.invalid("no_tests", error="expected at least one test, got none")
    if all(test.get("public") for test in tests):
        return Verdict.invalid("no_hidden_tests", error="the prompt shows every test; at least one must be hidden")
    if compare is not None and fields[1] == "stdout" and not any(str(test["stdout"]).split() for test in tests):
        return Verdict.invalid("bad_tests", error="every expected output is empty: doing nothing would pass")
    return None


def _check_tests(
    tests: Sequence[Mapping[str, Any]], given: str, wanted: str, compare: Compare | None
) -> None:
    """Raises `CheckerError` for a test that cannot be run or compared: the problem's fault, not the answer's."""
    kinds, kind = ((str,), "a text") if given == "stdin" else ((list, tuple), "a list")
    for number, test in enumerate(tests):
        _need(isinstance(test.get(given), kinds), f"test {number}: expected {kind} as {given!r}, got {str(test)[:80]}")
        _need(compare is None or wanted in test, f"test {number}: expected {wanted!r}, got {str(test)[:80]}")
        if wanted == "stdout" and compare is not None:
            several = compare is PROGRAM_CHECKERS["one_of"]
            texts = test[wanted] if several else [test[wanted]]
            good = isinstance(texts, list) and all(isinstance(text, str) for text in texts)
            _need(good, f"test {number}: expected {'a list of texts' if several else 'a text'} as 'stdout'")
        tolerance = test.get("tolerance")
        number_like = isinstance(tolerance, int | float) and not isinstance(tolerance, bool)
        fine = tolerance is None or (number_like and 0 <= tolerance <= 1)
        _need(fine, f"test {number}: 'tolerance' must be a number from 0 to 1, got {str(tolerance)[:80]}")
        try:
            json.dumps([test[given], test.get(wanted)], allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise CheckerError(f"test {number} is not JSON: {error}") from None


def _need(condition: bool, message: str) -> None:
    if not condition:
        raise CheckerError(message)


def _values(tests: Sequence[Mapping[str, Any]], result: JobResult) -> list[Any] | Verdict:
    """What each call returned, or the verdict on a job that did not get so far."""
    if result.status == "sandbox_error":
        return _unavailable(result)
    if result.status != "ok":
        return _ended(0, len(tests), result)
    if len(result.results) != len(tests):
        return _failed(
            0, len(tests), "runtime_error", f"{len(result.results)} results for {len(tests)} calls"
        )
    for index, returned in enumerate(result.results):
        if not returned.ok:
            return _failed(index, len(tests), "runtime_error", returned.error or "")
    return [returned.value for returned in result.results]


def _compare(tests: Sequence[Mapping[str, Any]], values: Sequence[Any], compare: Compare) -> Verdict:
    for index, (test, value) in enumerate(zip(tests, values, strict=True)):
        try:
            right = compare(value, test["result"], test.get("tolerance"))
        except CheckerError as error:
            return Verdict.invalid("bad_tests", error=str(error))
        if not right:
            return _failed(index, len(tests), "wrong", got=_show(value))
    return _passed(len(tests))


def _checked_by_source(
    checker: Checker,
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    tests: Sequence[Mapping[str, Any]],
    wanted: str,
    worker: SandboxWorker,
) -> Verdict:
    assert isinstance(checker, Mapping)
    for index, output in enumerate(outputs):
        if not _is_plain(output):
            return _failed(index, len(tests), "wrong", got=_show(output))
    references = [test[wanted] for test in tests] if all(wanted in test for test in tests) else None
    said = run_checker(checker["source"], list(zip(inputs, outputs, strict=True)), references, worker)
    if isinstance(said, Verdict):
        return said
    if False in said:
        index = said.index(False)
        return _failed(index, len(tests), "wrong", got=_show(outputs[index]))
    return _passed(len(tests))


def _is_plain(value: Any) -> bool:
    """Whether a value that came out of the sandbox can go into it again (no NaN, not nested without end)."""
    try:
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        return False
    return True


def _show(value: Any) -> str:
    try:
        return repr(value)[:_SHOWN_CHARS]
    except RecursionError:
        return "a value that is nested too deep to be shown"


def _passed(count: int) -> Verdict:
    return Verdict(True, "ok", {"passed": count, "total": count})


def _ended(index: int, total: int, result: JobResult) -> Verdict:
    return _failed(index, total, result.status, result.error, stderr=result.stderr[-_SHOWN_CHARS:])


def _failed(index: int, total: int, reason: str, error: str = "", **more: Any) -> Verdict:
    evidence = {"passed": index, "total": total, "first_failure": index, "error": error, **more}
    return Verdict(False, reason, evidence)


def _unavailable(result: JobResult) -> Verdict:
    return Verdict.invalid("sandbox_error", error=result.error)
