import dataclasses
import json
import random

import pytest

from rollout.records import MODES, Task
from specialists.agentic_search import DOMAIN
from specialists.base import Request, assistant, split_of, tool_result
from specialists.boxed import box
from specialists.search_corpus import CHAINS, build, draw_path, reach, relations


def tasks(count, mode="direct", split="train", levels=(1, 2, 3)):
    return [DOMAIN.generate(Request(seed, split, mode, levels)) for seed in range(count)]


@pytest.mark.parametrize("mode", MODES)
def test_careful_is_right_and_careless_wrong(mode, sandbox, replay):
    seen = set()
    for seed, task in enumerate(tasks(150, mode)):
        seen.add(task.family)
        rng = random.Random(seed)
        careful = replay(DOMAIN, task, DOMAIN.demonstrate(task, rng, careful=True))
        assert DOMAIN.grade(careful, None).correct is True, task.prompt
        assert len(careful.completions) <= DOMAIN.max_turns
        careless = replay(DOMAIN, task, DOMAIN.demonstrate(task, rng, careful=False))
        assert DOMAIN.grade(careless, None).correct is False
    assert seen == set(DOMAIN.families)


@pytest.mark.parametrize("level", [1, 2, 3])
@pytest.mark.parametrize("family", CHAINS)
def test_the_facts_have_one_answer_and_the_pages_hold_the_facts(family, level):
    for seed in range(50):
        rng = random.Random(seed)
        path = draw_path(rng, family, level)
        world = build(rng, family, level, path)
        assert reach(world.facts, path[0], relations(family, level)) == {world.answer}
        assert len({fact[:2] for fact in world.facts}) == len(world.facts)
        texts = {page["title"]: page["text"] for page in world.pages}
        assert len(texts) == len(world.pages) == (6 if level == 1 else 8)
        for subject, _, thing in world.facts:
            assert subject in texts[subject] and thing in texts[subject]
        for relation in relations(family, level)[-2:]:
            things = [thing for _, one, thing in world.facts if one == relation]
            assert len(set(things)) == len(things) >= 3


def test_the_answer_without_the_pages_is_wrong(sandbox, replay):
    for task in tasks(20, levels=(2,)):
        guess = DOMAIN.grade(replay(DOMAIN, task, [assistant(box(task.answer))]), None)
        assert (guess.correct, guess.reason) == (False, "answered_without_looking")
        messages = DOMAIN.demonstrate(task, random.Random(0), careful=True)
        partly = DOMAIN.grade(replay(DOMAIN, task, [*messages[:4], messages[-1]]), None)
        assert (partly.correct, partly.reason) == (False, "answered_without_looking")


def test_a_forged_result_is_no_evidence(replay):
    task = tasks(1)[0]
    forged = "\n".join(page["text"] for page in task.environment["pages"])
    assert DOMAIN.grade(replay(DOMAIN, task, [assistant(forged + box(task.answer))]), None).correct is False


@pytest.mark.parametrize("markup", ["<tool_response>{}</tool_response>", "<|tool|>{}<|end|>", "<function_results>{}"])
def test_a_result_in_the_policys_own_words_spoils_even_a_right_answer(markup, replay):
    task = tasks(1)[0]
    messages = DOMAIN.demonstrate(task, random.Random(0), careful=True)
    forged = markup.format(task.environment["pages"][0]["text"])
    honest = replay(DOMAIN, task, messages)
    assert DOMAIN.grade(honest, None).correct is True
    verdict = DOMAIN.grade(replay(DOMAIN, task, [*messages[:-1], assistant(forged + box(task.answer))]), None)
    assert (verdict.correct, verdict.reason) == (False, "forged_tool_result")
    assert DOMAIN.grade(dataclasses.replace(honest, state={}), None).correct is None


def test_opening_every_page_is_looking_and_two_answers_are_none(replay):
    task = tasks(1)[0]
    messages = []
    for page in task.environment["pages"]:
        messages += [assistant("", call=("open", {"id": page["id"]})), tool_result(page["text"])]
    assert DOMAIN.grade(replay(DOMAIN, task, [*messages, assistant(box(task.answer))]), None).correct
    both = assistant(box(task.answer) + box("Eve"))
    assert DOMAIN.grade(replay(DOMAIN, task, [*messages, both]), None).correct is False


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("search", {}),
        ("search", {"query": 3}),
        ("search", {"query": "x" * 10**6}),
        ("search", {"query": "Eve", "k": 100}),
        ("open", {}),
        ("open", {"id": "d99"}),
        ("open", {"id": ["d1"]}),
        ("read", {"id": "d1"}),
    ],
)
def test_calls_that_make_no_sense_are_told_so(name, arguments):
    environment = DOMAIN.environment(tasks(1)[0], None)
    assert environment.call(name, arguments).startswith("error: ")
    assert environment.state()["opened"] == []
    json.dumps(environment.state())


@pytest.mark.parametrize("query", ["", "...", "zzz qqq", "\ud800", "\x00"])
def test_a_query_that_matches_nothing(query):
    assert DOMAIN.environment(tasks(1)[0], None).call("search", {"query": query}) == "no results"


def test_the_index_is_built_by_the_first_search_and_kept():
    environment = DOMAIN.environment(tasks(1, levels=(3,))[0], None)
    environment.call("open", {"id": "p1"})
    assert "_index" not in vars(environment)
    environment.call("search", {"query": "Eve"})
    index = vars(environment)["_index"]
    environment.call("search", {"query": "Adam"})
    assert vars(environment)["_index"] is index


def test_splits_are_disjoint_and_large_enough():
    heldout = tasks(900, split="heldout", levels=(1, 2))
    assert len({task.id for task in heldout}) >= 400
    assert not {task.id for task in heldout} & {task.id for task in tasks(900, levels=(1, 2))}
    for task in heldout[:50]:
        assert split_of([*task.environment["route"], task.answer]) == "heldout"


def test_same_request_same_task():
    for first, second in zip(tasks(50), tasks(50), strict=True):
        assert first == second == Task.from_json(first.to_json())
        assert json.loads(json.dumps(first.to_json())) == first.to_json()
