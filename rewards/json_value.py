"""The grader of answers that are one JSON value (RFC 8259), strictly parsed and compared by value."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from rewards.strict_json import distinct_names, no_constant
from rewards.types import Verdict

MAX_CHARS = 20_000
MAX_DEPTH = 32
MAX_EXPONENT = 400
_FENCE = re.compile(r"^```(?:json)?[ \t]*\n(.*)\n[ \t]*```$", re.DOTALL | re.IGNORECASE)


class NotJson(ValueError):
    """The text is not one JSON value within the limits; the message says what is wrong."""


def grade_json(answer: str, truth: Any) -> Verdict:
    """Equal as values: objects without regard to the order of their keys, arrays in order, numbers by their value
    (1 is 1.0), and true is not 1. The answer is the value alone, or in one fence tagged `json`; text around it, two
    values, a key twice, NaN, and trailing commas are wrong.
    """
    try:
        given = parse_json(answer)
    except NotJson as error:
        return Verdict(False, "not_json", {"detail": str(error)})
    same = same_value(given, truth)
    return Verdict(same, "equal" if same else "different", {"answer": answer.strip()[:200]})


def parse_json(text: str) -> Any:
    """The one JSON value in `text`; numbers that are no integers as `Decimal`. Raises `NotJson`."""
    fenced = _FENCE.match(text.strip())
    body = fenced[1] if fenced else text.strip()
    if len(body) > MAX_CHARS:
        raise NotJson(f"{len(body)} characters, at most {MAX_CHARS}")
    try:
        value = json.loads(
            body,
            object_pairs_hook=distinct_names,
            parse_constant=no_constant,
            parse_float=_number,
            parse_int=lambda digits: int(_number(digits)),
        )
    except RecursionError as error:
        raise NotJson(f"nested deeper than {MAX_DEPTH}") from error
    except ValueError as error:
        raise NotJson(str(error)) from error
    if _depth(value) > MAX_DEPTH:
        raise NotJson(f"nested deeper than {MAX_DEPTH}")
    return value


def same_value(given: Any, truth: Any) -> bool:
    """Equality of JSON values; the type of a value counts, but for the two ways to write a number."""
    if isinstance(given, bool) or isinstance(truth, bool):
        return given is truth
    if isinstance(given, int | Decimal) and isinstance(truth, int | float | Decimal):
        return Decimal(given) == (Decimal(repr(truth)) if isinstance(truth, float) else Decimal(truth))
    if isinstance(given, Mapping) and isinstance(truth, Mapping):
        return given.keys() == truth.keys() and all(same_value(given[key], truth[key]) for key in given)
    if isinstance(given, list) and isinstance(truth, list | tuple):
        return len(given) == len(truth) and all(map(same_value, given, truth))
    return type(given) is type(truth) and bool(given == truth)


def json_problem(truth: Any) -> str | None:
    """Why `truth` is no JSON value to compare with; None where it is one."""
    try:
        parse_json(json.dumps(truth, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        return f"expected a JSON value, got {truth!r:.60}: {error}"
    return None


def _number(digits: str) -> Decimal:
    number = Decimal(digits)
    # 1e999999999 parses at once and never compares.
    if len(digits) > MAX_EXPONENT or abs(number.adjusted()) > MAX_EXPONENT:
        raise NotJson(f"a number beyond 10^{MAX_EXPONENT}")
    return number


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level:
        depth += 1
        level = [
            inner
            for item in level
            for inner in (item.values() if isinstance(item, dict) else item if isinstance(item, list) else ())
        ]
    return depth
