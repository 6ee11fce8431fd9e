"""Advantages of the samples of one task, from their rewards. Pure functions; [G] float64 in sample order, NaN where the
reward is invalid (the sample leaves baseline and loss)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rewards.types import Reward

EPSILON = 1e-6
"""Added to standard deviations: a group without spread has no advantage, not an infinite one."""

MAX_DEVIATIONS = 1.5
"""Bound of a minor component's deviation, see `component_advantages`."""


def reward_advantages(rewards: Sequence[Reward], scale_by_std: bool = False) -> np.ndarray:
    """Without `scale_by_std`: A_i = R_i - mean(R) (DeepSeek-V3.2, arXiv:2512.02556; Dr. GRPO, arXiv:2503.20783).
    With it, divided by the standard deviation over the group (GRPO, arXiv:2402.03300).
    """
    return _normalised([np.nan if r.value is None else r.value for r in rewards], scale_by_std)


def component_advantages(rewards: Sequence[Reward]) -> np.ndarray:
    """A_i = sum over components k of (w_k / max w) * (c_ik - mean_i c_ik) / std_i c_ik (GDPO, arXiv:2601.05242).

    c_ik is what component k contributes to the reward of sample i (0 where it has none), w_k its weight. Normalised
    together, different combinations of components that have one sum collapse to one advantage; normalised apart, they
    do not. The weights are relative to the largest, so that one component alone gives `reward_advantages` with
    `scale_by_std`. Beyond the paper: a deviation of a component that is not the heaviest is clipped at
    `MAX_DEVIATIONS`. With the router's weights (0.36 for length and 0.2 for language at most), a right answer then
    keeps an advantage above every wrong one's: the two outcomes are at least sqrt(3) deviations apart, from three valid
    samples on, and the clipped ones 2 * 1.5 * 0.56 at most.
    """
    valid = [reward.value is not None for reward in rewards]
    names = sorted({c.name for r in rewards if r.valid for c in r.components})
    weights = {
        name: max(abs(c.weight) for r in rewards if r.valid for c in r.components if c.name == name) for name in names
    }
    heaviest = max(weights.values(), default=0.0)
    advantages = np.where(valid, 0.0, np.nan)
    if heaviest == 0.0:
        return advantages
    for name in names:
        shares = [sum(c.contribution for c in r.components if c.name == name) if r.valid else np.nan for r in rewards]
        deviations = _normalised(shares, scale_by_std=True)
        if weights[name] < heaviest:
            deviations = np.clip(deviations, -MAX_DEVIATIONS, MAX_DEVIATIONS)
        advantages = advantages + weights[name] / heaviest * deviations
    return advantages


def _normalised(numbers: Sequence[float], scale_by_std: bool) -> np.ndarray:
    values = np.array(numbers, dtype=np.float64)
    valid = ~np.isnan(values)
    if valid.sum() < 2:
        return np.where(valid, 0.0, np.nan)
    centred = values - values[valid].mean()
    if scale_by_std:
        centred = centred / (values[valid].std(ddof=1) + EPSILON)
    return centred
