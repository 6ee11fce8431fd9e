"""The records of this room: what a grader says (`Verdict`) and what a trajectory is paid (`Reward`).

A reward is a value, or invalid with a reason. A grader that fails, times out or is missing says *invalid*,
never 0: a zero would teach the policy that its answer was wrong when nobody looked at it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

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
    contribution: float
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
    """A value with the components that sum to it, or `value=None` with `invalid_reason`.

    Raises `ValueError` when value and components disagree by more than 1e-6, when a number is not finite,
    or when a reward is both (or neither) valid and invalid.
    """

    value: float | None
    components: tuple[Component, ...]
    invalid_reason: str | None
    passed: bool | None

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
        for component in self.components:
            numbers = (component.value, component.weight, component.contribution)
            if not all(math.isfinite(number) for number in numbers):
                raise ValueError(f"component {component.name!r} is not finite: {numbers}")
        total = math.fsum(component.contribution for component in self.components)
        # Written as `not (... <= ...)` so that NaN fails too.
        if not abs(self.value - total) <= SUM_TOLERANCE:
            raise ValueError(f"reward value {self.value} is not the sum of its components {total}")

    @staticmethod
    def of(components: Sequence[Component], passed: bool | None) -> Reward:
        """The reward that these components sum to."""
        return Reward(
            value=math.fsum(component.contribution for component in components),
            components=tuple(components),
            invalid_reason=None,
            passed=passed,
        )

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
        }

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> Reward:
        return Reward(
            value=record["value"],
            components=tuple(Component(**component) for component in record["components"]),
            invalid_reason=record["invalid_reason"],
            passed=record["passed"],
        )
