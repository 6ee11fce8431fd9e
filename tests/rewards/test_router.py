import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.language import LanguageScore
from rewards.router import MAX_PENALTY, RewardConfig, combine_group
from rewards.rubric import RubricResult
from rewards.types import Component, Reward, Verdict

FIXED = settings(derandomize=True, deadline=None)

CONFIG = RewardConfig(max_length=1000)
shares = st.one_of(st.none(), st.floats(0, 1))
samples = st.lists(
    st.tuples(st.sampled_from([True, False, None]), st.integers(0, 1000), shares), min_size=0, max_size=12
)
penalties = st.floats(0, MAX_PENALTY)


def verifiable(group, config=CONFIG):
    return combine_group(
        "verifiable",
        [Verdict(correct, "r") for correct, _, _ in group],
        [length for _, length, _ in group],
        [LanguageScore(share) for _, _, share in group],
        config,
    )


@FIXED
@given(samples, penalties, penalties, penalties)
def test_right_beats_wrong_in_any_group_and_contributions_sum(group, weight, k, overlong):
    config = RewardConfig(max_length=1000, length_k=k, overlong=overlong, language_weight=weight)
    rewards = verifiable(group, config)
    for (correct, _, _), reward in zip(group, rewards, strict=True):
        assert reward.valid == (correct is not None)
        if correct is False:
            assert reward.value == 0
        if correct:
            assert 0.44 - 1e-9 <= reward.value <= 1 + 1e-12
            assert reward.value == pytest.approx(math.fsum(c.contribution for c in reward.components))
        assert Reward.from_json(json.loads(json.dumps(reward.to_json()))) == reward


@FIXED
@given(samples, st.randoms())
def test_permutation_does_not_matter(group, rng):
    order = list(range(len(group)))
    rng.shuffle(order)
    rewards = verifiable(group)
    for shuffled, index in zip(verifiable([group[i] for i in order]), order, strict=True):
        assert (shuffled.value, shuffled.valid) == (pytest.approx(rewards[index].value), rewards[index].valid)


def test_components_are_named():
    reward = verifiable([(True, 10, 0.5)])[0]
    assert [c.name for c in reward.components] == ["outcome", "length", "language"]
    assert reward.value == pytest.approx(0.95) and reward.passed is True
    assert reward.combination == "verifiable"


def test_no_opinion_is_no_advantage():
    for score in (None, LanguageScore(None)):
        assert combine_group("verifiable", [Verdict(True, "equal")], [10], [score], CONFIG)[0].value == 1.0
    # The wordless sample gets what the others that were paid get on average.
    values = [r.value for r in verifiable([(True, 9, 0.0), (True, 9, 1.0), (True, 9, None), (False, 9, 0.0)])]
    assert values == pytest.approx([0.9, 1.0, 0.95, 0.0])
    # Where all others write in the wrong language, writing nothing is no way out.
    assert [r.value for r in verifiable([(True, 9, 0.0)] * 3 + [(True, 9, None)])] == pytest.approx([0.9] * 4)


@FIXED
@given(st.lists(shares, min_size=2, max_size=8))
def test_having_no_opinion_never_pays_more_than_the_best(group):
    rewards = verifiable([(True, 10, share) for share in group])
    told = [r.value for r, share in zip(rewards, group, strict=True) if share is not None]
    untold = [r.value for r, share in zip(rewards, group, strict=True) if share is None]
    if told and untold:
        assert min(told) - 1e-9 <= min(untold) and max(untold) <= max(told) + 1e-9


@FIXED
@given(st.floats(0, 1), st.floats(0, 1))
def test_general_tasks_take_the_rubric_and_the_language(score, share):
    result = RubricResult(score, score == 1, ())
    reward = combine_group("general", [result], [10], [LanguageScore(share)], CONFIG)[0]
    assert 0 <= reward.value <= score
    assert reward.value >= score - 0.1 - 1e-9
    assert reward.combination == "general"


def test_invalid_stays_invalid():
    def reason(kind, judgement):
        return combine_group(kind, [judgement], [1], [None], CONFIG)[0].invalid_reason

    assert reason("general", RubricResult(None, None, (), "judge down")) == "judge down"
    assert reason("verifiable", Verdict.invalid("timeout")) == "timeout"
    assert "no reason" in reason("verifiable", Verdict.invalid(""))
    for score in (math.nan, math.inf, -0.1, 1.1):
        assert "not in [0, 1]" in reason("general", RubricResult(score, None, ()))


def test_the_judge_cannot_pay_a_verifiable_task():
    with pytest.raises(TypeError, match="verifiable"):
        combine_group("verifiable", [RubricResult(1.0, True, ())], [1], [None], CONFIG)
    with pytest.raises(TypeError, match="verifiable"):
        combine_group("verifiable", [Verdict(True, "r"), RubricResult(1.0, True, ())], [1, 1], [None, None], CONFIG)
    with pytest.raises(TypeError, match="general"):
        combine_group("general", [Verdict(True, "equal")], [1], [None], CONFIG)
    with pytest.raises(ValueError, match="kind"):
        combine_group("other", [Verdict(True, "equal")], [1], [None], CONFIG)
    with pytest.raises(ValueError, match="group"):
        combine_group("verifiable", [Verdict(True, "equal")], [1, 2], [None], CONFIG)


def test_a_rubric_component_can_not_be_slipped_into_a_verifiable_reward():
    outcome, length = Component("outcome", 0.0, 1.0), Component("length", 1.0, 0.1)
    with pytest.raises(TypeError, match="does not take 'rubric'"):
        Reward.combine("verifiable", [outcome, length, Component("rubric", 1.0, 1.0)], None)
    with pytest.raises(TypeError, match="lacks 'length'"):
        Reward.combine("verifiable", [outcome], None)
    with pytest.raises(TypeError, match="does not take 'outcome'"):
        Reward.combine("general", [Component("rubric", 1.0, 1.0), outcome], None)


@pytest.mark.parametrize("name", ["language_weight", "length_k", "overlong"])
@pytest.mark.parametrize("weight", [0.21, -0.1, math.nan])
def test_weights_that_would_let_a_wrong_answer_win_are_refused(name, weight):
    with pytest.raises(ValueError, match=name):
        RewardConfig(max_length=10, **{name: weight})
