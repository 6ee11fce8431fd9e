"""Mathematics: is this final answer the truth?

Two stages. A literal truth (a number, tuple, set, interval or list) is compared exactly, in microseconds,
and the answer must be literal too. Only for a truth that is an expression (`\\sqrt{2}`, `x^2+1`) are sympy
and Math-Verify asked, inside the killable child: both can hang in a way that only SIGKILL ends, and sympy's
string parsers run code.
"""

from __future__ import annotations

import re

from rewards.math_literal import MAX_CHARS, Group, Literal, NotLiteral, clean, parse_literal, relations
from rewards.sandbox import Job, SandboxWorker
from rewards.types import Verdict

OPINION = "rewards.math_opinion:compare"

# Operations that a final answer has carried out, unless the truth itself is written with them.
_UNEVALUATED = re.compile(
    r"\\(?:sum|prod|int|iint|oint|lim|d?t?binom|det|max|min|gcd|lcm|sup|inf)(?![A-Za-z])|!"
)
_LONG_EXPONENT = re.compile(r"\^ ?(?:\{[^{}]*\^|\{[^{}]*[0-9]{3}|\([^()]*\^)|\*\*.*\*\*|[0-9]{25}")


def grade_math(answer: str, truth: str, worker: SandboxWorker | None) -> Verdict:
    """Compare an extracted answer (see `extract.boxed_answer`) with the task's truth.

    Correct is None (invalid) when the truth is an expression and there is no worker, when the child times
    out or fails, or when the truth itself cannot be read; `evidence["opinions"]` holds what sympy and
    Math-Verify said.
    """
    if len(answer) > MAX_CHARS:
        return Verdict(False, "too_long", {"chars": len(answer)})
    try:
        gold = parse_literal(truth)
    except NotLiteral:
        return _grade_expression(answer, truth, worker)
    return _grade_literal(answer, gold)


def _grade_literal(answer: str, gold: Literal) -> Verdict:
    try:
        given = parse_literal(answer)
    except NotLiteral as error:
        return Verdict(False, error.reason, {"answer": answer})
    evidence = {"answer": _show(given), "truth": _show(gold)}
    return Verdict(given == gold, "equal" if given == gold else "different", evidence)


def _show(value: Literal) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Group):
        return value.opening + ", ".join(_show(item) for item in value.items) + value.closing
    return str(value)


def _grade_expression(answer: str, truth: str, worker: SandboxWorker | None) -> Verdict:
    given, gold = clean(answer), clean(truth)
    if given.replace(" ", "") == gold.replace(" ", ""):
        return Verdict(True, "same_text", {"answer": given})
    if not given:
        return Verdict(False, "empty")
    if relations(given) != relations(gold):
        return Verdict(False, "relation", {"answer": given})
    if set(_UNEVALUATED.findall(given)) - set(_UNEVALUATED.findall(gold)):
        return Verdict(False, "unevaluated", {"answer": given})
    if _LONG_EXPONENT.search(given) and not _LONG_EXPONENT.search(gold):
        # Found before the child would burn its time limit on it: a time-out would mask the sample.
        return Verdict(False, "exponent_too_large", {"answer": given})
    if worker is None:
        return Verdict.invalid(
            "no_sandbox_worker", detail="the truth is an expression; comparing it needs a worker"
        )
    result = worker.run(Job.trusted_call(OPINION, given, gold))
    if result.status != "ok":
        return Verdict.invalid(
            f"math_grader_{result.status}", error=result.error, stderr=result.stderr[-500:]
        )
    opinions = result.results[0].value
    evidence = {"answer": given, "truth": gold, "opinions": opinions}
    if not opinions["truth_parsed"]:
        return Verdict(None, "truth_not_understood", evidence)
    if not opinions["answer_parsed"]:
        return Verdict(False, "not_understood", evidence)
    # sympy is exact; Math-Verify rounds to six decimals and takes the last of a chain. It speaks where
    # sympy cannot.
    decisive = opinions["sympy"] if opinions["sympy"] is not None else opinions["math_verify"]
    if decisive is None:
        return Verdict(None, "no_opinion", evidence)
    return Verdict(decisive, "equivalent" if decisive else "different", evidence)
