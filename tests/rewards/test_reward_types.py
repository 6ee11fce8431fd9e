import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.types import Component, Reward

FIXED = settings(derandomize=True, deadline=None)

finite = st.floats(-100, 100)


@FIXED
@given(st.lists(finite, max_size=6), st.one_of(st.none(), st.booleans()))
def test_value_is_the_sum_and_survives_json(contributions, passed):
    components = [Component(f"c{i}", x, 1.0, x, {"i": i}) for i, x in enumerate(contributions)]
    reward = Reward.of(components, passed)
    assert reward.value == pytest.approx(sum(contributions), abs=1e-6)
    assert Reward.from_json(json.loads(json.dumps(reward.to_json()))) == reward


def test_invalid_survives_json_and_has_no_value():
    reward = Reward.invalid("judge down", [Component("outcome", 1.0, 1.0, 1.0)])
    assert not reward.valid and reward.value is None
    assert Reward.from_json(json.loads(json.dumps(reward.to_json()))) == reward


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_not_finite_is_refused(bad):
    with pytest.raises(ValueError, match="not finite"):
        Reward.of([Component("outcome", bad, 1.0, 0.0)], True)
    with pytest.raises(ValueError):
        Reward(bad, (), None, True)


def test_contradictions_are_refused():
    component = Component("outcome", 1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="sum"):
        Reward(0.5, (component,), None, True)
    with pytest.raises(ValueError):
        Reward(None, (), None, None)
    with pytest.raises(ValueError):
        Reward(1.0, (component,), "why", True)
    with pytest.raises(ValueError):
        Reward.invalid("")


MADE = Reward.combine(
    "verifiable",
    [Component("outcome", 1.0, 1.0), Component("length", 0.9, 0.1), Component("language", 0.5, 0.1)],
    True,
)


@pytest.mark.parametrize(
    ("path", "value", "error"),
    [
        (("value",), 1.0, ValueError),
        (("combination",), "sum", ValueError),
        (("combination",), "general", TypeError),
        (("combination",), "mine", ValueError),
        (("components", 0, "value"), 0.0, ValueError),
        (("components", 0, "value"), 2.0, ValueError),
        (("components", 1, "value"), 1.0, ValueError),
        (("components", 1, "contribution"), 0.0, ValueError),
        (("components", 2, "weight"), 0.0, ValueError),
        (("components", 2, "name"), "bonus", TypeError),
        (("components", 2, "name"), "outcome", ValueError),
        (("components", 2, "value"), math.nan, ValueError),
        (("invalid_reason",), "why", ValueError),
    ],
)
def test_a_tampered_record_is_refused(path, value, error):
    record = json.loads(json.dumps(MADE.to_json()))
    assert Reward.from_json(record) == MADE
    inner = record
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(error):
        Reward.from_json(record)


def test_moving_a_share_between_components_is_refused_though_the_sum_stays():
    outcome, length, language = MADE.components
    moved = [
        Component("outcome", 1.0, 1.0, outcome.contribution + length.contribution),
        Component("length", 0.9, 0.1, 0.0),
        language,
    ]
    with pytest.raises(ValueError, match="'outcome' contributes"):
        Reward.of(moved, True, "verifiable")
