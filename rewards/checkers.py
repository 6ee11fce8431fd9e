"""When more than one output is right: the checkers that a problem may name, and trusted checkers as source.

A named checker is ours and runs here, on data. A checker that comes as source (`def check(input, output) -> bool`) is
trusted to be honest, not to be harmless: it runs in the sandbox, in a process that never held the solution, which it
sees only as text or JSON.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rewards.sandbox import Job, SandboxWorker
from rewards.types import Verdict

MAX_DEPTH = 64
CHECK_FUNCTION = "check"

_TOKEN = re.compile(r"[^ \t\n\r\v\f]+")
_DECIMAL = re.compile(r"[+-]?(?:[0-9]{1,400}(?:\.[0-9]{0,400})?|\.[0-9]{1,400})(?:[eE][+-]?[0-9]{1,3})?")

Compare = Callable[[Any, Any, float | None], bool]
"""(output, expected, tolerance) -> right or wrong. Output and expected value are text (programs) or JSON values."""

Checker = str | Mapping[str, str] | None
"""A name, `{"source": "def check(input, output): ..."}`, or None for the usual comparison."""


class CheckerError(ValueError):
    """The problem's checker or its tests are not what they must be; the message says what was expected."""


def tokens_equal(output: str, expected: str, tolerance: float | None = None) -> bool:
    """Equal tokens in the same order; ASCII white space separates, every other character counts (NUL, escapes,
    no-break spaces).

    With `tolerance`, an expected token with a point or an exponent is met by a decimal number at most
    `tolerance * max(1, |expected|)` away (absolute and relative); whole numbers and words stay exact, and NaN and
    infinity are words.
    """
    given, wanted = _TOKEN.findall(output), _TOKEN.findall(expected)
    return len(given) == len(wanted) and all(
        a == b or (tolerance is not None and _close_decimals(a, b, tolerance))
        for a, b in zip(given, wanted, strict=True)
    )


def _close_decimals(given: str, wanted: str, tolerance: float) -> bool:
    if not _DECIMAL.fullmatch(given) or not _DECIMAL.fullmatch(wanted) or not set(wanted) & set(".eE"):
        return False
    # An exponent can take both to infinity, where all are equal.
    return math.isfinite(float(wanted)) and _close(float(given), float(wanted), tolerance)


def json_equal(got: Any, expected: Any, tolerance: float | None = None, depth: int = 0) -> bool:
    """Equal JSON values with equal types: `True` is not 1, 1 is not 1.0, tuples have become lists. NaN
    equals nothing, and what is nested deeper than 64 is not compared but wrong.

    With `tolerance`, an expected float is met by any number (never a boolean) at most
    `tolerance * max(1, |expected|)` away.
    """
    if depth > MAX_DEPTH:
        return False
    if isinstance(expected, float) and tolerance is not None and type(got) in (int, float):
        return _close(got, expected, tolerance)
    if type(got) is not type(expected):
        return False
    if isinstance(expected, list):
        return len(got) == len(expected) and all(
            json_equal(a, b, tolerance, depth + 1) for a, b in zip(got, expected, strict=True)
        )
    if isinstance(expected, dict):
        return got.keys() == expected.keys() and all(
            json_equal(got[key], expected[key], tolerance, depth + 1) for key in expected
        )
    return bool(got == expected)


def _close(got: float, expected: float, tolerance: float) -> bool:
    # An infinite bound would be met by everything, so only finite numbers are near each other; NaN fails each test.
    bound = tolerance * max(1.0, abs(expected))
    try:
        return got == expected or (math.isfinite(bound) and abs(got - expected) <= bound)
    except OverflowError:  # an integer beyond every float
        return False


def _one_of(compare: Compare) -> Compare:
    def check(output: Any, expected: Any, tolerance: float | None) -> bool:
        if not isinstance(expected, list):
            raise CheckerError("checker 'one_of' needs a list of accepted values as the expected one")
        return any(compare(output, accepted, tolerance) for accepted in expected)

    return check


def _lines(output: str, expected: str, tolerance: float | None) -> bool:
    given, wanted = _line_list(output), _line_list(expected)
    return len(given) == len(wanted) and all(
        tokens_equal(a, b, tolerance) for a, b in zip(given, wanted, strict=True)
    )


def _lines_in_any_order(output: str, expected: str, tolerance: float | None) -> bool:
    given, wanted = (
        Counter(" ".join(_TOKEN.findall(line)) for line in _line_list(text)) for text in (output, expected)
    )
    return given == wanted


def _line_list(text: str) -> list[str]:
    """The lines, without empty ones at the end."""
    lines = text.replace("\r\n", "\n").split("\n")
    while lines and not _TOKEN.search(lines[-1]):
        lines.pop()
    return lines


def _caseless(output: str, expected: str, tolerance: float | None) -> bool:
    return tokens_equal(_lower(output), _lower(expected), tolerance)


def _lower(text: str) -> str:
    """Lower case for ASCII letters only: no other letter may become one (the Kelvin sign would become k)."""
    return re.sub("[A-Z]+", lambda match: match[0].lower(), text)


def _items_in_any_order(output: Any, expected: Any, tolerance: float | None) -> bool:
    if not isinstance(output, list) or not isinstance(expected, list):
        return False
    try:
        given, wanted = (
            Counter(json.dumps(item, sort_keys=True, allow_nan=False) for item in items)
            for items in (output, expected)
        )
    except (ValueError, RecursionError):
        return False
    return given == wanted


PROGRAM_CHECKERS: Mapping[str, Compare] = {
    "tokens": tokens_equal,
    "lines": _lines,
    "any_order": _lines_in_any_order,
    "caseless": _caseless,
    "one_of": _one_of(tokens_equal),
}
"""For stdout. `tokens`: the rule where nothing is named. `lines`: line breaks count. `any_order`: the same lines in any
order, exactly. `caseless`: YES is yes. `one_of`: the expected output is a list of accepted ones."""

FUNCTION_CHECKERS: Mapping[str, Compare] = {
    "equal": json_equal,
    "any_order": _items_in_any_order,
    "one_of": _one_of(json_equal),
}
"""For results. `equal`: the rule where nothing is named. `any_order`: a list of the same items, exactly. `one_of`: the
expected result is a list of accepted ones."""


def comparison(checker: Checker, known: Mapping[str, Compare], default: str) -> Compare | None:
    """How a problem's outputs are compared here; None for a checker that comes as source.

    Raises:
        CheckerError: for an unknown name, with the known ones, and for anything that is neither name nor source.
    """
    if checker is None:
        return known[default]
    if isinstance(checker, str) and checker in known:
        return known[checker]
    if isinstance(checker, Mapping) and set(checker) == {"source"} and isinstance(checker["source"], str):
        return None
    names = ", ".join(known)
    raise CheckerError(f"expected a checker of {names}, or an object with 'source' alone, got {str(checker)[:80]!r}")


def run_checker(
    source: str, pairs: Sequence[tuple[Any, Any]], references: Sequence[Any] | None, worker: SandboxWorker
) -> list[bool] | Verdict:
    """What `check(input, output)` of `source` says of each pair.

    A checker that raises, hangs or answers other than True or False is asked about the known good outputs
    (`references`): if it accepts those, the pair's output broke it and counts as wrong, else the verdict is invalid.
    """
    said = _ask(source, pairs, worker)
    if isinstance(said, list) and None not in said:
        return [answer is True for answer in said]
    if isinstance(said, Verdict) and said.reason == "sandbox_error":
        return said
    if references is not None:
        known = _ask(source, [(given, good) for (given, _), good in zip(pairs, references, strict=True)], worker)
        if isinstance(known, list) and all(answer is True for answer in known):
            return [answer is True for answer in said] if isinstance(said, list) else [False] * len(pairs)
    detail = said.evidence if isinstance(said, Verdict) else {"error": "it answered other than True or False"}
    return Verdict.invalid("checker_error", **detail)


def _ask(source: str, pairs: Sequence[tuple[Any, Any]], worker: SandboxWorker) -> list[bool | None] | Verdict:
    """True, False or None (no answer) for each pair; a verdict where the whole job failed."""
    result = worker.run(Job.function(source, CHECK_FUNCTION, pairs))
    if result.status == "sandbox_error":
        return Verdict.invalid("sandbox_error", error=result.error)
    if result.status != "ok" or len(result.results) != len(pairs):
        return Verdict.invalid("checker_error", error=f"{result.status}: {result.error} {result.stderr[-200:]}")
    return [one.value if one.ok and isinstance(one.value, bool) else None for one in result.results]
