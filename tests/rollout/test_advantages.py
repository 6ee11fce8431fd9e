"""Advantages by component: the same as by reward for one component, kept apart for several, and never upside down."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.language import LanguageScore
from rewards.router import RewardConfig, combine_group
from rewards.types import Component, Reward, Verdict
from rollout.advantages import component_advantages, reward_advantages
from rollout.records import Group, Task

FIXED = settings(derandomize=True, deadline=None)

values = st.lists(st.none() | st.floats(-2, 2).map(lambda x: round(x, 4)), min_size=1, max_size=10)


def paid(*components):
    return Reward.of([Component(name, value, weight, weight * value) for name, value, weight in components], None)


def one(value, weight=1.0):
    return Reward.invalid("down") if value is None else paid(("only", value, weight))


@FIXED
@given(values, st.sampled_from([0.1, 1.0, 3.0]))
def test_one_component_gives_the_plain_advantages(group, weight):
    rewards = [one(value, weight) for value in group]
    np.testing.assert_allclose(component_advantages(rewards), reward_advantages(rewards, scale_by_std=True), atol=1e-9)


@FIXED
@given(values, values, st.randoms())
def test_permutation_does_not_matter_and_invalid_samples_count_nowhere(first, second, rng):
    pairs = list(zip(first, second, strict=False))
    rewards = [
        Reward.invalid("down") if None in pair else paid(("a", pair[0], 1.0), ("b", pair[1], 0.2)) for pair in pairs
    ]
    got = component_advantages(rewards)
    assert [math.isnan(a) for a in got] == [not r.valid for r in rewards]
    order = list(range(len(rewards)))
    rng.shuffle(order)
    np.testing.assert_allclose(component_advantages([rewards[i] for i in order]), got[order], atol=1e-9)
    valid = [r for r in rewards if r.valid]
    np.testing.assert_allclose(component_advantages(valid), got[[r.valid for r in rewards]], atol=1e-9)


def test_components_with_one_sum_do_not_collapse():
    rewards = [
        paid(("a", 1.0, 1.0), ("b", 0.0, 1.0)),
        paid(("a", 0.0, 1.0), ("b", 1.0, 1.0)),
        paid(("a", 0.0, 1.0), ("b", 0.0, 1.0)),
    ]
    rewards += rewards[-1:]
    plain, apart = reward_advantages(rewards, scale_by_std=True), component_advantages(rewards)
    assert plain[0] == plain[1] and apart[0] == pytest.approx(apart[1])
    rewards[3] = paid(("a", 1.0, 1.0), ("b", 0.0, 1.0))
    plain, apart = reward_advantages(rewards, scale_by_std=True), component_advantages(rewards)
    assert plain[0] == plain[1] and abs(apart[0] - apart[1]) > 0.1


def test_a_component_without_spread_or_weight_adds_nothing():
    rewards = [paid(("a", x, 1.0), ("b", 0.3, 0.5), ("c", x, 0.0)) for x in (0.0, 1.0, 1.0)]
    np.testing.assert_allclose(
        component_advantages(rewards), component_advantages([one(x) for x in (0.0, 1.0, 1.0)]), atol=1e-9
    )
    np.testing.assert_array_equal(component_advantages([paid(("a", 1.0, 0.0))] * 2), [0.0, 0.0])
    np.testing.assert_array_equal(component_advantages([Reward.of([], None)] * 2), [0.0, 0.0])
    np.testing.assert_array_equal(component_advantages([one(1.0), one(None)]), [0.0, np.nan])


@FIXED
@given(
    st.lists(
        st.tuples(st.sampled_from([True, False, None]), st.integers(0, 1000), st.none() | st.floats(0, 1)),
        min_size=1,
        max_size=40,
    )
)
def test_a_right_answer_keeps_an_advantage_over_every_wrong_one(group):
    rewards = combine_group(
        "verifiable",
        [Verdict(correct, "r") for correct, _, _ in group],
        [length for _, length, _ in group],
        [LanguageScore(share) for _, _, share in group],
        RewardConfig(1000, length_k=0.2, overlong=0.2, language_weight=0.2),
    )
    advantages = component_advantages(rewards)
    right = [a for a, (correct, _, _) in zip(advantages, group, strict=True) if correct]
    wrong = [a for a, (correct, _, _) in zip(advantages, group, strict=True) if correct is False]
    assert not right or not wrong or min(right) > max(wrong)


def test_a_group_asks_for_either():
    task = Task("t", "d", ({"role": "user", "content": "?"},))
    empty = Group(task, (), ())
    assert len(empty.advantages(True, "component")) == 0
    for bad in ((False, "component"), (True, "components")):
        with pytest.raises(ValueError, match="normalization"):
            empty.advantages(*bad)
