"""What a fuzz target is, and what must hold of it for every input."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

MAX_BYTES = 10_000
LIMIT_S = 1.0
"""CPU seconds that one call may take on MAX_BYTES."""

T = TypeVar("T")
P = ParamSpec("P")


class Broken(AssertionError):
    """A property that does not hold; the message names the target and shows the input."""


@dataclass(frozen=True)
class Target:
    """`run` makes calls (each by `timed`) with what the text says and returns what can be compared: everything that a
    call is known to raise is caught inside it, so that what escapes is a bug. NUL separates the parts of a text.
    `seeds` are inputs to begin with."""

    name: str
    run: Callable[[str], object]
    seeds: tuple[str, ...]


def text_of(data: bytes) -> str:
    """Any bytes as text: what is no UTF-8 becomes lone surrogates, which JSON can carry as well."""
    return data[:MAX_BYTES].decode("utf-8", "surrogateescape")


def bytes_of(text: str) -> bytes:
    """What `text_of` was made from; other lone surrogates as the bytes that no UTF-8 has."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def timed(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What the call returns. Raises `Broken` when it takes longer than LIMIT_S."""
    started = time.process_time()
    result = function(*args, **kwargs)
    spent = time.process_time() - started
    if spent > LIMIT_S:
        raise Broken(f"{getattr(function, '__name__', function)} took {spent:.2f} s with {args!r:.300}")
    return result


def check(target: Target, text: str) -> object:
    """Runs a target twice. Raises `Broken` when a call takes too long, an exception escapes, or the second run says
    something else."""
    results = []
    for _ in range(2):
        try:
            results.append(target.run(text))
        except Exception as error:
            what = error if isinstance(error, Broken) else f"{type(error).__name__} escapes: {error}"
            raise Broken(f"{target.name}: {what}; input {text[:400]!r}") from error
    if repr(results[0]) != repr(results[1]):
        raise Broken(f"{target.name}: first {results[0]!r}, then {results[1]!r}; input {text[:400]!r}")
    return results[0]
