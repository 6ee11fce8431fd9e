"""Writing: rubrics that the good answer meets whole, habits that break them, splits."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from itertools import product

import pytest

from rewards.instructions import check_criterion
from rollout.records import MODES, Attempt, Mode, Task
from specialists import get_domain
from specialists.base import Request, split_of
from specialists.writing import FAMILIES

DOMAIN = get_domain("writing")


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


def completion(task: Task, careful: bool, seed: int) -> str:
    [turn] = DOMAIN.demonstrate(task, random.Random(f"demonstration {seed}"), careful)
    thought = f"{turn['reasoning_content']}</think>" if task.mode == "thinking" else ""
    return thought + turn["content"]


def judged(task: Task, text: str) -> bool | None:
    return DOMAIN.grade(Attempt(task, (text,), (), "stop", 1), None).correct


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", FAMILIES)
def test_careful_is_right_and_careless_mostly_wrong(family: str, mode: Mode) -> None:
    for level in (1, 2, 3):
        found = tasks(family, 170, mode, level)
        assert all(judged(task, completion(task, True, i)) is True for i, task in enumerate(found))
        wrong = sum(judged(task, completion(task, False, i)) is False for i, task in enumerate(found))
        assert wrong >= 0.9 * len(found)


@pytest.mark.parametrize("family", FAMILIES)
def test_rubrics_have_texts_checks_and_at_most_one_gate(family: str) -> None:
    for level in (1, 2, 3):
        for task in tasks(family, 60, level=level):
            assert len(task.rubric) == 3 if level == 1 else 3 <= len(task.rubric) <= 7
            assert len({criterion.name for criterion in task.rubric}) == len(task.rubric)
            assert sum(criterion.gate for criterion in task.rubric) <= 1
            assert all(criterion.text and criterion.truth for criterion in task.rubric)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_criterion_is_met_by_every_answer(family: str) -> None:
    """Each criterion of a rubric separates some answers of the same family from others."""
    found = tasks(family, 150)
    texts = [completion(task, careful, i) for i, task in enumerate(found) for careful in (True, False)]
    answers = [text.split("</think>")[1] for text in texts]
    for task in found:
        for criterion in task.rubric:
            assert {check_criterion(criterion.truth or {}, answer) for answer in answers} == {True, False}


def test_degenerate_answers_are_wrong() -> None:
    for family, level in product(FAMILIES, (1, 2, 3)):
        for task in tasks(family, 60, level=level):
            for answer in ("", ".", task.prompt, "This meets all criteria.", "word " * 50):
                assert judged(task, f"x</think>{answer}") is False


def test_the_passage_answers_the_question() -> None:
    """Read from the text alone, exactly one person fits."""
    for level in (2, 3):
        for task in tasks("qa", 60, level=level, language="en"):
            facts = re.findall(r"(\w+) has a ([a-z ]+)\.", task.prompt)
            asked = re.search(r"Who has the ([a-z ]+)\?", task.prompt)
            assert asked is not None
            fits = [name for name, thing in facts if thing == asked.group(1)]
            assert [check_criterion(task.rubric[0].truth or {}, fit) for fit in fits] == [True]


def test_chinese_tasks_are_answered_in_chinese() -> None:
    for family in FAMILIES:
        for task in tasks(family, 30, language="zh"):
            assert not re.search("[A-Za-z]", task.prompt + completion(task, True, 0).replace("</think>", ""))


@pytest.mark.parametrize("family", FAMILIES)
def test_level_one_is_small(family: str) -> None:
    for task in tasks(family, 200):
        assert len(re.findall(r"[A-Za-z]+|\d|[^\w\s]|[\u4e00-\u9fff]", task.prompt)) <= 45
        text = completion(task, True, 0).replace("</think>", "")
        assert len(re.findall(r"[A-Za-z]+|\d|[^\w\s]|[\u4e00-\u9fff]", text)) <= 40


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", FAMILIES)
def test_habits_open_in_their_own_words(family: str, mode: Mode) -> None:
    habits: Counter[str] = Counter()
    for seed, task in enumerate(tasks(family, 300, mode, language="en")):
        bad, good = completion(task, False, seed), completion(task, True, seed)
        habits[re.split(r"[\s.,]", bad)[0]] += 1
        assert re.split(r"[\s.,]", bad)[0] != re.split(r"[\s.,]", good)[0]
    assert len(habits) >= 3
    assert habits.most_common(1)[0][1] <= 0.75 * habits.total()


@pytest.mark.parametrize("family", FAMILIES)
def test_splits_are_disjoint_and_large_enough(family: str) -> None:
    sample, found = FAMILIES[family][0], {"train": set(), "heldout": set()}
    rng = random.Random(0)
    for draw in range(10000):
        problem = sample(rng, 1 + draw % 2)
        found[split_of(problem)].add(repr(problem))
    assert len(found["heldout"]) >= 300
    for split in ("train", "heldout"):
        for task in tasks(family, 50, split=split):
            assert split_of(task.provenance["problem"]) == split


def test_level_one_alone_has_two_hundred_heldout_problems() -> None:
    ids = {DOMAIN.generate(Request(seed, "heldout", "direct")).id for seed in range(600)}
    assert len(ids) >= 200


def test_a_request_names_one_task_that_survives_json() -> None:
    for seed in range(30):
        request = Request(seed, "train", "thinking", (1, 2, 3), ("en", "zh"))
        task = DOMAIN.generate(request)
        assert task == DOMAIN.generate(request)
        read = Task.from_json(json.loads(json.dumps(task.to_json())))
        assert read.rubric == task.rubric
        for careful in (True, False):
            again = DOMAIN.demonstrate(read, random.Random(1), careful)
            assert again == DOMAIN.demonstrate(task, random.Random(1), careful)
