"""The declared ways in which components make up a reward: one table, from which rewards are made and by which each
is checked again when it is built, also when it is read from a file.

    verifiable   value = outcome * length - min(w * (1 - language), outcome * length)
    general      value = rubric           - min(w * (1 - language), rubric)
    sum          value = sum of weight * value over all components

`w` is the weight of the language component. Which components a combination takes is part of its type: a rubric score in
a verifiable reward is a `TypeError`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

CombinationName = Literal["verifiable", "general", "sum"]
Numbers = Mapping[str, float]


@dataclass(frozen=True)
class Combination:
    """One way to combine.

    Attributes:
        required: components that every reward of this kind has.
        optional: components that it may have; None for any further names.
        contributions: from the components' values and weights to what each adds to the reward's value.
    """

    required: tuple[str, ...]
    optional: tuple[str, ...] | None
    contributions: Callable[[Numbers, Numbers], dict[str, float]]


RANGES: Mapping[str, tuple[float, float]] = {"outcome": (0, 1), "length": (0, 1), "language": (0, 1), "rubric": (0, 1)}
"""The least and the largest value of the components that the pipeline itself makes."""


def contributions(name: CombinationName, values: Numbers, weights: Numbers) -> dict[str, float]:
    """What each component adds to the value under a combination.

    Raises:
        TypeError: for a component that does not belong to the combination, or one that is missing.
        ValueError: for an unknown combination, and a value that is not finite or out of its range.
    """
    if name not in COMBINATIONS:
        raise ValueError(f"unknown combination {name!r}; there are: {', '.join(COMBINATIONS)}")
    combination = COMBINATIONS[name]
    missing = [component for component in combination.required if component not in values]
    if combination.optional is not None:
        allowed = combination.required + combination.optional
        if missing or (stray := [component for component in values if component not in allowed]):
            what = f"lacks {missing[0]!r}" if missing else f"does not take {stray[0]!r}"
            raise TypeError(f"a {name} reward is made of {', '.join(allowed)}; this one {what}")
        for component, value in values.items():
            low, high = RANGES[component]
            if not low <= value <= high:
                raise ValueError(f"component {component!r} must lie in [{low}, {high}], got {value}")
    for component in values:
        if not (math.isfinite(values[component]) and math.isfinite(weights[component])):
            raise ValueError(
                f"component {component!r} is not finite: value {values[component]}, weight {weights[component]}"
            )
    return combination.contributions(values, weights)


def _verifiable(values: Numbers, weights: Numbers) -> dict[str, float]:
    outcome, factor = values["outcome"], values["length"]
    return {"outcome": outcome, "length": outcome * (factor - 1.0)} | _language(values, weights, outcome * factor)


def _general(values: Numbers, weights: Numbers) -> dict[str, float]:
    return {"rubric": values["rubric"]} | _language(values, weights, values["rubric"])


def _language(values: Numbers, weights: Numbers, before: float) -> dict[str, float]:
    """A deduction of at most its weight, where there is something to lose, and never below zero."""
    if "language" not in values:
        return {}
    return {"language": -min(weights["language"] * (1.0 - values["language"]), before)}


def _sum(values: Numbers, weights: Numbers) -> dict[str, float]:
    return {name: weights[name] * value for name, value in values.items()}


COMBINATIONS: Mapping[str, Combination] = {
    "verifiable": Combination(("outcome", "length"), ("language",), _verifiable),
    "general": Combination(("rubric",), ("language",), _general),
    "sum": Combination((), None, _sum),
}
