"""Generated mini-repositories with one injected bug, and trusted expectations of what they should compute.

A function is a comment that says what it does, and one line of code for each step. Steps are data: the parent
computes the expected results from them, and no generated text is executed on this side.
"""

from __future__ import annotations

import operator
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from specialists.discriminate import choose_inputs

Step = tuple[str, str, str | int]
"""Left operand, word of the operator, right operand. An operand is a number, an argument (`a`, `b`), `c` for
the result of the step before, or on the left the name of a function that is called with both arguments."""

FAMILIES = ("operator", "constant", "argument", "comparison")
NAMES = ("area", "cost", "gain", "load", "pay", "rate", "score", "size", "tax", "total")
CONSTANTS = tuple(range(2, 10))
GRID = tuple((a, b) for a in range(10) for b in range(10))
WIDE_GRID = tuple((a, b) for a in range(-20, 30) for b in range(-20, 30))
"""Where a bug shows on too few small arguments."""
TESTS = "tests.txt"
UNSEEN = 3
"""Hidden checks on arguments that no visible test has, on each of which the bug shows."""

ARITHMETIC = {"plus": ("+", operator.add), "minus": ("-", operator.sub), "times": ("*", operator.mul)}
COMPARISON = {
    "above": (">", operator.gt),
    "below": ("<", operator.lt),
    "at least": (">=", operator.ge),
    "at most": ("<=", operator.le),
}
OPERATORS = {**ARITHMETIC, **COMPARISON}


@dataclass(frozen=True)
class Function:
    name: str
    module: str
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Bug:
    """Step number `step` of the function is written as `wrong`."""

    function: str
    step: int
    wrong: Step


@dataclass(frozen=True)
class Problem:
    """The functions that matter (the broken one first, then who calls it) and what is broken."""

    functions: tuple[Function, ...]
    bug: Bug


@dataclass(frozen=True)
class Repository:
    """A problem with its surroundings. `visible` and `hidden` are checks: module, function, args, result."""

    files: Mapping[str, str]
    visible: Sequence[Mapping[str, Any]]
    hidden: Sequence[Mapping[str, Any]]
    symptom: str
    fix: Mapping[str, Any]


def draw_problem(rng: random.Random, family: str, level: int) -> Problem:
    """A function and a slip of the family in it, such that tests can tell every slip from the right code."""
    while True:
        name, caller = rng.sample(NAMES, 2)
        module = rng.choice(("calc", "shop")) if level > 1 else "calc"
        target = Function(
            name, module, _steps(rng, 1 if level == 1 else 2, level < 3 and family == "comparison")
        )
        functions: tuple[Function, ...] = (target,)
        if level > 2:
            words = COMPARISON if family == "comparison" else ARITHMETIC
            step = (name, rng.choice(list(words)), rng.choice(CONSTANTS))
            above = Function(caller, "main", (step,))
            functions = (above, target) if family == "comparison" else (target, above)
        bugs = list(_slips(functions[0], (family,)))
        if bugs and not separating_inputs(functions)[1]:
            return Problem(functions, rng.choice(bugs))


def build(rng: random.Random, problem: Problem, level: int) -> Repository:
    """Adds the other functions, writes the files with the bug in them, and chooses the checks."""
    free = [name for name in NAMES if all(name != function.name for function in problem.functions)]
    rng.shuffle(free)
    functions: list[Function] = []
    for module in ("calc",) if level == 1 else ("calc", "shop"):
        pair = [function for function in problem.functions if function.module == module]
        while len(pair) < min(level, 2):
            pair.append(
                Function(free.pop(), module, _steps(rng, 1 if level == 1 else 2, rng.random() < 0.25))
            )
        rng.shuffle(pair)
        functions.extend(pair)
    functions[:0] = [function for function in problem.functions if function.module == "main"]

    bug = problem.bug
    right = _by_name(functions)
    wrong = {**right, bug.function: with_bug(right[bug.function], bug)}
    shown = next((one.name for one in functions if one.module == "main"), bug.function)
    telling = [args for args in GRID if evaluate(right, shown, args) != evaluate(wrong, shown, args)]
    visible = [_check(right, shown, rng.choice(telling))]
    visible += [_check(right, function.name, rng.choice(GRID)) for function in functions]
    hidden = [_check(right, bug.function, args) for args in separating_inputs(problem.functions)[0]]
    hidden += [_check(right, function.name, rng.choice(GRID)) for function in functions]
    hidden += _unseen(rng, right, wrong, bug.function, visible, hidden)

    listings = {module: _listing(module, functions) for module in sorted({one.module for one in functions})}
    place = (bug.function, bug.step)
    listing = listings[right[bug.function].module]
    fix = {
        "path": f"{right[bug.function].module}.py",
        "line": list(listing).index(place) + 1,
        "text": listing[place],
    }
    listing[place] = _line(wrong[bug.function], bug.step)
    files = {f"{module}.py": "\n".join(lines.values()) + "\n" for module, lines in listings.items()}
    files[TESTS] = "".join(f"{describe(check)} = {check['result']}\n" for check in visible)
    gives = evaluate(wrong, shown, visible[0]["args"])
    symptom = f"{describe(visible[0])} gives {gives}, want {visible[0]['result']}"
    return Repository(files, visible, hidden, symptom, fix)


def _unseen(
    rng: random.Random,
    right: Mapping[str, Function],
    wrong: Mapping[str, Function],
    name: str,
    visible: Sequence[Mapping[str, Any]],
    hidden: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Further checks where fewer than `UNSEEN` hidden ones show the bug on arguments that no visible test has: a repair
    of nothing but what the visible tests ask must fail."""
    shown = {tuple(check["args"]) for check in visible}
    asked = {tuple(check["args"]) for check in hidden if check["function"] == name}

    def telling(candidates: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        free = [args for args in candidates if args not in shown]
        return [args for args in free if evaluate(right, name, args) != evaluate(wrong, name, args)]

    missing = max(0, UNSEEN - len(asked.intersection(telling(GRID))))
    free = [args for args in telling(GRID) if args not in asked]
    if len(free) < missing:
        free = [args for args in telling(WIDE_GRID) if args not in asked]
    return [_check(right, name, args) for args in rng.sample(free, min(missing, len(free)))]


def separating_inputs(functions: Sequence[Function]) -> tuple[list[Any], set[Bug]]:
    """Arguments on which every single slip in the first function shows, and the slips that never do."""
    target, table = functions[0], _by_name(functions)
    candidates = list(GRID)
    random.Random(repr(functions)).shuffle(candidates)

    def result(bug: Bug | None) -> Any:
        changed = table if bug is None else {**table, target.name: with_bug(target, bug)}
        return lambda args: evaluate(changed, target.name, args)

    return choose_inputs(
        candidates, result(None), {bug: result(bug) for bug in _slips(target, FAMILIES)}, least=3
    )


def with_bug(function: Function, bug: Bug) -> Function:
    if function.name != bug.function:
        return function
    steps = (*function.steps[: bug.step], bug.wrong, *function.steps[bug.step + 1 :])
    return replace(function, steps=steps)


def evaluate(functions: Mapping[str, Function], name: str, args: Sequence[int]) -> Any:
    """What the function should return."""
    values: dict[str | int, Any] = {"a": args[0], "b": args[1]}
    for left, word, right in functions[name].steps:
        first = values[left] if left in values else evaluate(functions, left, args)
        second = right if isinstance(right, int) else values[right]
        values["c"] = OPERATORS[word][1](first, second)
    return values["c"]


def describe(check: Mapping[str, Any]) -> str:
    return f"{check['function']}({', '.join(map(repr, check['args']))})"


def _steps(rng: random.Random, count: int, compares: bool) -> tuple[Step, ...]:
    steps: list[Step] = []
    for place in range(count):
        words = COMPARISON if compares and place == count - 1 else ARITHMETIC
        right: str | int = "b" if rng.random() < 0.5 else rng.choice(CONSTANTS)
        steps.append(("c" if place else "a", rng.choice(list(words)), right))
    return tuple(steps)


def _slips(function: Function, families: Sequence[str]) -> Iterator[Bug]:
    """Every bug of the families that fits in the function."""
    for place, step in enumerate(function.steps):
        for family in families:
            for wrong in dict.fromkeys(_slipped(step, family)):
                yield Bug(function.name, place, wrong)


def _slipped(step: Step, family: str) -> Iterator[Step]:
    left, word, right = step
    other = {"a": "b", "b": "a"}
    if family in ("operator", "comparison"):
        words = ARITHMETIC if family == "operator" else COMPARISON
        if word in words:
            yield from ((left, another, right) for another in words if another != word)
    elif family == "constant":
        if isinstance(right, int):
            yield from ((left, word, right + 1), (left, word, right - 1))
    else:
        if left in other:
            yield (other[left], word, right)
        if isinstance(right, str):
            yield (left, word, other[right])
            if left in other and word not in ("plus", "times"):
                yield (right, word, left)


def _by_name(functions: Sequence[Function]) -> dict[str, Function]:
    return {function.name: function for function in functions}


def _check(functions: Mapping[str, Function], name: str, args: Sequence[int]) -> dict[str, Any]:
    return {
        "module": functions[name].module,
        "function": name,
        "args": list(args),
        "result": evaluate(functions, name, args),
    }


def _line(function: Function, place: int) -> str:
    left, word, right = function.steps[place]
    operand = left if left in ("a", "b", "c") else f"{left}(a, b)"
    verb = "return" if place == len(function.steps) - 1 else "c ="
    return f"    {verb} {operand} {OPERATORS[word][0]} {right}"


def _comment(function: Function) -> str:
    """What the function does, in words."""
    parts = []
    for left, word, right in function.steps:
        subject = {"a": "a ", "b": "b ", "c": ""}.get(left, f"{left} of a and b, ")
        parts.append(f"{subject}{word} {right}")
    return f"# {function.name}: {', '.join(parts)}"


def _listing(module: str, functions: Sequence[Function]) -> dict[tuple[str, int] | str, str]:
    """The lines of a module in order; those that do something go by function and step."""
    lines: dict[tuple[str, int] | str, str] = {}
    known = _by_name(functions)
    for function in functions:
        if function.module != module:
            continue
        for left, _, _ in function.steps:
            if left in known:
                lines[f"import {left}"] = f"from {known[left].module} import {left}"
        lines[f"comment {function.name}"] = _comment(function)
        lines[f"def {function.name}"] = f"def {function.name}(a, b):"
        lines.update({(function.name, place): _line(function, place) for place in range(len(function.steps))})
    return lines
