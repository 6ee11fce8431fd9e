"""Intervals for pass rates. Closed formulas (no resampling), pure functions of counts and rates.

Everything rests on Wilson's score interval; differences and means combine Wilson limits by "square and add"
(Newcombe 1998, Statistics in Medicine 17:857-872, 873-890 and 2635-2650; called MOVER elsewhere), which
behaves well where the normal approximation does not: rates near 0 or 1 and small counts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

Z95 = 1.959963984540054
"""97.5 % quantile of the standard normal distribution."""

Interval = tuple[float, float]
"""Lower and upper limit."""


def wilson(passes: float, n: int, z: float = Z95) -> Interval:
    """Wilson's score interval for `passes` out of `n`; (0, 1) where nothing was tried.

    Raises:
        ValueError: if `passes` is not between 0 and `n`.
    """
    if n < 0 or not 0 <= passes <= n:
        raise ValueError(f"expected 0 <= passes <= n, got passes={passes} and n={n}")
    if n == 0:
        return 0.0, 1.0
    rate = passes / n
    centre = rate + z * z / (2 * n)
    reach = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # At 0 and n the formula gives the end exactly, but for rounding.
    low = 0.0 if passes == 0 else (centre - reach) / scale
    high = 1.0 if passes == n else (centre + reach) / scale
    return low, high


def difference(
    first: float, first_ci: Interval, second: float, second_ci: Interval
) -> tuple[float, Interval]:
    """`first - second` of two rates measured on different samples, with its interval (Newcombe's method
    10)."""
    change = first - second
    below = math.hypot(first - first_ci[0], second_ci[1] - second)
    above = math.hypot(first_ci[1] - first, second - second_ci[0])
    return change, (change - below, change + above)


def paired_difference(
    first: Sequence[bool], second: Sequence[bool], z: float = Z95
) -> tuple[float, Interval]:
    """Pass rate of `first` minus that of `second` on the same tasks in the same order, with its interval.

    Newcombe's square-and-add interval for paired proportions: the correlation of the two outcomes (phi,
    corrected for continuity where positive) takes part in the width, so that two checkpoints that fail at the
    same tasks are told apart with fewer of them.

    Raises:
        ValueError: if the two have different lengths or are empty.
    """
    if len(first) != len(second) or not first:
        raise ValueError(
            f"expected as many outcomes on both sides, at least one; got {len(first)} and {len(second)}"
        )
    n = len(first)
    both = sum(1 for a, b in zip(first, second, strict=True) if a and b)
    only_first = sum(1 for a, b in zip(first, second, strict=True) if a and not b)
    only_second = sum(1 for a, b in zip(first, second, strict=True) if b and not a)
    neither = n - both - only_first - only_second
    one, two = (both + only_first) / n, (both + only_second) / n
    one_low, one_high = wilson(both + only_first, n, z)
    two_low, two_high = wilson(both + only_second, n, z)
    phi = _phi(both, only_first, only_second, neither)
    below = _square_and_add(one - one_low, two_high - two, phi)
    above = _square_and_add(one_high - one, two - two_low, phi)
    change = one - two
    return change, (change - below, change + above)


def mean_of_rates(cells: Iterable[tuple[float, Interval]]) -> tuple[float, Interval]:
    """Unweighted mean of rates (the modes of a domain, the domains of a checkpoint) with its interval.

    The samples behind the rates are taken as independent; where two modes answer the same problems the true
    interval is somewhat wider.

    Raises:
        ValueError: if there is no rate.
    """
    rates = list(cells)
    if not rates:
        raise ValueError("the mean of no rates is not defined")
    mean = math.fsum(rate for rate, _ in rates) / len(rates)
    below = math.hypot(*(rate - low for rate, (low, _) in rates)) / len(rates)
    above = math.hypot(*(high - rate for rate, (_, high) in rates)) / len(rates)
    return mean, (max(0.0, mean - below), min(1.0, mean + above))


def _phi(both: int, only_first: int, only_second: int, neither: int) -> float:
    """Correlation of the 2x2 table, corrected as in Newcombe's method 10; 0 where a margin is empty."""
    margins = (both + only_first) * (only_second + neither) * (both + only_second) * (only_first + neither)
    if margins == 0:
        return 0.0
    determinant: float = both * neither - only_first * only_second
    if determinant > 0:
        n = both + only_first + only_second + neither
        determinant = max(determinant - n / 2, 0.0)
    return determinant / math.sqrt(margins)


def _square_and_add(one: float, two: float, phi: float) -> float:
    return math.sqrt(max(0.0, one * one - 2 * phi * one * two + two * two))
