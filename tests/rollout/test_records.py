"""The records: JSON and back, errors that name the field, advantages."""

import json
import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.rubric import Criterion
from rewards.types import Component, Reward
from rollout.records import Attempt, Group, Task, TaskError, Trajectory, dump_jsonl
from rollout.seeding import rng_for, seed_for

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
json_objects = st.dictionaries(text, st.none() | st.booleans() | st.integers() | text | st.lists(text), max_size=3)
criteria = st.builds(Criterion, name=text.filter(bool), text=text.filter(bool))
messages = st.lists(st.fixed_dictionaries({"role": st.sampled_from(["system", "user"]), "content": text}), min_size=1)
tasks = st.builds(
    Task,
    id=text.filter(bool),
    domain=text,
    messages=messages.map(tuple),
    mode=st.sampled_from(["thinking", "direct"]),
    family=text,
    language=st.sampled_from(["en", "zh"]),
    answer=st.none() | text | st.integers() | st.lists(st.integers()),
    tests=st.lists(json_objects, max_size=3).map(tuple),
    rubric=st.lists(criteria, max_size=2).map(tuple),
    environment=st.none() | json_objects,
    difficulty=st.integers(1, 9),
    provenance=json_objects,
)


@given(tasks)
def test_a_task_survives_json(task):
    line = dump_jsonl([task.to_json()])
    assert line.count("\n") == 1
    assert Task.from_json(json.loads(line)) == task


def row(**changes):
    base = {"id": "t", "domain": "math", "messages": [{"role": "user", "content": "1 + 1?"}]}
    return {key: value for key, value in (base | changes).items() if value is not ...}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"id": ...}, "field 'id': missing"),
        ({"id": ""}, "field 'id': expected a non-empty string"),
        ({"id": 3}, "field 'id'"),
        ({"domain": None}, "field 'domain': missing"),
        ({"messages": []}, "field 'messages': expected at least one"),
        ({"messages": "hello"}, "field 'messages': expected a list, got str"),
        ({"messages": [{"role": "user"}]}, r"field 'messages\[0\]\.content'"),
        ({"messages": ["hello"]}, r"field 'messages\[0\]': expected an object"),
        ({"mode": "fast"}, "field 'mode': expected one of thinking, direct, got 'fast'"),
        ({"difficulty": 0}, "field 'difficulty'"),
        ({"difficulty": True}, "field 'difficulty'"),
        ({"tests": 4}, "field 'tests': expected a list, got int"),
        ({"tests": {"a": 1}}, "field 'tests': expected a list"),
        ({"tests": ["assert f(1) == 2"]}, r"field 'tests\[0\]': expected an object, got str"),
        ({"rubric": [{"weight": "x"}]}, "field 'rubric'"),
        ({"environment": "x"}, "field 'environment': expected an object, got str"),
        ({"provenance": [1]}, "field 'provenance': expected an object, got list"),
        ({"promt": "x"}, "field 'promt': not a field of a task"),
    ],
)
def test_a_bad_row_is_refused_by_the_name_of_its_field(bad, message):
    with pytest.raises(TaskError, match=message):
        Task.from_json(row(**bad))


def test_absent_fields_take_their_defaults():
    task = Task.from_json(row(mode=None, tests=None, environment=None))
    assert (task.mode, task.tests, task.environment, task.difficulty) == ("thinking", (), None, 1)


def test_a_task_in_the_other_mode_has_an_id_of_its_own_and_finds_back():
    task = Task.from_json(row())
    direct = task.in_mode("direct")
    assert (direct.id, direct.mode) == ("t/direct", "direct")
    assert direct.in_mode("direct") is direct
    assert direct.in_mode("thinking").id == "t/thinking"
    assert direct.in_mode("thinking").in_mode("direct") == direct


def test_the_prompt_is_the_last_user_message():
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    assert Task.from_json(row(messages=turns)).prompt == "c"


def trajectory_of(tokens=4, sample=0):
    task = Task.from_json(row())
    attempt = Attempt(task, ("yes",), (), "stop", 2, sample=sample)
    mask = np.arange(tokens) >= 2
    return Trajectory(
        attempt, np.arange(tokens, dtype=np.int32), mask, np.zeros(tokens, np.float32), np.where(mask, 3, -1)
    )


def paid(value):
    return (
        Reward.invalid("sandbox died") if value is None else Reward.of([Component("outcome", value, 1.0, value)], None)
    )


def group_of(*values):
    return Group(
        Task.from_json(row()), tuple(trajectory_of(sample=i) for i in range(len(values))), tuple(map(paid, values))
    )


@given(st.lists(st.none() | st.floats(-2, 2), min_size=1, max_size=8))
def test_advantages_are_centred_on_the_valid_rewards_and_leave_out_the_invalid(values):
    advantages = group_of(*values).advantages()
    valid = [v for v in values if v is not None]
    assert [bool(np.isnan(a)) for a in advantages] == [v is None for v in values]
    assert math.fsum(a for a in advantages if not np.isnan(a)) == pytest.approx(0, abs=1e-9)
    if len(valid) > 1:
        mean = math.fsum(valid) / len(valid)
        for value, advantage in zip(values, advantages, strict=True):
            assert value is None or advantage == pytest.approx(value - mean, abs=1e-9)
    # An invalid sample changes nothing for the others.
    without = group_of(*valid).advantages() if valid else np.array([])
    np.testing.assert_array_equal(advantages[~np.isnan(advantages)], without)


def test_scaling_divides_by_the_standard_deviation_of_the_valid():
    advantages = group_of(1.0, None, 0.0, 1.0).advantages(scale_by_std=True)
    values = np.array([1.0, 0.0, 1.0])
    expected = (values - values.mean()) / (values.std(ddof=1) + 1e-6)
    np.testing.assert_allclose(advantages[[0, 2, 3]], expected)
    assert np.isnan(advantages[1])


def test_a_lone_valid_sample_teaches_nothing():
    np.testing.assert_array_equal(group_of(1.0, None).advantages(), [0.0, np.nan])


def test_records_refuse_lengths_that_do_not_fit():
    good = trajectory_of()
    with pytest.raises(ValueError, match=r"one length, got \[3, 4\]"):
        Trajectory(good.attempt, good.token_ids[:3], good.policy_mask, good.logprobs, good.versions)
    with pytest.raises(ValueError, match="1 trajectories but 2 rewards"):
        Group(good.task, (good,), (paid(1.0), paid(0.0)))


def test_groups_travel_between_processes_unchanged():
    group = group_of(1.0, None, 0.25)
    copy = pickle.loads(pickle.dumps(group))
    assert (copy.task, copy.rewards) == (group.task, group.rewards)
    for mine, its in zip(group.trajectories, copy.trajectories, strict=True):
        assert mine.attempt == its.attempt
        for name in ("token_ids", "policy_mask", "logprobs", "versions"):
            np.testing.assert_array_equal(getattr(mine, name), getattr(its, name))
            assert getattr(mine, name).dtype == getattr(its, name).dtype
    assert [Reward.from_json(json.loads(json.dumps(r.to_json()))) for r in group.rewards] == list(group.rewards)


def test_seeds_depend_on_every_name_and_on_where_names_end():
    names = [(0, "a"), (0, "b"), (1, "a"), (0, "a", 0), ("0a",), ("0", "a", ""), ("", "0", "a")]
    assert len({seed_for(*n) for n in names}) == len(names)
    assert all(0 <= seed_for(*n) < 2**63 for n in names)
    assert rng_for(0, "a").random() == rng_for(0, "a").random() != rng_for(0, "b").random()
