import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.length import SLOPE, length_factors

FIXED = settings(derandomize=True, deadline=None)

LIMIT = 4096
groups = st.lists(st.tuples(st.integers(0, LIMIT), st.one_of(st.none(), st.booleans())), min_size=0, max_size=16)
sizes = {"k": st.floats(0, 0.9), "overlong": st.floats(0, 0.9)}


def factors(group, **more):
    return length_factors([length for length, _ in group], [right for _, right in group], LIMIT, **more)


@FIXED
@given(groups, st.fixed_dictionaries(sizes), st.integers(1, 2 * LIMIT), st.floats(1, 3), st.floats(0, 1))
def test_a_right_answer_is_worth_more_than_a_wrong_one_in_any_group(group, weights, limit, band, quantile):
    lengths, verdicts = [length for length, _ in group], [right for _, right in group]
    found = length_factors(lengths, verdicts, limit, band=band, quantile=quantile, **weights)
    values = [bool(right) * factor for right, factor in zip(verdicts, found, strict=True)]
    assert all(map(math.isfinite, values))
    least = (1 - weights["k"]) * (1 - weights["overlong"])
    for value, right in zip(values, verdicts, strict=True):
        assert least - 1e-9 <= value <= 1 if right else value == 0


@FIXED
@given(groups, st.randoms(), st.fixed_dictionaries(sizes))
def test_permutation_does_not_matter(group, rng, weights):
    order = list(range(len(group)))
    rng.shuffle(order)
    shuffled = factors([group[index] for index in order], **weights)
    assert shuffled == [factors(group, **weights)[index] for index in order]


@FIXED
@given(groups, st.fixed_dictionaries(sizes))
def test_wrong_and_invalid_samples_are_never_touched(group, weights):
    found = factors(group, **weights)
    assert all(factor == 1 for (_, right), factor in zip(group, found, strict=True) if not right)


@FIXED
@given(groups)
def test_invalid_samples_count_nowhere(group):
    judged = [sample for sample in group if sample[1] is not None]
    found = [factor for factor, (_, right) in zip(factors(group), group, strict=True) if right is not None]
    assert found == factors(judged)


@FIXED
@given(st.lists(st.integers(0, LIMIT), max_size=16))
def test_no_effect_on_an_all_wrong_group(lengths):
    assert factors([(length, False) for length in lengths], overlong=0.5) == [1] * len(lengths)


def test_the_band_is_off_while_the_group_still_learns():
    assert factors([(100, True), (3000, True), (50, False), (50, False)], overlong=0.2) == [1, 1, 1, 1]


def test_fourteen_tokens_are_not_a_gradient():
    assert factors([(100 + 2 * i, True) for i in range(8)]) == [1.0] * 8


def test_one_lucky_guess_does_not_set_the_pace():
    assert min(factors([(60, True)] + [(1000, True)] * 7)) == 1.0


@pytest.mark.parametrize("length", [4000, 4090, LIMIT])
def test_one_right_answer_near_the_limit_among_short_wrong_ones_keeps_its_worth(length):
    group = [(length, True)] + [(50, False)] * 7
    assert factors(group, k=0.2, overlong=0.2)[0] >= 0.8 - 1e-9


@FIXED
@given(st.integers(1, LIMIT), st.integers(0, LIMIT - 1), st.floats(0, 0.2), st.floats(0, 0.2))
def test_continuous_everywhere_at_the_edge_of_the_band_and_of_the_ramp(reference, length, k, overlong):
    """One token more or less of one sample never costs more than the slopes allow, wherever the band ends."""
    pair = [
        length_factors([reference] * 9 + [length + more], [True] * 10, LIMIT, k=k, overlong=overlong)[-1]
        for more in (0, 1)
    ]
    # With nine of ten at the reference, the quarter quantile stays there.
    assert -1e-12 <= pair[0] - pair[1] <= (k / SLOPE + overlong / 0.1) / LIMIT + 1e-9


@FIXED
@given(st.integers(1, 3000))
def test_nothing_is_taken_up_to_the_edge_of_the_band(reference):
    edge = int(1.2 * reference)
    assert length_factors([reference] * 9 + [edge], [True] * 10, LIMIT)[-1] == 1.0


def test_the_ramp_rises_only_near_the_limit():
    at = [length_factors([n], [True], 1000, k=0.0, overlong=0.2)[0] for n in (0, 500, 899, 900, 950, 1000, 1200)]
    assert at == pytest.approx([1, 1, 1, 1, 0.9, 0.8, 0.8])


def test_the_limit_costs_k_and_degenerate_groups_are_finite():
    assert length_factors([10] * 9 + [LIMIT], [True] * 10, LIMIT, k=0.2)[-1] == pytest.approx(0.8)
    assert length_factors([], [], 10) == []
    assert length_factors([10, 10], [True, True], 10) == [1, 1]
    assert length_factors([7], [True], 10) == [1]
    assert length_factors([0], [True], 1) == [1]
    assert length_factors([10] * 9 + [14], [True] * 10, 11)[-1] == pytest.approx(0.8)
    with pytest.raises(ValueError, match="1 lengths for 0"):
        length_factors([1], [], 10)
    for bad in ({"k": 1.0}, {"overlong": -0.1}, {"band": 0.9}, {"overlong_share": 0.0}, {"quantile": math.nan}):
        with pytest.raises(ValueError, match="expected"):
            length_factors([1], [True], 10, **bad)


def test_longer_is_never_better():
    rng = random.Random(0)
    for _ in range(50):
        lengths = sorted(rng.randrange(LIMIT) for _ in range(8))
        values = length_factors(lengths, [True] * 8, LIMIT, overlong=0.2)
        assert values == sorted(values, reverse=True)
