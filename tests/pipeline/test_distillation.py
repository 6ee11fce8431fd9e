"""Which samples become training data."""

import json

import numpy as np
import pytest

from pipeline.distillation import Candidate, Contamination, select, to_row
from rewards.types import Component, Reward
from rollout.records import Attempt, Task, Trajectory


def task(number=0, prompt=None, mode="direct", domain="math", environment=None):
    prompt = prompt or f"What is {number}?"
    message = {"role": "user", "content": prompt}
    return Task(f"{domain}/{number}/{mode}", domain, (message,), mode, environment=environment)


def sample(of, text="</think>4", value=1.0, passed=True, seed=0, tokens=3, turns=None, results=()):
    attempt = Attempt(of, tuple(turns or [text]), tuple(results), "stop", tokens)
    ids = np.arange(tokens + 2, dtype=np.int32)
    mask = np.array([False, False] + [True] * tokens)
    trajectory = Trajectory(
        attempt=attempt, token_ids=ids, policy_mask=mask, logprobs=np.zeros(tokens + 2, np.float32),
        versions=np.where(mask, 5, -1).astype(np.int32),
    )  # fmt: skip
    reward = Reward.invalid("timeout") if value is None else paid(value, passed)
    return Candidate(trajectory, reward, of.domain, 40, seed)


def paid(value, passed):
    return Reward.of([Component("outcome", value, 1.0, value)], passed)


def chosen(candidates, heldout=(), keep=1, cell=100, ngram=13):
    return select(candidates, heldout, keep, cell, ngram)


def test_only_verified_samples_stay_and_the_rest_is_counted_by_reason():
    found = chosen([sample(task(1)), sample(task(2), value=0.0, passed=False), sample(task(3), value=None)])
    assert [c.task.id for c in found.kept] == ["math/1/direct"]
    assert found.dropped == {"not verified": 1, "invalid reward": 1}


def test_a_malformed_tool_call_is_no_lesson_even_when_the_answer_is_right():
    good = '</think><tool_call>{"name": "test", "arguments": {}}</tool_call>'
    for bad in ('</think><tool_call>{"name": ', "</think><tool_call>[]</tool_call>"):
        turns = [bad, good, "</think>Done."]
        found = chosen([sample(task(1, mode="thinking"), turns=turns, results=["error: no call", "pass"])])
        assert not found.kept and found.dropped == {"malformed tool call": 1}
    assert chosen([sample(task(1, mode="thinking"), turns=[good, "</think>Done."], results=["pass"])]).kept


def test_of_a_task_the_best_paid_and_then_the_shortest_stays():
    samples = [
        sample(task(1), "</think>a", value=0.9, tokens=2),
        sample(task(1), "</think>b", value=1.0, tokens=9),
        sample(task(1), "</think>c", value=1.0, tokens=4),
    ]
    found = chosen(samples)
    assert [c.trajectory.attempt.completions for c in found.kept] == [("</think>c",)]
    assert found.dropped == {"enough of its task": 2}
    assert len(chosen(samples, keep=2).kept) == 2


def test_equal_texts_stay_once_whatever_their_spaces():
    twice = [sample(task(1), "</think>4 apples", seed=1), sample(task(1), "</think>4  apples", seed=2)]
    found = chosen(twice, keep=5)
    assert len(found.kept) == 1 and found.dropped == {"duplicate": 1}


def test_equal_turns_in_two_worlds_are_not_equal():
    worlds = [task(n, "Fix it.", environment={"files": {"a.py": f"return {n}"}}) for n in (1, 2)]
    assert len(chosen([sample(world) for world in worlds]).kept) == 2


def test_cells_are_balanced_by_a_limit():
    samples = [sample(task(n, f"{domain} {n}", domain=domain)) for domain in ("math", "code") for n in range(5)]
    found = chosen(samples, cell=3)
    assert sorted(c.task.domain for c in found.kept) == ["code"] * 3 + ["math"] * 3
    assert found.dropped == {"enough of its domain and mode": 4}


def test_the_same_problem_in_another_mode_is_held_out():
    assert Contamination([task(1, mode="thinking")], 13).touches(task(1, "Other words.", mode="direct"))


def test_the_same_question_is_held_out_even_when_short():
    contamination = Contamination([task(1, "Name a prime.")], 13)
    assert contamination.touches(task(2, "Name  a prime."))
    assert not contamination.touches(task(2, "Name a cube."))


def test_words_in_a_row_betray_a_held_out_prompt_but_not_a_template():
    words = [f"w{i}" for i in range(20)]
    contamination = Contamination([task(1, " ".join(words))], 13)
    assert contamination.touches(task(2, " ".join(["before", *words[3:16], "after"])))
    assert not contamination.touches(task(2, " ".join(["before", *words[3:15], "after"])))
    # Two held-out prompts with the same long beginning: it is the template's.
    template = Contamination([task(n, " ".join([*words[:13], f"n{n}"])) for n in (1, 2)], 13)
    assert not template.touches(task(3, " ".join([*words[:13], "n3"])))


def test_a_question_asked_in_another_world_is_another_problem():
    question = "Who is the mayor of the city where the sister of the baker lives, and why?"
    heldout = [task(1, question, environment={"pages": {"d1": "Ann lives in Bern."}})]
    contamination = Contamination(heldout, 13)
    assert not contamination.touches(task(2, question, environment={"pages": {"d1": "Ann lives in Rome."}}))
    assert contamination.touches(task(2, question, environment={"pages": {"d1": "Ann lives in Bern."}}))


@pytest.mark.parametrize("tool", [False, True])
def test_a_row_has_its_provenance_and_the_tokens_as_they_were_sampled(tool):
    call = '<tool_call>{"name": "open", "arguments": {"id": "d1"}}</tool_call>'
    turns, results = (["hm</think>" + call, "ok</think>Bern"], ["a page"]) if tool else (["ok</think>Bern"], [])
    candidate = sample(task(7, mode="thinking"), turns=turns, results=results, seed=11)
    row = to_row(candidate)
    assert (row["specialist"], row["specialist_step"], row["task"], row["seed"], row["reward"]) == (
        "math", 40, "math/7/thinking", 11, 1.0,
    )  # fmt: skip
    assert row["input_ids"] == candidate.trajectory.token_ids.tolist()
    assert row["assistant_masks"] == [0, 0, 1, 1, 1]
    assert [m["role"] for m in row["messages"]] == ["user", *(["assistant", "tool"] if tool else []), "assistant"]
    assert row["messages"][-1]["content"] == "Bern" and row["messages"][-1]["reasoning_content"] == "ok"
    if tool:
        (asked,) = json.loads(row["messages"][1]["tool_calls"])
        assert asked["function"] == {"name": "open", "arguments": {"id": "d1"}}
