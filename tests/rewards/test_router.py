import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.language import LanguageScore
from rewards.router import RewardConfig, combine_group
from rewards.rubric import RubricResult
from rewards.types import Verdict

CONFIG = RewardConfig(max_length=1000)
samples = st.lists(
    st.tuples(
        st.sampled_from([True, False, None]), st.integers(0, 1000), st.one_of(st.none(), st.floats(0, 1))
    ),
    min_size=1,
    max_size=12,
)


@given(samples, st.floats(0, 0.2), st.floats(0, 0.79))
def test_right_beats_wrong_and_contributions_sum(group, weight, k):
    config = RewardConfig(max_length=1000, length_k=k, language_weight=weight)
    rewards = combine_group(
        "verifiable",
        [Verdict(correct, "r") for correct, _, _ in group],
        [length for _, length, _ in group],
        [LanguageScore(share) for _, _, share in group],
        config,
    )
    for (correct, _, _), reward in zip(group, rewards, strict=True):
        assert reward.valid == (correct is not None)
        if correct is False:
            assert reward.value == 0
        if correct:
            assert 0 < reward.value <= 1 + 1e-12
            assert reward.value == pytest.approx(math.fsum(c.contribution for c in reward.components))


def test_components_are_named():
    reward = combine_group("verifiable", [Verdict(True, "equal")], [10], [LanguageScore(0.5)], CONFIG)[0]
    assert [c.name for c in reward.components] == ["outcome", "length", "language"]
    assert reward.value == pytest.approx(0.95) and reward.passed is True


def test_no_opinion_is_neutral():
    for score in (None, LanguageScore(None)):
        assert combine_group("verifiable", [Verdict(True, "equal")], [10], [score], CONFIG)[0].value == 1.0


@given(st.floats(0, 1), st.floats(0, 1))
def test_general_tasks_take_the_rubric_and_the_language(score, share):
    result = RubricResult(score, score == 1, ())
    reward = combine_group("general", [result], [10], [LanguageScore(share)], CONFIG)[0]
    assert 0 <= reward.value <= score
    assert reward.value >= score - 0.1 - 1e-9


def test_invalid_stays_invalid():
    assert combine_group("general", [RubricResult(None, None, (), "judge down")], [1], [None], CONFIG)[
        0
    ].invalid_reason == ("judge down")
    assert (
        combine_group("verifiable", [Verdict.invalid("timeout")], [1], [None], CONFIG)[0].invalid_reason
        == "timeout"
    )


def test_the_judge_cannot_pay_a_verifiable_task():
    with pytest.raises(TypeError, match="verifiable"):
        combine_group("verifiable", [RubricResult(1.0, True, ())], [1], [None], CONFIG)
    with pytest.raises(TypeError, match="general"):
        combine_group("general", [Verdict(True, "equal")], [1], [None], CONFIG)
    with pytest.raises(ValueError):
        combine_group("other", [Verdict(True, "equal")], [1], [None], CONFIG)
    with pytest.raises(ValueError, match="group"):
        combine_group("verifiable", [Verdict(True, "equal")], [1, 2], [None], CONFIG)


@pytest.mark.parametrize("bad", [{"language_weight": 0.3}, {"length_k": 0.95}, {"length_k": -0.1}])
def test_weights_that_would_let_a_wrong_answer_win_are_refused(bad):
    with pytest.raises(ValueError):
        RewardConfig(max_length=10, **bad)
