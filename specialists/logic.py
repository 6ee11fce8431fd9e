"""Logic: boolean circuits, knights and knaves, orderings. In the box stand bits, names, or names in order.

Circuits have one answer because gates are functions; the other two are drawn again until trying every
possibility (`knights_of`, `orders_of`) leaves exactly one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import permutations, product
from typing import Any

from rewards.exact import grade_exact, grade_ordering, grade_set
from rewards.sandbox import SandboxWorker
from rewards.types import Verdict
from rollout.records import Attempt, Message, Task
from rollout.seeding import rng_for
from specialists import CHINESE_NAMES, NAMES
from specialists.base import Kind, Request, ToolSpec, draw, task_id
from specialists.boxed import ASK, Solution, careful_turn, careless_turn, read_box, wrong

Problem = list[Any]
"""A problem as JSON: its family's own list, enough to ask and to solve it."""

CASTS = (NAMES[:3], NAMES[3:6])
"""Who takes part in the puzzles of level 1: each name has one place, which a small model can learn by heart."""


def called(names: Sequence[str], language: str) -> list[str]:
    return [CHINESE_NAMES[name] if language == "zh" else name for name in names]


# --- circuits: [[1, 0], [["and", 0, 1], ["not", 0], ["or", 0, 3]]] ---

WIRES = "abcdefghijkl"
GATES: dict[str, Callable[[int, int], int]] = {
    "and": lambda x, y: x & y,
    "or": lambda x, y: x | y,
    "xor": lambda x, y: x ^ y,
}


def sample_circuit(rng: random.Random, level: int) -> Problem:
    """Level 1: two inputs and three gates in a row, each fed by the one before. Above: more of both, and not."""
    inputs, gates = {1: (2, 3), 2: (3, 4), 3: (4, 6)}[level]
    circuit: list[list[Any]] = []
    for wire in range(inputs, inputs + gates):
        kind = rng.choice([*GATES, "xor" if level == 1 else "not"])
        ends = rng.sample(range(wire), 1 if kind == "not" else 2)
        circuit.append([kind, *([rng.randrange(wire - 1), wire - 1] if level == 1 else sorted(ends))])
    given = [rng.randint(0, 1) for _ in range(inputs)]
    return [given if any(given) else [0] * (inputs - 1) + [1], circuit]


def ask_circuit(problem: Problem, language: str) -> str:
    inputs, gates = problem
    comma, stop = (", ", ". ") if language == "en" else ("，", "。")
    given = comma.join(f"{WIRES[i]}={bit}" for i, bit in enumerate(inputs))
    wired = comma.join(f"{WIRES[len(inputs) + i]}={gate_text(gate, WIRES)}" for i, gate in enumerate(gates))
    asked = {"en": "Give {} as bits.", "zh": "写出 {} 的值。"}[language]
    return given + stop + wired + stop + asked.format(WIRES[len(inputs) : len(inputs) + len(gates)])


def gate_text(gate: Sequence[Any], wires: Sequence[Any]) -> str:
    kind, *ends = gate
    return f"not {wires[ends[0]]}" if kind == "not" else f"{wires[ends[0]]} {kind} {wires[ends[1]]}"


def values_of(problem: Problem, every: str | None = None) -> list[int]:
    """Values of all wires; with `every`, all gates of two inputs are read as that kind."""
    values = list(problem[0])
    for kind, *ends in problem[1]:
        if kind == "not":
            values.append(1 - values[ends[0]])
        else:
            values.append(GATES[every or kind](values[ends[0]], values[ends[1]]))
    return values


def solve_circuit(problem: Problem, language: str) -> Solution:
    count = len(problem[0])

    def steps(values: Sequence[int]) -> tuple[str, ...]:
        wired = zip(WIRES[count:], problem[1], values[count:], strict=False)
        return tuple(f"{wire}={gate_text(gate, values)}={value}" for wire, gate, value in wired)

    def bits(values: Sequence[int]) -> str:
        return "".join(map(str, values[count:]))

    values, misread = values_of(problem), values_of(problem, every="or")
    answer, worked = bits(values), steps(values)
    return Solution(
        answer=answer,
        steps=worked,
        quick=(worked[:-1], answer[:-1]),
        easy=wrong(answer, "1" * len(answer), "0" * len(answer)),
        slip=None if bits(misread) == answer else (steps(misread), bits(misread)),
    )


# --- knights: [["Ann", "Bob"], [["number", 2, "even"], ["is", 0, False]]], one statement a person ---

SAYS: dict[str, dict[str, str]] = {
    "number": {"en": "{} is {}", "zh": "{}是{}"},
    "honest": {"en": "{} is honest", "zh": "{}诚实"},
    "lies": {"en": "{} lies", "zh": "{}说谎"},
    "same": {"en": "{} is like me", "zh": "{}和我一样"},
    "both": {"en": "{} and {} lie", "zh": "{}和{}都说谎"},
    "either": {"en": "{} or {} is honest", "zh": "{}或{}诚实"},
}
PARITY = {"even": {"en": "even", "zh": "偶数"}, "odd": {"en": "odd", "zh": "奇数"}}
TRUTH = {"en": ("false", "true"), "zh": ("假", "真")}


def sample_knights(rng: random.Random, level: int) -> Problem:
    """Level 1: a cast of three; the first speaks of a number, each other of one who spoke before. Above: three
    to five persons who speak of themselves and of each other, drawn until exactly one assignment fits."""
    if level == 1:
        said = [["number", rng.randint(0, 9), rng.choice(("even", "odd"))]]
        said += [[rng.choice(("honest", "lies")), rng.randrange(speaker)] for speaker in (1, 2)]
        return [list(rng.choice(CASTS)), said]
    while True:
        people = rng.randint(3, 4) if level == 2 else 5
        said = []
        for speaker in range(people):
            kind = rng.choice(("honest", "lies", "same", "both", "either"))
            others = [person for person in range(people) if person != speaker]
            said.append([kind, *sorted(rng.sample(others, 2 if kind in ("both", "either") else 1))])
        if len(knights_of(said)) == 1:
            return [rng.sample(NAMES, people), said]


def holds(statement: Sequence[Any], speaker: int, knights: Sequence[bool]) -> bool:
    """Whether what the speaker says is true in a world where `knights` are honest."""
    kind, first, *rest = statement
    if kind == "number":
        return (first % 2 == 0) == (rest[0] == "even")
    if kind == "same":
        return knights[first] == knights[speaker]
    if kind == "both":
        return not knights[first] and not knights[rest[0]]
    if kind == "either":
        return knights[first] or knights[rest[0]]
    return knights[first] == (kind == "honest")


def knights_of(said: Sequence[Sequence[Any]]) -> list[tuple[bool, ...]]:
    """Every assignment in which exactly the knights' statements are true."""
    worlds = product((True, False), repeat=len(said))
    return [w for w in worlds if all(holds(s, i, w) == w[i] for i, s in enumerate(said))]


def ask_knights(problem: Problem, language: str) -> str:
    names, said = called(problem[0], language), problem[1]
    claims = [says(names, speaker, statement, language) for speaker, statement in enumerate(said)]
    if language == "en":
        return "Knights are honest, knaves lie. " + ". ".join(claims) + ". List knights, or none."
    return "骑士诚实，无赖说谎。" + "。".join(claims) + "。列出骑士，没有写 none。"


def says(names: Sequence[str], speaker: int, statement: Sequence[Any], language: str) -> str:
    kind, *ends = statement
    words = [ends[0], PARITY[ends[1]][language]] if kind == "number" else [names[end] for end in ends]
    return names[speaker] + {"en": ": ", "zh": "："}[language] + SAYS[kind][language].format(*words)


def solve_knights(problem: Problem, language: str) -> Solution:
    """With a plain fact to start from, one person after another; without, every assignment until one fits."""
    names, said = called(problem[0], language), problem[1]
    world = knights_of(said)[0]
    comma = {"en": ", ", "zh": "，"}[language]
    if said[0][0] == "number":
        steps = [
            says(names, speaker, statement, language) + comma + TRUTH[language][world[speaker]]
            for speaker, statement in enumerate(said)
        ]
    else:
        steps = []
        for tried in product((True, False), repeat=len(said)):
            wrong_ones = [names[i] for i, s in enumerate(said) if holds(s, i, tried) != tried[i]]
            bits = "".join(str(int(honest)) for honest in tried)
            steps.append(f"{bits}: {wrong_ones[0] if wrong_ones else 'ok'}")
            if not wrong_ones:
                break

    def listed(honest: Sequence[bool]) -> str:
        return ", ".join(name for name, knight in zip(names, honest, strict=True) if knight) or "none"

    answer, everyone, knaves = listed(world), listed([True] * len(names)), listed([not k for k in world])
    first = listed([world[0]] + [False] * (len(names) - 1))
    return Solution(
        answer=answer,
        steps=tuple(steps),
        quick=(tuple(steps[:1]), wrong(answer, first, everyone)),
        easy=wrong(answer, everyone, "none"),
        slip=(tuple(steps), knaves),
    )


# --- orderings: [["Ann", "Bob", "Cal"], [[1, 2, "taller"], [1, 0, "shorter"]]], tallest first ---

COMPARES = {
    "taller": {"en": "{} is taller than {}", "zh": "{}比{}高"},
    "shorter": {"en": "{} is shorter than {}", "zh": "{}比{}矮"},
}


def sample_ordering(rng: random.Random, level: int) -> Problem:
    """Level 1: a cast of three and the two comparisons between neighbours. Above: one person more each, and a
    comparison that adds nothing."""
    people = level + 2
    while True:
        pairs = [(i, i + 1) for i in range(people - 1)]
        if level > 1:
            pairs.append((0, rng.randint(2, people - 1)))
        rng.shuffle(pairs)
        said = [[a, b, "taller"] if rng.random() < 0.5 else [b, a, "shorter"] for a, b in pairs]
        if orders_of(people, said) == [tuple(range(people))]:
            return [rng.sample(rng.choice(CASTS) if level == 1 else NAMES, people), said]


def orders_of(people: int, said: Sequence[Sequence[Any]]) -> list[tuple[int, ...]]:
    """Every order, tallest first, in which all comparisons hold."""
    pairs = [(a, b) if kind == "taller" else (b, a) for a, b, kind in said]
    orders = permutations(range(people))
    return [order for order in orders if all(order.index(a) < order.index(b) for a, b in pairs)]


def ask_ordering(problem: Problem, language: str) -> str:
    names, said = called(problem[0], language), problem[1]
    claims = [COMPARES[kind][language].format(names[a], names[b]) for a, b, kind in said]
    if language == "en":
        return ". ".join(claims) + ". List the tallest first."
    return "。".join(claims) + "。从高到矮列出。"


def solve_ordering(problem: Problem, language: str) -> Solution:
    names, said = called(problem[0], language), problem[1]
    pairs = [(a, b) if kind == "taller" else (b, a) for a, b, kind in said]
    steps = tuple(f"{names[a]} > {names[b]}" for a, b in pairs)
    as_read = list(dict.fromkeys(names[end] for a, b, _ in said for end in (a, b)))
    answer, read, back = ", ".join(names), ", ".join(as_read), ", ".join(reversed(names))
    return Solution(
        answer=answer,
        steps=steps,
        quick=(steps[:1], ", ".join(names[end] for end in pairs[0])),
        easy=wrong(answer, read, back),
        slip=(steps, back),
    )


# --- the domain ---


def grade_names(answer: str, truth: str) -> Verdict:
    return grade_set(unified(answer), truth.split(","))


def grade_order(answer: str, truth: str) -> Verdict:
    return grade_ordering(unified(answer), truth.split(","))


def unified(answer: str) -> str:
    """Chinese commas as ASCII ones."""
    return answer.replace("，", ",").replace("、", ",")


Family = tuple[
    Callable[[random.Random, int], Problem],
    Callable[[Problem, str], str],
    Callable[[Problem, str], Solution],
    Callable[[str, str], Verdict],
]
FAMILIES: dict[str, Family] = {
    "circuits": (sample_circuit, ask_circuit, solve_circuit, grade_exact),
    "knights": (sample_knights, ask_knights, solve_knights, grade_names),
    "orderings": (sample_ordering, ask_ordering, solve_ordering, grade_order),
}
"""Per family: how a problem is drawn, written, solved and graded."""


class Logic:
    name = "logic"
    kind: Kind = "verifiable"
    families = tuple(FAMILIES)
    tools: tuple[ToolSpec, ...] = ()
    max_turns = 1

    def generate(self, request: Request) -> Task:
        rng = rng_for("logic", request.seed)
        family, level = rng.choice(self.families), rng.choice(list(request.levels))
        language = rng.choice(list(request.languages))
        sample, ask, solve, _ = FAMILIES[family]
        problem = draw(rng, request.split, lambda r: sample(r, level))
        question = ask(problem, language) + ASK[language]
        return Task(
            id=task_id(self.name, family, problem, language, request.mode),
            domain=self.name,
            family=family,
            messages=({"role": "user", "content": question},),
            mode=request.mode,
            language=language,
            answer=solve(problem, language).answer,
            difficulty=level,
            provenance={"generator": self.name, "seed": request.seed, "problem": problem},
        )

    def demonstrate(self, task: Task, rng: random.Random, careful: bool) -> list[Message]:
        problem, solve = task.provenance["problem"], FAMILIES[task.family][2]
        solution = solve(problem, task.language)
        if careful:
            return [careful_turn(solution, task.mode, task.language)]
        return [careless_turn(solution, solve(problem, "en"), task.mode, task.language, rng)]

    def environment(self, task: Task, sandbox: SandboxWorker | None) -> None:
        return None

    def grade(self, attempt: Attempt, sandbox: SandboxWorker | None) -> Verdict:
        answer = read_box(attempt)
        if isinstance(answer, Verdict):
            return answer
        return FAMILIES[attempt.task.family][3](answer, attempt.task.answer)


DOMAIN = Logic()
