"""Rubrics: weighted criteria, pitfalls, gates, and the criteria that a program can check without any judge.

    score = clamp((weight of the criteria met - weight of the pitfalls met) / weight of the criteria, 0, 1)

A pitfall is a fault: it says what an answer must not do, and costs its weight where the answer does it. The score is
that of HealthBench (arXiv:2505.08775: met points over all positive points), the classes and their weights are those of
Rubrics as Rewards (arXiv:2507.17746, explicit aggregation). A gate that is not satisfied makes the score 0. A criterion
on which the judge abstained makes the whole result invalid: guessing its verdict would be a reward bug.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rewards.instructions import instruction_problem

Importance = Literal["essential", "important", "optional", "pitfall"]
WEIGHTS: Mapping[str, float] = {"essential": 1.0, "important": 0.7, "optional": 0.3, "pitfall": 0.9}
"""Weight of a criterion that names none, by its importance."""


@dataclass(frozen=True)
class Criterion:
    """One thing that an answer does or does not do; `text` states it, as "Names the capital of France.".

    `importance` says what it counts: a `pitfall` subtracts its weight where it is met, the others add theirs. `weight`
    (positive) replaces the default of the importance. `gate=True` makes it a veto as well. `check`, where given, is a
    specification for `check_criterion`, and then no judge is asked. `truth` is such a specification too, but a hidden
    one: it labels the judge's training data and tells evaluation what is right, while the reward still comes from the
    judge.

    Raises `ValueError` for a weight that is not positive, an unknown importance or an unknown check.
    """

    name: str
    text: str
    weight: float | None = None
    gate: bool = False
    check: Mapping[str, Any] | None = None
    truth: Mapping[str, Any] | None = None
    importance: Importance = "essential"

    def __post_init__(self) -> None:
        if self.importance not in WEIGHTS:
            raise ValueError(
                f"criterion {self.name!r}: importance must be one of {', '.join(WEIGHTS)}, got {self.importance!r}"
            )
        if not (math.isfinite(self.points) and self.points > 0):
            raise ValueError(f"criterion {self.name!r} needs a positive weight, got {self.weight}")
        for spec in (self.check, self.truth):
            if spec is not None and (problem := instruction_problem([spec])) is not None:
                raise ValueError(f"criterion {self.name!r}: {problem}")

    @property
    def points(self) -> float:
        """What it counts: its weight, or the default of its importance."""
        return WEIGHTS[self.importance] if self.weight is None else self.weight

    @property
    def pitfall(self) -> bool:
        return self.importance == "pitfall"

    def satisfied(self, met: bool) -> bool:
        """Whether a verdict is the wanted one: met, and for a pitfall not met."""
        return met is not self.pitfall

    @property
    def known(self) -> Mapping[str, Any] | None:
        """What a program can tell of it: the check, or the hidden truth."""
        return self.check if self.check is not None else self.truth

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> Criterion:
        return Criterion(**record)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "text": self.text,
            "weight": self.weight,
            "gate": self.gate,
            "check": None if self.check is None else dict(self.check),
            "truth": None if self.truth is None else dict(self.truth),
            "importance": self.importance,
        }


@dataclass(frozen=True)
class CriterionResult:
    """`met` is None when the judge abstained. `reason` is the judge's, or "checked" for a programmatic criterion,
    `quote` its evidence. `votes` are the single judgements in the order they were asked for.
    """

    name: str
    met: bool | None
    reason: str = ""
    votes: tuple[bool | None, ...] = ()
    quote: str = ""


@dataclass(frozen=True)
class RubricResult:
    """`score` in [0, 1], or None with `invalid_reason`. `passed` says that every criterion was satisfied."""

    score: float | None
    passed: bool | None
    criteria: tuple[CriterionResult, ...]
    invalid_reason: str | None = None

    @staticmethod
    def invalid(reason: str, criteria: Sequence[CriterionResult] = ()) -> RubricResult:
        return RubricResult(None, None, tuple(criteria), reason)

    def evidence(self) -> dict[str, Any]:
        return {
            result.name: {"met": result.met, "reason": result.reason, "quote": result.quote}
            for result in self.criteria
        }


def rubric_problem(criteria: Sequence[Criterion]) -> str | None:
    """Why these criteria are no rubric, None where they are one."""
    names = [criterion.name for criterion in criteria]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        return f"the criteria of a rubric need different names, and {twice[0]!r} comes twice"
    if all(criterion.pitfall for criterion in criteria):
        return "a rubric needs at least one criterion that is no pitfall"
    return None


def combine_criteria(criteria: Sequence[Criterion], results: Sequence[CriterionResult]) -> RubricResult:
    """The rubric's result; `results[i]` belongs to `criteria[i]`. Raises `ValueError` where they do not belong
    together or are no rubric (`rubric_problem`).
    """
    if [criterion.name for criterion in criteria] != [result.name for result in results]:
        raise ValueError("criteria and results must name the same criteria in the same order")
    if problem := rubric_problem(criteria):
        raise ValueError(problem)
    missing = [result for result in results if result.met is None]
    if missing:
        reason = f"no verdict on criterion {missing[0].name!r}: {missing[0].reason or 'the judge abstained'}"
        return RubricResult.invalid(reason, results)
    pairs = list(zip(criteria, results, strict=True))
    satisfied = [criterion.satisfied(bool(result.met)) for criterion, result in pairs]
    vetoed = any(criterion.gate and not good for criterion, good in zip(criteria, satisfied, strict=True))
    gained = math.fsum(-c.points if c.pitfall else c.points for c, result in pairs if result.met)
    total = math.fsum(criterion.points for criterion in criteria if not criterion.pitfall)
    return RubricResult(
        score=0.0 if vetoed else min(1.0, max(0.0, gained / total)),
        passed=all(satisfied),
        criteria=tuple(results),
    )
