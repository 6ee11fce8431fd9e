import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.length import length_factors

LIMIT = 4096
groups = st.lists(
    st.tuples(st.integers(0, LIMIT), st.one_of(st.none(), st.booleans())), min_size=0, max_size=16
)


def factors(group, **more):
    return length_factors([length for length, _ in group], [right for _, right in group], LIMIT, **more)


@given(groups, st.floats(0, 0.9))
def test_a_right_answer_is_worth_more_than_a_wrong_one(group, k):
    values = [bool(right) * factor for (_, right), factor in zip(group, factors(group, k=k), strict=True)]
    right = [value for value, (_, verdict) in zip(values, group, strict=True) if verdict]
    assert all(1 - k - 1e-9 <= value <= 1 for value in right)
    assert all(value > 0 for value in right)


@given(groups, st.randoms())
def test_permutation_does_not_matter(group, rng):
    order = list(range(len(group)))
    rng.shuffle(order)
    shuffled = factors([group[index] for index in order])
    assert shuffled == [factors(group)[index] for index in order]


@given(groups)
def test_wrong_and_invalid_samples_are_never_touched(group):
    assert all(factor == 1 for (_, right), factor in zip(group, factors(group), strict=True) if not right)


def test_no_effect_where_the_group_is_wrong_or_still_learning():
    assert factors([(100, False), (4000, False)]) == [1, 1]
    assert factors([(100, True), (4000, True), (50, False), (50, False)]) == [1, 1, 1, 1]


def test_fourteen_tokens_are_not_a_gradient():
    assert factors([(100 + 2 * i, True) for i in range(8)]) == [1.0] * 8


def test_one_lucky_guess_does_not_set_the_pace():
    assert min(factors([(60, True)] + [(1000, True)] * 7)) == 1.0


@given(st.integers(1, 3000))
def test_continuous_at_the_edge_of_the_band(reference):
    edge = 1.2 * reference
    at = [length_factors([reference] * 9 + [int(edge) + d], [True] * 10, LIMIT)[-1] for d in (0, 1)]
    assert at[0] == 1.0 and 0 <= at[0] - at[1] < 0.01


def test_the_limit_costs_k_and_degenerate_groups_are_finite():
    assert length_factors([10] * 9 + [LIMIT], [True] * 10, LIMIT, k=0.2)[-1] == pytest.approx(0.8)
    assert length_factors([], [], 10) == []
    assert length_factors([10, 10], [True, True], 10) == [1, 1]
    assert length_factors([10] * 9 + [13], [True] * 10, 11)[-1] == pytest.approx(0.8)
    with pytest.raises(ValueError):
        length_factors([1], [], 10)


def test_longer_is_never_better():
    rng = random.Random(0)
    for _ in range(50):
        lengths = sorted(rng.randrange(LIMIT) for _ in range(8))
        values = length_factors(lengths, [True] * 8, LIMIT)
        assert values == sorted(values, reverse=True)
