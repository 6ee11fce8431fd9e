"""Length reward: a factor on the outcome, gated by correctness, with a tolerance band.

    factor_i = 1 - k * clip((len_i - band * L) / (max_length - band * L), 0, 1)     for right answers
    factor_i = 1                                                                   for all others

`L` is a quantile of the lengths of the *right* answers of the group. The shape follows from what goes wrong
elsewhere:

- multiplicative (GR3, arXiv:2603.10535): an additive penalty teaches an all-wrong group to fail briefly;
  zero times a
  factor is zero;
- a band (arXiv:2505.12284): without it, fourteen tokens of difference become the whole gradient of a solved
  group;
- a quantile, not the minimum: one lucky guess of sixty tokens must not set the pace;
- off until the group is mostly right: a penalty hurts a model that is still learning to reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def length_factors(
    lengths: Sequence[int],
    correct: Sequence[bool | None],
    max_length: int,
    k: float = 0.2,
    band: float = 1.2,
    min_accuracy: float = 0.5,
    quantile: float = 0.25,
) -> list[float]:
    """One factor in [1 - k, 1] per sample of a group.

    `lengths` counts generated tokens, thinking and answer together; `correct` is None for a sample whose
    verdict is invalid (it counts nowhere). The penalty applies only where accuracy among the valid samples
    exceeds `min_accuracy`. `band >= 1` is the tolerance over the reference length, `max_length` the hard
    limit in tokens.
    """
    if len(lengths) != len(correct):
        raise ValueError(f"{len(lengths)} lengths for {len(correct)} verdicts")
    if not (0 <= k < 1 and band >= 1 and 0 <= quantile <= 1 and max_length > 0):
        raise ValueError(
            "expected 0 <= k < 1, band >= 1, 0 <= quantile <= 1, max_length > 0; "
            f"got k={k}, band={band}, quantile={quantile}, max_length={max_length}"
        )
    factors = [1.0] * len(lengths)
    valid = sum(verdict is not None for verdict in correct)
    right = sorted(length for length, verdict in zip(lengths, correct, strict=True) if verdict)
    if not right or len(right) / valid <= min_accuracy:
        return factors
    edge = band * _quantile(right, quantile)
    room = max_length - edge
    for index, (length, verdict) in enumerate(zip(lengths, correct, strict=True)):
        if verdict and length > edge:
            # No room between the band and the limit: whoever is beyond the band is beyond the limit.
            excess = (length - edge) / room if room > 0 else 1.0
            factors[index] = 1.0 - k * min(excess, 1.0)
    return factors


def _quantile(ordered: Sequence[int], q: float) -> float:
    """Linear interpolation between order statistics (numpy's default)."""
    position = q * (len(ordered) - 1)
    low, high = math.floor(position), math.ceil(position)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)
