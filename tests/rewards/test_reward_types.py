import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.types import Component, Reward

finite = st.floats(-100, 100)


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
