"""JSON as untrusted writers must write it: what readers of JSON disagree about is refused, not settled."""

from __future__ import annotations

import json
from typing import Any


def loads(text: str) -> Any:
    """The one value that `text` is. Raises `ValueError` for anything else: also for a name that stands twice in one
    object, NaN and infinity, lone surrogates, and what nests deeper than the interpreter can follow.
    """
    try:
        value = json.loads(text, object_pairs_hook=distinct_names, parse_constant=no_constant)
        # A lone surrogate (`"\\ud800"`) parses, and breaks the first thing that encodes it.
        json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError(str(error)) from error
    return value


def distinct_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For `object_pairs_hook`: which of two equal names counts is a matter of taste among readers of JSON."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return found


def no_constant(name: str) -> None:
    """For `parse_constant`: NaN and infinity, which Python reads and JSON does not have."""
    raise ValueError(f"{name} is not a number of JSON")
