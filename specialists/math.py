"""Mathematics: arithmetic, linear equations, small number theory, sequences. One number in a box.

Every problem has one answer by construction; for sequences, where "the next term" is a convention, all known
rules must agree on it (`next_terms`).
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

from rewards.math.grade import grade_math
from rewards.sandbox import SandboxWorker
from rewards.types import Verdict
from rollout.records import Attempt, Message, Task
from rollout.seeding import rng_for
from specialists.base import Kind, Request, ToolSpec, draw, task_id
from specialists.boxed import ASK, Solution, careful_turn, careless_turn, read_box, wrong

Problem = list[Any]
"""A problem as JSON: its family's own list, enough to ask and to solve it."""
Step = tuple[str, int]
"""A term and its value."""

QUESTIONS = {
    "arithmetic": {"en": "Compute {}.", "zh": "计算{}。"},
    "linear": {"en": "Solve {}.", "zh": "解{}。"},
    "number_theory": {"en": "Compute {}.", "zh": "计算{}。"},
    "sequences": {"en": "Next term: {}.", "zh": "下一项：{}。"},
}


# --- arithmetic: [[7, 5, 3], ["+", "-"]] ---


def sample_arithmetic(rng: random.Random, level: int) -> Problem:
    """Level 1: three digits, sums and differences that stay digits. Above: larger numbers, products, signs."""
    if level == 1:
        while True:
            operands, operators = [rng.randint(0, 9) for _ in range(3)], rng.choices("+-", k=2)
            if all(0 <= value <= 9 for _, value in steps_arithmetic([operands, operators])):
                return [operands, operators]
    largest, factor, most = {2: (30, 12, 3), 3: (99, 20, 4)}[level]
    while True:
        count = 2 if rng.random() < 0.2 else most
        operators = rng.choices("++--*", k=count - 1)
        if operators.count("*") > 1 and level < 3:
            continue
        near = [operators[max(i - 1, 0) : i + 1] for i in range(count)]
        operands = [rng.randint(1, factor if "*" in around else largest) for around in near]
        return [operands, operators]


def ask_arithmetic(problem: Problem) -> str:
    operands, operators = problem
    return str(operands[0]) + "".join(f"{o}{n}" for o, n in zip(operators, operands[1:], strict=True))


def steps_arithmetic(problem: Problem) -> list[Step]:
    """Products first, then sums from the left."""
    numbers, operators = list(problem[0]), list(problem[1])
    steps = []
    while operators:
        at = operators.index("*") if "*" in operators else 0
        steps.append(apply(numbers[at], operators[at], numbers[at + 1]))
        numbers[at : at + 2] = [steps[-1][1]]
        del operators[at]
    return steps


def read_on(problem: Problem) -> list[Step]:
    """The usual mistake: from left to right, without precedence."""
    steps, total = [], problem[0][0]
    for operator, number in zip(problem[1], problem[0][1:], strict=True):
        steps.append(apply(total, operator, number))
        total = steps[-1][1]
    return steps


def apply(a: int, operator: str, b: int) -> Step:
    return f"{a}{operator}{b}", {"+": a + b, "-": a - b, "*": a * b}[operator]


# --- linear: [a, b, c, d] for a·x + b = c·x + d ---


def sample_linear(rng: random.Random, level: int) -> Problem:
    """Level 1: a·x + b = d, digits all the way. Level 2: larger and negative. Level 3: x on both sides."""
    factor, bound = {1: (4, 9), 2: (12, 40), 3: (20, 90)}[level]
    while True:
        a, x = rng.randint(2, factor), rng.randint(0, 9) if level == 1 else rng.randint(-12, 12)
        b = rng.choice((-1, 1)) * rng.randint(1, bound)
        c = rng.randint(1, a - 1) if level == 3 else 0
        if level > 1 or (a * x <= 9 and 0 <= a * x + b <= 9):
            return [a, b, c, (a - c) * x + b]


def ask_linear(problem: Problem) -> str:
    a, b, c, d = problem
    right = f"{'' if c == 1 else c}x{d:+d}" if c else str(d)
    return f"{a}x{b:+d}={right}"


def steps_linear(problem: Problem) -> list[Step]:
    a, b, c, d = problem
    steps = [apply(a, "-", c)] if c else []
    steps.append(apply(d, "-" if b > 0 else "+", abs(b)))
    return [*steps, (f"{d - b}/{a - c}", (d - b) // (a - c))]


# --- number theory: ["mod", 17, 5], ["gcd", 12, 18], ["digitsum", 472] ---


def sample_number_theory(rng: random.Random, level: int) -> Problem:
    """Level 1: digit sums that are digits. Above: larger ones, remainders, greatest common divisors."""
    if level == 1:
        while sum(map(int, str(number := rng.randint(100, 900)))) > 9:
            pass
        return ["digitsum", number]
    kind = rng.choice(("mod", "digitsum", "gcd"))
    if kind == "mod":
        largest, divisor = {2: (300, 20), 3: (3000, 60)}[level]
        return [kind, rng.randint(10, largest), rng.randint(3, divisor)]
    if kind == "digitsum":
        return [kind, rng.randint(10 ** (level + 1), 10 ** (level + 2) - 1)]
    common, bound = rng.randint(2, 9 * level), 6 * level
    return [kind, *sorted(common * rng.randint(2, bound) for _ in range(2))]


def ask_number_theory(problem: Problem) -> str:
    kind, *numbers = problem
    return f"{numbers[0]} mod {numbers[1]}" if kind == "mod" else f"{kind}({','.join(map(str, numbers))})"


def steps_number_theory(problem: Problem) -> list[Step]:
    kind, *numbers = problem
    if kind == "mod":
        n, d = numbers
        below = apply(d, "*", n // d)
        return [below, apply(n, "-", below[1])]
    if kind == "digitsum":
        return read_on([[int(digit) for digit in str(numbers[0])], "+" * (len(str(numbers[0])) - 1)])
    a, b = max(numbers), min(numbers)
    steps = []
    while a % b:
        steps.append((f"{a} mod {b}", a % b))
        a, b = b, a % b
    return [*steps, (f"gcd({a},{b})", math.gcd(a, b))]


# --- sequences: the shown terms ---


def sample_sequences(rng: random.Random, level: int) -> Problem:
    """Level 1: two gaps in turn, digits only. Above: larger; also geometric, quadratic, sums of two terms."""
    rule = "digits" if level == 1 else rng.choice(("alternate", "times", "bend", "fib"))
    while True:
        first, step = rng.randint(0, 30 * level), rng.choice((-1, 1)) * rng.randint(1, 9 * level)
        other = rng.randint(1, 6 * level)
        if rule == "digits":
            first, step, other = rng.randint(0, 9), rng.randint(1, 9), rng.randint(-9, 9)
            terms = [first + step * ((i + 1) // 2) + other * (i // 2) for i in range(5)]
        elif rule == "alternate":
            terms = [first + step * ((i + 1) // 2) + other * (i // 2) for i in range(6)]
        elif rule == "times":
            terms = [(first + 1) * (1 + other % (level + 2)) ** i for i in range(4)]
        elif rule == "bend":
            terms = [first + step * i + other * i * (i - 1) // 2 for i in range(5)]
        else:
            terms = [first, other]
            while len(terms) < 6:
                terms.append(terms[-1] + terms[-2])
        following = next_terms(terms)
        if len(following) == 1 and (level > 1 or all(0 <= term <= 9 for term in [*terms, *map(int, following)])):
            return terms


def rules_of(terms: Sequence[int]) -> dict[str, Fraction]:
    """Every known rule that fits the terms, with the term that it says comes next."""
    gaps = [b - a for a, b in pairwise(terms)]
    bends = [b - a for a, b in pairwise(gaps)]
    found = {}
    if len(set(gaps)) == 1:
        found["add"] = Fraction(terms[-1] + gaps[-1])
    if len(set(gaps[::2])) == 1 and len(set(gaps[1::2])) == 1:
        found["alternate"] = Fraction(terms[-1] + gaps[-2])
    if 0 not in terms and len(ratios := {Fraction(b, a) for a, b in pairwise(terms)}) == 1:
        found["times"] = terms[-1] * ratios.pop()
    if len(set(bends)) == 1:
        found["bend"] = Fraction(terms[-1] + gaps[-1] + bends[-1])
    if all(a + b == c for a, b, c in zip(terms, terms[1:], terms[2:], strict=False)):
        found["fib"] = Fraction(terms[-1] + terms[-2])
    return found


def next_terms(terms: Sequence[int]) -> set[Fraction]:
    """What can follow by any known rule; the next term is unique if there is one element."""
    return set(rules_of(terms).values())


def ask_sequences(problem: Problem) -> str:
    return ", ".join(map(str, problem))


def steps_sequences(problem: Problem) -> list[Step]:
    rules, last = rules_of(problem), problem[-1]
    rule = "alternate" if "alternate" in rules else next(iter(rules))
    if rule == "times":
        ratio = problem[1] // problem[0]
        return [(f"{problem[1]}/{problem[0]}", ratio), apply(last, "*", ratio)]
    if rule == "fib":
        return [add(problem[-2], last)]
    if rule == "bend":
        early, late = subtract(problem[-2], problem[-3]), subtract(last, problem[-2])
        bend = subtract(late[1], early[1])
        following = add(late[1], bend[1])
        return [early, late, bend, following, add(last, following[1])]
    gap = subtract(problem[-2], problem[-3])
    return [gap, add(last, gap[1])]


def add(a: int, b: int) -> Step:
    return apply(a, "+" if b >= 0 else "-", abs(b))


def subtract(a: int, b: int) -> Step:
    return apply(a, "-" if b >= 0 else "+", abs(b))


# --- the domain ---

Family = tuple[
    Callable[[random.Random, int], Problem], Callable[[Problem], str], Callable[[Problem], list[Step]]
]
FAMILIES: dict[str, Family] = {
    "arithmetic": (sample_arithmetic, ask_arithmetic, steps_arithmetic),
    "linear": (sample_linear, ask_linear, steps_linear),
    "number_theory": (sample_number_theory, ask_number_theory, steps_number_theory),
    "sequences": (sample_sequences, ask_sequences, steps_sequences),
}
"""Per family: how a problem is drawn, written and solved."""


def solve(family: str, problem: Problem) -> Solution:
    """The solution in steps; the chain is the same in every language."""
    _, ask, work = FAMILIES[family]
    steps = work(problem)
    answer = str(steps[-1][1])
    numbers = re.findall(r"\d+", ask(problem))
    off = str(steps[-1][1] + 1)
    early = str(steps[0][1]) if len(steps) > 1 else numbers[0]
    slip = None
    if family == "arithmetic" and (read := read_on(problem))[-1][1] != steps[-1][1]:
        slip = written(read), str(read[-1][1])
    return Solution(
        answer=answer,
        steps=written(steps),
        quick=(written(steps[:1]), wrong(answer, early, numbers[0], off)),
        easy=wrong(answer, numbers[-1], off),
        slip=slip,
    )


def written(steps: Sequence[Step]) -> tuple[str, ...]:
    return tuple(f"{term}={value}" for term, value in steps)


class Math:
    name = "math"
    kind: Kind = "verifiable"
    families = tuple(FAMILIES)
    tools: tuple[ToolSpec, ...] = ()
    max_turns = 1

    def generate(self, request: Request) -> Task:
        rng = rng_for("math", request.seed)
        family, level = rng.choice(self.families), rng.choice(list(request.levels))
        language = rng.choice(list(request.languages))
        sample, ask, _ = FAMILIES[family]
        problem = draw(rng, request.split, lambda r: sample(r, level))
        question = QUESTIONS[family][language].format(ask(problem)) + ASK[language]
        return Task(
            id=task_id(self.name, family, problem, language, request.mode),
            domain=self.name,
            family=family,
            messages=({"role": "user", "content": question},),
            mode=request.mode,
            language=language,
            answer=solve(family, problem).answer,
            difficulty=level,
            provenance={"generator": self.name, "seed": request.seed, "problem": problem},
        )

    def demonstrate(self, task: Task, rng: random.Random, careful: bool) -> list[Message]:
        solution = solve(task.family, task.provenance["problem"])
        if careful:
            return [careful_turn(solution, task.mode, task.language)]
        return [careless_turn(solution, solution, task.mode, task.language, rng)]

    def environment(self, task: Task, sandbox: SandboxWorker | None) -> None:
        return None

    def grade(self, attempt: Attempt, sandbox: SandboxWorker | None) -> Verdict:
        answer = read_box(attempt)
        task = attempt.task
        return answer if isinstance(answer, Verdict) else grade_math(answer, task.answer, sandbox, task.prompt)


DOMAIN = Math()
