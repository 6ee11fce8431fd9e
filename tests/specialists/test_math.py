"""Mathematics: right by independent computation, unique, learnably small, and well separated."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from fractions import Fraction

import pytest

from rollout.records import MODES, Attempt, Mode, Task
from specialists import get_domain
from specialists.base import Request, split_of
from specialists.math import FAMILIES, next_terms, solve

DOMAIN = get_domain("math")


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
    text = turn["content"]
    if task.mode == "thinking":
        text = f"{turn['reasoning_content']}</think>{text}"
    else:
        assert turn["reasoning_content"] == ""
    return DOMAIN.grade(Attempt(task, (text,), (), "stop", 1), None).correct


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", FAMILIES)
def test_careful_is_right_and_careless_mostly_wrong(family: str, mode: Mode) -> None:
    for level in (1, 2, 3):
        found = tasks(family, 170, mode, level)
        assert all(judged(task, True, i) is True for i, task in enumerate(found))
        wrong = sum(judged(task, False, i) is False for i, task in enumerate(found))
        assert wrong >= 0.9 * len(found)


@pytest.mark.parametrize("level", (1, 2, 3))
def test_arithmetic_agrees_with_python(level: int) -> None:
    for task in tasks("arithmetic", 200, level=level):
        expression = re.search(r"[\d+*-]+", task.prompt)
        assert expression is not None and str(eval(expression.group())) == task.answer


@pytest.mark.parametrize("level", (1, 2, 3))
def test_linear_has_the_one_root(level: int) -> None:
    for task in tasks("linear", 100, level=level):
        a, b, c, d = task.provenance["problem"]
        roots = [x for x in range(-200, 201) if a * x + b == c * x + d]
        assert [str(root) for root in roots] == [task.answer]


@pytest.mark.parametrize("level", (1, 2, 3))
def test_number_theory_by_brute_force(level: int) -> None:
    for task in tasks("number_theory", 150, level=level):
        kind, *numbers = task.provenance["problem"]
        if kind == "mod":
            n, d = numbers
            while n >= d:
                n -= d
            assert str(n) == task.answer
        elif kind == "gcd":
            common = [k for k in range(1, min(numbers) + 1) if all(n % k == 0 for n in numbers)]
            assert str(max(common)) == task.answer
        else:
            assert str(sum(map(int, str(numbers[0])))) == task.answer


@pytest.mark.parametrize("level", (1, 2, 3))
def test_the_next_term_is_unique(level: int) -> None:
    for task in tasks("sequences", 150, level=level):
        assert {str(term) for term in next_terms(task.provenance["problem"])} == {task.answer}


def test_an_ambiguous_sequence_is_seen() -> None:
    assert next_terms([3, 5, 8]) == {Fraction(10), Fraction(12), Fraction(13)}


@pytest.mark.parametrize("family", FAMILIES)
def test_level_one_is_small(family: str) -> None:
    for task in tasks(family, 200):
        [turn] = DOMAIN.demonstrate(task, random.Random(0), True)
        assert len(re.findall(r"[A-Za-z]+|\d|[^\w\s]|[\u4e00-\u9fff]", task.prompt)) <= 30
        assert len(re.findall(r"[A-Za-z]+|\d|[^\w\s]|[\u4e00-\u9fff]", turn["reasoning_content"])) <= 36
        assert 0 <= int(task.answer) <= 100


@pytest.mark.parametrize("family", FAMILIES)
def test_splits_are_disjoint_and_large_enough(family: str) -> None:
    sample, found = FAMILIES[family][0], {"train": set(), "heldout": set()}
    rng = random.Random(0)
    for draw in range(8000):
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
    for mode in MODES:
        request = Request(7, "train", mode, (1, 2, 3), ("en", "zh"))
        task = DOMAIN.generate(request)
        assert task == DOMAIN.generate(request)
        read = Task.from_json(json.loads(json.dumps(task.to_json())))
        assert read.to_json() == task.to_json()
        again = DOMAIN.demonstrate(read, random.Random(1), True)
        assert again == DOMAIN.demonstrate(task, random.Random(1), True)
        assert task.in_mode("direct").in_mode("thinking").id.endswith("/thinking")


@pytest.mark.parametrize("mode", MODES)
def test_habits_open_in_their_own_words_and_one_is_most_common(mode: Mode) -> None:
    openings: Counter[str] = Counter()
    for seed, task in enumerate(tasks("arithmetic", 400, mode, language="en")):
        [turn] = DOMAIN.demonstrate(task, random.Random(f"habit{seed}"), False)
        [good] = DOMAIN.demonstrate(task, random.Random(seed), True)
        text, best = (t["reasoning_content"] or t["content"] for t in (turn, good))
        assert text.split()[0] != best.split()[0]
        openings[re.split(r"\W", text)[0]] += 1
    assert len(openings) >= 4
    assert 0.35 <= openings.most_common(1)[0][1] / openings.total() <= 0.65


def test_a_broken_form_is_wrong_with_its_name() -> None:
    task = tasks("arithmetic", 1)[0]
    right = rf"\boxed{{{task.answer}}}"
    for text, reason in (
        (right, "truncated"),
        (f"</think>{right}", "empty_thinking"),
        (f"Steps.</think>{right}{right}", "several_answers"),
        (f"{right}</think>{task.answer}", "no_answer"),
    ):
        verdict = DOMAIN.grade(Attempt(task, (text,), (), "stop", 1), None)
        assert (verdict.correct, verdict.reason) == (False, reason)
    cut = DOMAIN.grade(Attempt(task, (f"Steps.</think>{right}",), (), "length", 1), None)
    assert (cut.correct, cut.reason) == (False, "truncated")


def test_wrong_answers_of_a_solution_are_wrong() -> None:
    rng = random.Random(3)
    for family, (sample, *_) in FAMILIES.items():
        for level in (1, 2, 3):
            for _ in range(100):
                solution = solve(family, sample(rng, level))
                slip = [solution.slip[1]] if solution.slip else []
                assert solution.answer not in (solution.quick[1], solution.easy, *slip)
