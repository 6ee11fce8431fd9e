"""Logic: answers against independent brute force, splits, habits."""

from __future__ import annotations

import json
import random
import re
from itertools import permutations, product

import pytest

from rollout.records import MODES, Attempt, Mode, Task
from specialists import get_domain
from specialists.base import Request, split_of
from specialists.logic import FAMILIES, knights_of, orders_of

DOMAIN = get_domain("logic")


def tasks(
    family: str, count: int, mode: Mode = "thinking", level: int = 1, split: str = "train", language: str = ""
) -> list[Task]:
    languages = (language,) if language else ("en", "zh")
    found: list[Task] = []
    seed = 0
    while len(found) < count:
        task = DOMAIN.generate(Request(seed, split, mode, (level,), languages))  # type: ignore[arg-type]
        found += [task] if task.family == family else []
        seed += 1
    return found


def judged(task: Task, careful: bool, seed: int) -> bool | None:
    [turn] = DOMAIN.demonstrate(task, random.Random(seed), careful)
    thought = f"{turn['reasoning_content']}</think>" if task.mode == "thinking" else ""
    return DOMAIN.grade(Attempt(task, (thought + turn["content"],), (), "stop", 1), None).correct


def answered(task: Task, answer: str) -> bool | None:
    return DOMAIN.grade(Attempt(task, (rf"x</think>\boxed{{{answer}}}",), (), "stop", 1), None).correct


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", FAMILIES)
def test_careful_is_right_and_careless_mostly_wrong(family: str, mode: Mode) -> None:
    for level in (1, 2, 3):
        found = tasks(family, 170, mode, level)
        assert all(judged(task, True, i) is True for i, task in enumerate(found))
        wrong = sum(judged(task, False, i) is False for i, task in enumerate(found))
        assert wrong >= 0.9 * len(found)


@pytest.mark.parametrize("level", (1, 2, 3))
def test_circuits_agree_with_python_on_the_prompt(level: int) -> None:
    for task in tasks("circuits", 100, level=level, language="en"):
        given, wired, _ = task.prompt.split(". ", 2)
        values: dict[str, int] = {}
        for part in (given + ", " + wired).split(", "):
            wire, term = part.split("=")
            values[wire] = int(eval(term.replace("xor", "!="), {}, dict(values)))
        gates = [wire.split("=")[0] for wire in wired.split(", ")]
        assert "".join(str(values[wire]) for wire in gates) == task.answer


SENTENCES = {
    r"(\w+) is (even|odd)": lambda world, me, a, b: (int(a) % 2 == 0) == (b == "even"),
    r"(\w+) is honest": lambda world, me, a: world[a],
    r"(\w+) lies": lambda world, me, a: not world[a],
    r"(\w+) is like me": lambda world, me, a: world[a] == world[me],
    r"(\w+) and (\w+) lie": lambda world, me, a, b: not world[a] and not world[b],
    r"(\w+) or (\w+) is honest": lambda world, me, a, b: world[a] or world[b],
}


@pytest.mark.parametrize("level", (1, 2, 3))
def test_knights_have_one_world_by_the_text_alone(level: int) -> None:
    for task in tasks("knights", 60, level=level, language="en"):
        said = re.findall(r"(\w+): ([^.]+)\.", task.prompt)
        names = [name for name, _ in said]
        worlds = []
        for bits in product((True, False), repeat=len(names)):
            world = dict(zip(names, bits, strict=True))
            if all(world[me] == truth(world, me, claim) for me, claim in said):
                worlds.append(", ".join(name for name in names if world[name]) or "none")
        assert worlds == [task.answer]


def truth(world: dict[str, bool], me: str, claim: str) -> bool:
    for pattern, holds in SENTENCES.items():
        if match := re.fullmatch(pattern, claim):
            return bool(holds(world, me, *match.groups()))
    raise AssertionError(f"a claim that no reader knows: {claim}")


@pytest.mark.parametrize("level", (1, 2, 3))
def test_orderings_have_one_order_by_the_text_alone(level: int) -> None:
    for task in tasks("orderings", 60, level=level, language="en"):
        said = re.findall(r"(\w+) is (taller|shorter) than (\w+)", task.prompt)
        pairs = [(a, b) if kind == "taller" else (b, a) for a, kind, b in said]
        names = sorted({name for pair in pairs for name in pair})
        orders = [o for o in permutations(names) if all(o.index(a) < o.index(b) for a, b in pairs)]
        assert [", ".join(order) for order in orders] == [task.answer]


def test_ambiguity_is_seen() -> None:
    assert len(knights_of([["honest", 1], ["honest", 0]])) == 2
    assert knights_of([["lies", 0]]) == []
    assert len(orders_of(3, [[0, 1, "taller"]])) == 3


def test_guessing_pays_little() -> None:
    """No constant answer is right in a third of the problems of a family."""
    for family in FAMILIES:
        answers = [task.answer for task in tasks(family, 300, language="en")]
        assert max(answers.count(answer) for answer in set(answers)) < 100


def test_names_count_in_any_order_only_for_knights() -> None:
    knights = next(t for t in tasks("knights", 50, language="zh") if t.answer.count(",") == 1)
    first, second = knights.answer.split(", ")
    assert answered(knights, f"{second}，{first}") and not answered(knights, first)
    order = tasks("orderings", 1)[0]
    assert answered(order, order.answer)
    assert not answered(order, ", ".join(reversed(order.answer.split(", "))))


def test_chinese_problems_are_asked_and_thought_in_chinese() -> None:
    for family in FAMILIES:
        for task in tasks(family, 20, language="zh"):
            [turn] = DOMAIN.demonstrate(task, random.Random(0), True)
            assert re.match(r"[\u4e00-\u9fff]", turn["reasoning_content"])
            assert not set(re.findall("[A-Z][a-z]+", task.prompt + turn["reasoning_content"]))


@pytest.mark.parametrize("family", FAMILIES)
def test_level_one_is_small(family: str) -> None:
    for task in tasks(family, 200, language="en"):
        [turn] = DOMAIN.demonstrate(task, random.Random(0), True)
        assert len(re.findall(r"\w+|[^\w\s]", task.prompt)) <= 46
        assert len(re.findall(r"\w+|[^\w\s]", turn["reasoning_content"] + turn["content"])) <= 40


@pytest.mark.parametrize("family", FAMILIES)
def test_splits_are_disjoint_and_large_enough(family: str) -> None:
    sample, found = FAMILIES[family][0], {"train": set(), "heldout": set()}
    rng = random.Random(0)
    for draw in range(6000):
        problem = sample(rng, 1 + draw % 2)
        found[split_of(problem)].add(repr(problem))
    assert len(found["heldout"]) >= 300
    for split in ("train", "heldout"):
        for task in tasks(family, 50, split=split):
            assert split_of(task.provenance["problem"]) == split


def test_levels_one_and_two_have_two_hundred_heldout_problems() -> None:
    ids = {DOMAIN.generate(Request(seed, "heldout", "direct", (1, 2))).id for seed in range(600)}
    assert len(ids) >= 200


def test_a_request_names_one_task_that_survives_json() -> None:
    for seed in range(30):
        request = Request(seed, "train", "thinking", (1, 2, 3), ("en", "zh"))
        task = DOMAIN.generate(request)
        assert task == DOMAIN.generate(request)
        read = Task.from_json(json.loads(json.dumps(task.to_json())))
        for careful in (True, False):
            again = DOMAIN.demonstrate(read, random.Random(1), careful)
            assert again == DOMAIN.demonstrate(task, random.Random(1), careful)
