"""Small operations on numbers, texts and lists, and the pipelines that compose them.

An operation is known three ways that must agree: the phrase in the prompt, the line of Python, and a trusted
callable that computes the expected results here in the parent. No generated text is executed on this side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["number", "text", "list"]
Step = tuple[str, Any]
"""Name of an operation and its constant, or None."""

VARIABLE: dict[Kind, str] = {"number": "x", "text": "s", "list": "v"}
DIGITS = tuple(range(2, 10))
LETTERS = tuple("aeionrst")
FAILED = "<failed>"
"""Result of a pipeline that raises, such as the largest of no numbers."""


@dataclass(frozen=True)
class Operation:
    """`phrase` and `line` are templates over the variable `v` and the constant `k`."""

    name: str
    takes: Kind
    gives: Kind
    phrase: str
    line: str
    run: Callable[[Any, Any], Any]
    constants: tuple[Any, ...] = ()


_NUMBERS = (
    ("times", "times {k}", "{v} * {k}", lambda v, k: v * k),
    ("plus", "plus {k}", "{v} + {k}", lambda v, k: v + k),
    ("minus", "minus {k}", "{v} - {k}", lambda v, k: v - k),
    ("mod", "mod {k}", "{v} % {k}", lambda v, k: v % k),
)
_TEXTS = (
    ("upper", "upper case", "{v}.upper()", lambda v, k: v.upper()),
    ("flip", "reverse", "{v}[::-1]", lambda v, k: v[::-1]),
    ("twice", "repeat twice", "{v} * 2", lambda v, k: v * 2),
    ("drop", 'drop "{k}"', '{v}.replace("{k}", "")', lambda v, k: v.replace(k, "")),
    ("add", 'add "{k}"', '{v} + "{k}"', lambda v, k: v + k),
)
_TEXT_TO_NUMBER = (
    ("length", "length", "len({v})", lambda v, k: len(v)),
    ("occurs", 'count "{k}"', '{v}.count("{k}")', lambda v, k: v.count(k)),
)
_LISTS = (
    ("even", "keep even", "[x for x in {v} if x % 2 == 0]", lambda v, k: [x for x in v if x % 2 == 0]),
    ("odd", "keep odd", "[x for x in {v} if x % 2 == 1]", lambda v, k: [x for x in v if x % 2 == 1]),
    ("above", "keep above {k}", "[x for x in {v} if x > {k}]", lambda v, k: [x for x in v if x > k]),
    ("below", "keep below {k}", "[x for x in {v} if x < {k}]", lambda v, k: [x for x in v if x < k]),
    ("each_times", "each times {k}", "[x * {k} for x in {v}]", lambda v, k: [x * k for x in v]),
    ("each_plus", "each plus {k}", "[x + {k} for x in {v}]", lambda v, k: [x + k for x in v]),
    ("sort", "sort", "sorted({v})", lambda v, k: sorted(v)),
    ("backwards", "reverse", "{v}[::-1]", lambda v, k: v[::-1]),
)
_LIST_TO_NUMBER = (
    ("sum", "sum", "sum({v})", lambda v, k: sum(v)),
    ("largest", "largest", "max({v})", lambda v, k: max(v)),
    ("smallest", "smallest", "min({v})", lambda v, k: min(v)),
    ("count", "count", "len({v})", lambda v, k: len(v)),
)


def _catalogue() -> dict[str, Operation]:
    groups: tuple[tuple[Kind, Kind, tuple[Any, ...], Any], ...] = (
        ("number", "number", DIGITS, _NUMBERS),
        ("text", "text", LETTERS, _TEXTS),
        ("text", "number", LETTERS, _TEXT_TO_NUMBER),
        ("list", "list", DIGITS, _LISTS),
        ("list", "number", (), _LIST_TO_NUMBER),
    )
    return {
        name: Operation(name, takes, gives, phrase, line, run, constants if "{k}" in phrase else ())
        for takes, gives, constants, rows in groups
        for name, phrase, line, run in rows
    }


OPERATIONS = _catalogue()
BY_INPUT: dict[Kind, tuple[Operation, ...]] = {
    kind: tuple(operation for operation in OPERATIONS.values() if operation.takes == kind)
    for kind in VARIABLE
}


def phrase(step: Step) -> str:
    return OPERATIONS[step[0]].phrase.format(k=step[1])


def expression(step: Step, variable: str) -> str:
    """The right-hand side of the step's line of Python."""
    return OPERATIONS[step[0]].line.format(v=variable, k=step[1])


def apply(steps: Sequence[Step], value: Any) -> Any:
    """The result of the steps on a value, or `FAILED`."""
    try:
        for name, constant in steps:
            value = OPERATIONS[name].run(value, constant)
    except ValueError:
        return FAILED
    return value


def result_kind(kind: Kind, steps: Sequence[Step]) -> Kind | None:
    """What the steps give from a `kind`, or None if their types do not fit."""
    for name, _ in steps:
        if OPERATIONS[name].takes != kind:
            return None
        kind = OPERATIONS[name].gives
    return kind


def mutants(kind: Kind, steps: Sequence[Step]) -> Iterator[tuple[Step, ...]]:
    """Every program one slip away: an operation replaced by another that fits, a constant moved to a
    neighbour, a step left out, two neighbouring steps swapped. All are well typed; some may mean the same."""
    steps = tuple(steps)
    for place, (name, constant) in enumerate(steps):
        here, operation = steps[:place], OPERATIONS[name]
        rest = steps[place + 1 :]
        for other in BY_INPUT[operation.takes]:
            if other is not operation and other.gives == operation.gives:
                kept = constant if constant in other.constants else (other.constants or (None,))[0]
                yield (*here, (other.name, kept), *rest)
        if constant is not None:
            where = operation.constants.index(constant)
            for near in {max(where - 1, 0), min(where + 1, len(operation.constants) - 1)} - {where}:
                yield (*here, (name, operation.constants[near]), *rest)
        if operation.takes == operation.gives:
            yield (*here, *rest)
        if rest and result_kind(kind, swapped := (*here, rest[0], steps[place], *rest[1:])):
            yield swapped
