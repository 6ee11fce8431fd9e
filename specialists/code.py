"""Code: write a small function or program from a description; hidden tests in the sandbox judge it."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from rewards.code import Language, function_problem, grade_function, grade_program, program_problem
from rewards.extract import FormatError, code_block, split_thinking
from rewards.sandbox import SandboxWorker
from rewards.types import Verdict
from rollout.environment import Environment, ToolSpec
from rollout.records import Attempt, Message, Mode, Task
from rollout.seeding import rng_for
from specialists.base import Kind as DomainKind
from specialists.base import Request, assistant, draw, task_id
from specialists.discriminate import choose_inputs
from specialists.operations import (
    BY_INPUT,
    LETTERS,
    VARIABLE,
    Kind,
    Step,
    apply,
    expression,
    mutants,
    phrase,
    result_kind,
)

KIND_OF_FAMILY: dict[str, Kind] = {"arithmetic": "number", "strings": "text", "lists": "list"}
READ: dict[Kind, str] = {
    "number": "int(input())",
    "text": "input()",
    "list": "[int(w) for w in input().split()]",
}
READS: dict[Kind, str] = {"number": "a number", "text": "a text", "list": "numbers"}
FUNCTION = "f"
TAGS: dict[str, Language] = {"python": "python", "cpp": "cpp", "c++": "cpp"}
"""Tags of a code block and the language that they stand for."""
CANDIDATES, TRIED = 400, 48

HABITS: dict[Mode, dict[str, int]] = {
    "direct": {"unfenced": 5, "skipped": 2, "misformed": 2, "prose": 1},
    "thinking": {"skipped": 5, "unfenced": 2, "swapped": 2, "prose": 1},
}
"""Bad habits and how often each is shown. `unfenced`: no code block. `skipped`: leaves out the first
operation. `swapped`: the first two operations in the wrong order. `misformed`: a program for a function, or a
function for a program. `prose`: words instead of code."""


class CodeDomain:
    """Compositions of small operations, as `def f(…)` or from stdin to stdout; level L composes L + 1.

    Own problems say in `environment` which `function` to call (none: a program), which `checker` says what is right
    where more than one output is, and in `languages` whether a program may be in C++ as well (`cpp`); their `tests` are
    as `rewards.code` reads them.
    """

    name = "code"
    kind: DomainKind = "verifiable"
    families: tuple[str, ...] = ("arithmetic", "strings", "lists", "program")
    tools: tuple[ToolSpec, ...] = ()
    max_turns = 1

    def generate(self, request: Request) -> Task:
        rng = rng_for("code", request.seed)
        family = rng.choice(self.families)
        level = rng.choice(list(request.levels))
        kind, steps = draw(rng, request.split, lambda r: _problem(r, family, level))
        inputs, _ = _tests(kind, steps)
        program = family == "program"
        variable = VARIABLE[kind]
        asked = ", then ".join(phrase(step) for step in steps)
        if program:
            prompt = f"Write a Python program that reads {READS[kind]} {variable}: {asked}, then print."
        else:
            prompt = f"Write a Python function {FUNCTION}({variable}): {asked}."
        return Task(
            id=task_id(self.name, family, (kind, steps), "en", request.mode),
            domain=self.name,
            messages=({"role": "user", "content": prompt},),
            mode=request.mode,
            family=family,
            tests=tuple(_test(value, apply(steps, value), program) for value in inputs),
            environment={
                "function": None if program else FUNCTION,
                "kind": kind,
                "steps": [list(step) for step in steps],
            },
            difficulty=level,
            provenance={"generator": "specialists.code", "seed": request.seed},
        )

    def demonstrate(self, task: Task, rng: random.Random, careful: bool) -> list[Message]:
        assert task.environment is not None
        kind = task.environment["kind"]
        steps = tuple((name, constant) for name, constant in task.environment["steps"])
        program = task.environment["function"] is None
        if careful:
            thought, content = _plan(kind, steps), _fenced(_source(kind, steps, program))
        else:
            weights = HABITS[task.mode]
            habit = rng.choices(list(weights), weights=list(weights.values()))[0]
            thought, content = _careless(habit, kind, steps, program)
        return [assistant(content, thought if task.mode == "thinking" else "")]

    def environment(self, task: Task, sandbox: SandboxWorker | None) -> Environment | None:
        return None

    def problem_of(self, task: Task) -> str | None:
        world = task.environment or {}
        function = world.get("function")
        if function is not None and not (isinstance(function, str) and function.isidentifier()):
            return f"expected the name of a function as environment.function, got {function!r}"
        find = program_problem if function is None else function_problem
        found = find(task.tests, world.get("checker"))
        return None if found is None else str(found.evidence["error"])

    def grade(self, attempt: Attempt, sandbox: SandboxWorker | None) -> Verdict:
        split = split_thinking(attempt.final, attempt.task.mode, attempt.finished)
        world = attempt.task.environment or {}
        function, checker = world.get("function"), world.get("checker")
        tags = TAGS if function is None and "cpp" in world.get("languages", ()) else {"python": TAGS["python"]}
        read = split if isinstance(split, FormatError) else _tagged_block(split.answer_text, tags)
        if isinstance(read, FormatError):
            return Verdict(False, read.name, {"detail": read.detail})
        if sandbox is None:
            return Verdict.invalid("no_sandbox", detail="code is judged in a sandbox, and none was given")
        source, language = read
        if function is None:
            return grade_program(source, attempt.task.tests, sandbox, checker, language)
        return grade_function(source, function, attempt.task.tests, sandbox, checker)


def _tagged_block(text: str, tags: Mapping[str, Language]) -> tuple[str, Language] | FormatError:
    """The one code block of the answer, and the language that its tag names."""
    refused = FormatError("wrong_language", f"expected a block tagged {' or '.join(tags)}")
    for tag, language in tags.items():
        block = code_block(text, tag)
        if not isinstance(block, FormatError):
            return block, language
        if block.name != "wrong_language":
            return block
    return refused


def _problem(rng: random.Random, family: str, level: int) -> tuple[Kind, tuple[Step, ...]]:
    """A pipeline whose result varies and that tests tell from every slip but an idle change of order."""
    while True:
        kind = KIND_OF_FAMILY[family] if family in KIND_OF_FAMILY else rng.choice(list(VARIABLE))
        steps = _steps(rng, kind, level + 1)
        if steps is None or (family == "program" and result_kind(kind, steps) == "list"):
            continue
        if _is_idle(kind, steps):
            continue
        inputs, same = _tests(kind, steps)
        reordered = all(sorted(map(repr, slip)) == sorted(map(repr, steps)) for slip in same)
        if reordered and len({repr(apply(steps, value)) for value in inputs}) > 1:
            return kind, steps


def _is_idle(kind: Kind, steps: tuple[Step, ...]) -> bool:
    """True if a few values do not show that every operation matters; most bad draws end here."""
    few = _candidates(kind)[:10]
    results = [apply(steps, value) for value in few]
    shorter = (steps[:place] + steps[place + 1 :] for place in range(len(steps)))
    return any(
        result_kind(kind, slip) and [apply(slip, value) for value in few] == results for slip in shorter
    )


def _steps(rng: random.Random, kind: Kind, length: int) -> tuple[Step, ...] | None:
    """Different operations that fit one after the other; None if the draw repeats itself."""
    steps: list[Step] = []
    for _ in range(length):
        operation = rng.choice(BY_INPUT[kind])
        steps.append((operation.name, rng.choice(operation.constants) if operation.constants else None))
        kind = operation.gives
    names = [name for name, _ in steps]
    additive = any(set(pair) == {"plus", "minus"} for pair in itertools.pairwise(names))
    return None if additive or len(set(names)) < length else tuple(steps)


@lru_cache(maxsize=4096)
def _tests(kind: Kind, steps: tuple[Step, ...]) -> tuple[list[Any], set[tuple[Step, ...]]]:
    """Inputs that reject every single slip, and the slips that mean the same. From the problem alone."""
    rng = rng_for("code tests", repr((kind, steps)))
    wrong = {mutant: (lambda value, mutant=mutant: apply(mutant, value)) for mutant in mutants(kind, steps)}
    return choose_inputs(rng.sample(_candidates(kind), TRIED), lambda value: apply(steps, value), wrong)


@lru_cache
def _candidates(kind: Kind) -> list[Any]:
    rng = rng_for("code candidates", kind)
    return [_value(rng, kind) for _ in range(CANDIDATES)]


def _value(rng: random.Random, kind: Kind) -> Any:
    if kind == "number":
        return rng.randint(-20, 60)
    if kind == "text":
        return "".join(rng.choices(rng.sample(LETTERS, rng.choice((2, 6))), k=rng.randint(4, 9)))
    return [rng.randint(0, 12) for _ in range(rng.randint(5, 8))]


def _test(value: Any, result: Any, program: bool) -> dict[str, Any]:
    if not program:
        return {"args": [value], "result": result}
    stdin = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return {"stdin": f"{stdin}\n", "stdout": f"{result}\n"}


def _source(kind: Kind, steps: Sequence[Step], program: bool) -> str:
    """One line for each step."""
    variable = VARIABLE[kind]
    lines = [f"{variable} = {expression(step, variable)}" for step in steps]
    if program:
        return "\n".join([f"{variable} = {READ[kind]}", *lines, f"print({variable})"])
    return "\n    ".join([f"def {FUNCTION}({variable}):", *lines, f"return {variable}"])


def _fenced(source: str) -> str:
    return f"```python\n{source}\n```"


def _plan(kind: Kind, steps: Sequence[Step]) -> str:
    return "Steps: " + "; ".join(expression(step, VARIABLE[kind]) for step in steps) + "."


def _careless(habit: str, kind: Kind, steps: tuple[Step, ...], program: bool) -> tuple[str, str]:
    """Thought and answer of a bad habit. A swap that changes nothing is no mistake, so a skip takes its
    place; where the first operation can not be left out, the fence is left out."""
    variable = VARIABLE[kind]
    swapped = (steps[1], steps[0], *steps[2:])
    if habit == "swapped" and (result_kind(kind, swapped) is None or swapped in _tests(kind, steps)[1]):
        habit = "skipped"
    if habit == "swapped":
        return f"First {expression(swapped[0], variable)}.", _fenced(_source(kind, swapped, program))
    if habit == "skipped" and result_kind(kind, steps[:1]) == kind:
        return f"Just {expression(steps[1], variable)}.", _fenced(_source(kind, steps[1:], program))
    if habit == "misformed":
        return "A quick draft.", _fenced(_source(kind, steps, not program))
    if habit == "prose":
        return "No code needed.", f"Take {variable}: " + ", ".join(phrase(step) for step in steps) + "."
    return "Easy.", _source(kind, steps, program)


DOMAIN = CodeDomain()
