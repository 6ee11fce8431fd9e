"""Length reward: a factor on the outcome, gated by correctness, with a tolerance band and a ramp at the hard limit.

    factor_i = (1 - k * clip((len_i - band * L) / room, 0, 1)) * (1 - c * clip((len_i - start) / (max - start), 0, 1))

    room  = max(max - band * L, SLOPE * max)
    start = (1 - overlong_share) * max

for right answers, 1 for all others. `len` counts every token that the policy wrote, thinking, answer and tool calls
together; `max` is the hard limit; `L` a quantile of the lengths of the *right* answers of the group. The second factor
is DAPO's soft overlong punishment (arXiv:2503.14476, eq. 13: 0 up to the cache, then linear to its full size at the
limit), here on right answers only. The shape follows from what goes wrong elsewhere:

- multiplicative (GR3, arXiv:2603.10535): an additive penalty teaches an all-wrong group to fail briefly; zero times a
  factor is zero;
- a band (arXiv:2505.12284): without it, fourteen tokens of difference become the whole gradient of a solved group;
- a quantile, not the minimum: one lucky guess of sixty tokens must not set the pace;
- off until the group is mostly right: a penalty hurts a model that is still learning to reason (arXiv:2602.09591);
- `room` has a least size, so that a band which ends just below the limit is no cliff.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

SLOPE = 0.1
"""Share of the limit over which the first factor falls at the least: no token costs more than k / (0.1 * max)."""


def length_factors(
    lengths: Sequence[int],
    correct: Sequence[bool | None],
    max_length: int,
    k: float = 0.2,
    band: float = 1.2,
    min_accuracy: float = 0.5,
    quantile: float = 0.25,
    overlong: float = 0.0,
    overlong_share: float = 0.1,
) -> list[float]:
    """One factor in [(1 - k) * (1 - overlong), 1] per sample of a group.

    `lengths` counts generated tokens; `correct` is None for a sample whose verdict is invalid (it counts nowhere). The
    first factor applies only where accuracy among the valid samples exceeds `min_accuracy`, the second always.
    `band >= 1` is the tolerance over the reference length, `max_length` the hard limit in tokens, `overlong_share` the
    part of it before the limit in which the ramp rises.
    """
    if len(lengths) != len(correct):
        raise ValueError(f"{len(lengths)} lengths for {len(correct)} verdicts")
    if not (0 <= k < 1 and 0 <= overlong < 1 and band >= 1 and 0 <= quantile <= 1 and max_length > 0):
        raise ValueError(
            "expected 0 <= k < 1, 0 <= overlong < 1, band >= 1, 0 <= quantile <= 1, max_length > 0; "
            f"got k={k}, overlong={overlong}, band={band}, quantile={quantile}, max_length={max_length}"
        )
    if not 0 < overlong_share <= 1:
        raise ValueError(f"expected 0 < overlong_share <= 1, got {overlong_share}")
    valid = sum(verdict is not None for verdict in correct)
    right = sorted(length for length, verdict in zip(lengths, correct, strict=True) if verdict)
    shorten = k if right and len(right) / valid > min_accuracy else 0.0
    edge = band * _quantile(right, quantile) if right else 0.0
    room = max(max_length - edge, SLOPE * max_length)
    ramp = overlong_share * max_length
    return [
        (1.0 - shorten * _clip((length - edge) / room)) * (1.0 - overlong * _clip((length - max_length + ramp) / ramp))
        if verdict
        else 1.0
        for length, verdict in zip(lengths, correct, strict=True)
    ]


def _clip(share: float) -> float:
    return min(1.0, max(0.0, share))


def _quantile(ordered: Sequence[int], q: float) -> float:
    """Linear interpolation between order statistics (numpy's default)."""
    position = q * (len(ordered) - 1)
    low, high = math.floor(position), math.ceil(position)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)
