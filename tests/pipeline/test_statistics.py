"""Known values are from the tables of Newcombe's three papers of 1998 and Fagerland et al. 2014."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.statistics import difference, mean_of_rates, paired_difference, wilson


@pytest.mark.parametrize(
    ("passes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_agrees_with_newcombes_table(passes, n, low, high):
    assert wilson(passes, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_of_nothing_says_nothing():
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("passes", "n"), [(-1, 3), (4, 3), (0, -1)])
def test_wilson_refuses_impossible_counts(passes, n):
    with pytest.raises(ValueError, match="expected 0 <= passes <= n"):
        wilson(passes, n)


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_rate_and_mirrors(counts):
    passes, n = counts
    low, high = wilson(passes, n)
    assert 0 <= low <= passes / n <= high <= 1
    assert wilson(n - passes, n) == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((10, 10), (0, 10), 0.6075, 1.0),
    ],
)
def test_difference_agrees_with_newcombes_table(first, second, low, high):
    one, two = (passes / n for passes, n in (first, second))
    change, interval = difference(one, wilson(*first), two, wilson(*second))
    assert change == pytest.approx(one - two)
    assert interval == pytest.approx((low, high), abs=5e-5)


def pairs(both, only_first, only_second, neither):
    cells = [(True, True)] * both + [(True, False)] * only_first
    cells += [(False, True)] * only_second + [(False, False)] * neither
    return [a for a, _ in cells], [b for _, b in cells]


@pytest.mark.parametrize(
    ("table", "change", "low", "high", "digits"),
    [((36, 12, 2, 0), 0.20, 0.0569, 0.3404, 5e-5), ((1, 1, 7, 12), -0.2857, -0.507, -0.026, 5e-4)],
)
def test_paired_difference_agrees_with_published_tables(table, change, low, high, digits):
    got, interval = paired_difference(*pairs(*table))
    assert got == pytest.approx(change, abs=5e-5)
    assert interval == pytest.approx((low, high), abs=digits)


def test_paired_tells_apart_what_unpaired_does_not():
    first, second = pairs(100, 14, 2, 84)
    _, (low, _) = paired_difference(first, second)
    n = len(first)
    _, (loose, _) = difference(sum(first) / n, wilson(sum(first), n), sum(second) / n, wilson(sum(second), n))
    assert loose < 0 < low


def test_paired_needs_equal_lengths():
    with pytest.raises(ValueError, match="got 1 and 2"):
        paired_difference([True], [True, False])


def test_mean_of_one_is_itself_and_of_equals_is_narrower():
    cell = (0.5, wilson(50, 100))
    assert mean_of_rates([cell]) == (0.5, pytest.approx(cell[1]))
    mean, (low, high) = mean_of_rates([cell] * 4)
    assert mean == 0.5
    assert high - low == pytest.approx((cell[1][1] - cell[1][0]) / math.sqrt(4))
    with pytest.raises(ValueError, match="no rates"):
        mean_of_rates([])
