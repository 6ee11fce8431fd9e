"""The records of this room: what a grader says (`Verdict`) and what a trajectory is paid (`Reward`).

A reward is a value, or invalid with a reason. A grader that fails, times out or is missing says *invalid*,
never 0: a zero would teach the policy that its answer was wrong when nobody looked at it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rewards.combination import CombinationName, contributions

SUM_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Verdict:
    """What one grader says about one answer.

    `correct` is True or False, or None when the grader could not tell (then `reason` says why and the
    sample is masked). `reason` is a short stable name such as "equal" or "unevaluated"; `evidence` is
    JSON-serialisable.
    """

    correct: bool | None
    reason: str
    evidence: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def invalid(reason: str, **evidence: Any) -> Verdict:
        return Verdict(None, reason, evidence)


@dataclass(frozen=True)
class Component:
    """One named share of a reward: `contribution` is what it adds to the value (dimensionless, may be
    negative).

    `value` is the raw measurement (outcome 0/1, length factor, language share, rubric score), `weight` the
    configured size of its effect. Both are kept so that a run can be re-read without its configuration.
    """

    name: str
    value: float
    weight: float
    contribution: float = 0.0
    evidence: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "value": self.value,
            "weight": self.weight,
            "contribution": self.contribution,
            "evidence": dict(self.evidence),
        }


@dataclass(frozen=True)
class Reward:
    """A value with the components that make it up, or `value=None` with `invalid_reason`.

    `combination` names how they were combined (`rewards.combination`); that is computed again here, so that no reward
    exists whose value its components do not explain.

    Raises `ValueError` when value, contributions and combination disagree by more than 1e-6, when a number is not
    finite, when a component comes twice, or when a reward is both (or neither) valid and invalid; `TypeError` when a
    component does not belong to the combination.
    """

    value: float | None
    components: tuple[Component, ...]
    invalid_reason: str | None
    passed: bool | None
    combination: CombinationName = "sum"

    def __post_init__(self) -> None:
        if (self.value is None) == (self.invalid_reason is None):
            raise ValueError(
                "a reward has either a value or an invalid_reason, "
                f"got value={self.value!r} and invalid_reason={self.invalid_reason!r}"
            )
        if self.value is None:
            if not self.invalid_reason:
                raise ValueError("an invalid reward needs a reason that is not empty")
            if self.passed is not None:
                raise ValueError("an invalid reward cannot say whether the answer passed")
            return
        declared = _contributions(self.combination, self.components)
        for component in self.components:
            # Written as `not (... <= ...)` so that NaN fails too.
            if not abs(component.contribution - declared[component.name]) <= SUM_TOLERANCE:
                raise ValueError(
                    f"component {component.name!r} contributes {component.contribution}, and the combination "
                    f"{self.combination!r} makes it {declared[component.name]}"
                )
        total = math.fsum(component.contribution for component in self.components)
        if not abs(self.value - total) <= SUM_TOLERANCE:
            raise ValueError(f"reward value {self.value} is not the sum of its components {total}")

    @staticmethod
    def of(components: Sequence[Component], passed: bool | None, combination: CombinationName = "sum") -> Reward:
        """The reward that these components sum to."""
        return Reward(
            value=math.fsum(component.contribution for component in components),
            components=tuple(components),
            invalid_reason=None,
            passed=passed,
            combination=combination,
        )

    @staticmethod
    def combine(combination: CombinationName, measured: Sequence[Component], passed: bool | None) -> Reward:
        """The reward that a combination makes of measured values; the contributions are filled in."""
        declared = _contributions(combination, measured)
        return Reward.of([replace(c, contribution=declared[c.name]) for c in measured], passed, combination)

    @staticmethod
    def invalid(reason: str, components: Sequence[Component] = ()) -> Reward:
        """A reward that nobody could determine; the sample leaves the baseline and the loss."""
        return Reward(value=None, components=tuple(components), invalid_reason=reason, passed=None)

    @property
    def valid(self) -> bool:
        return self.value is not None

    def to_json(self) -> dict[str, Any]:
        return {
            "value": self.value,
            "components": [component.to_json() for component in self.components],
            "invalid_reason": self.invalid_reason,
            "passed": self.passed,
            "combination": self.combination,
        }

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> Reward:
        return Reward(
            value=record["value"],
            components=tuple(Component(**component) for component in record["components"]),
            invalid_reason=record["invalid_reason"],
            passed=record["passed"],
            combination=record["combination"],
        )


def _contributions(combination: CombinationName, components: Sequence[Component]) -> dict[str, float]:
    values = {component.name: component.value for component in components}
    if len(values) < len(components):
        raise ValueError(f"a component comes twice in {[component.name for component in components]}")
    return contributions(combination, values, {component.name: component.weight for component in components})
