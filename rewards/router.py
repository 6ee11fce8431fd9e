"""The router: which judgements make up the reward of which kind of task.

    kind         judged by        components                    combination (`rewards.combination`)
    verifiable   Verdict          outcome, length, language     outcome * length factor - language penalty
    general      RubricResult     rubric, language              rubric score - language penalty

The outcome is 0 or 1; an agent's task is verifiable too: its outcome is the state of its world at the end, its length
what it wrote in all turns. The language penalty is bounded, is paid only where there is something to lose (a right
answer, a score above zero), and never takes a value below zero. A sample whose language nobody can tell gets the mean
share of the others of its group that have something to lose: no opinion is no advantage, so writing no words, or only
code, is no way out. A verifiable task takes verdicts only and a general one rubric results only: mixing them is a
`TypeError`, because a judge that can be persuaded must not be addable to a task that can be checked. (DeepSeek-V3.2,
arXiv:2512.02556: rule-based outcome, length and language rewards for reasoning and agents; a generative reward model
with per-prompt rubrics for general tasks.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rewards.language import LanguageScore
from rewards.length import length_factors
from rewards.rubric import RubricResult
from rewards.types import Component, Reward, Verdict

TaskKind = Literal["verifiable", "general"]
JUDGED_BY: Mapping[TaskKind, type[Verdict] | type[RubricResult]] = {"verifiable": Verdict, "general": RubricResult}
"""The type of judgement that each kind of task takes."""

MAX_PENALTY = 0.2
"""Largest weight of each of the three penalties: length beyond the band, length near the limit, language."""


@dataclass(frozen=True)
class RewardConfig:
    """`max_length` in tokens; the `length_*` and `overlong*` fields are those of `length.length_factors`. A weight of 0
    turns its penalty off.

    Raises `ValueError` for weights above `MAX_PENALTY`. Below it a right answer is worth 0.8 * 0.8 - 0.2 = 0.44 or
    more, and a wrong one 0.
    """

    max_length: int
    length_k: float = 0.2
    length_band: float = 1.2
    length_min_accuracy: float = 0.5
    length_quantile: float = 0.25
    overlong: float = 0.1
    overlong_share: float = 0.1
    language_weight: float = 0.1

    def __post_init__(self) -> None:
        for name in ("length_k", "overlong", "language_weight"):
            if not 0 <= getattr(self, name) <= MAX_PENALTY:
                raise ValueError(
                    f"{name} must lie in [0, {MAX_PENALTY}], so that a right answer always beats a wrong one; "
                    f"got {getattr(self, name)}"
                )

    @property
    def length_weight(self) -> float:
        """The largest share of the outcome that length can cost."""
        return 1.0 - (1.0 - self.length_k) * (1.0 - self.overlong)


def combine_group(
    kind: TaskKind,
    judgements: Sequence[Verdict] | Sequence[RubricResult],
    lengths: Sequence[int],
    language_scores: Sequence[LanguageScore | None],
    config: RewardConfig,
) -> list[Reward]:
    """The rewards of one group: sample i has `judgements[i]`, `lengths[i]` tokens and `language_scores[i]`.

    `judgements` are of the type that `JUDGED_BY` says; anything else raises `TypeError`. A language score of None
    leaves the language out. Invalid judgements, and scores that are none, give invalid rewards.
    """
    if kind not in JUDGED_BY:
        raise ValueError(f"kind must be one of {', '.join(JUDGED_BY)}, got {kind!r}")
    if not len(judgements) == len(lengths) == len(language_scores):
        raise ValueError(
            f"{len(judgements)} judgements, {len(lengths)} lengths and {len(language_scores)} language "
            "scores do not belong to one group"
        )
    for judgement in judgements:
        if not isinstance(judgement, JUDGED_BY[kind]):
            raise TypeError(f"a {kind} task is paid by {JUDGED_BY[kind].__name__}, got {type(judgement).__name__}")
    measured = (
        _outcomes([v for v in judgements if isinstance(v, Verdict)], lengths, config)
        if kind == "verifiable"
        else [_rubric(r) for r in judgements if isinstance(r, RubricResult)]
    )
    languages = _languages(language_scores, measured, config)
    rewards = []
    passed = [judged.correct if isinstance(judged, Verdict) else judged.passed for judged in judgements]
    for components, language, right in zip(measured, languages, passed, strict=True):
        if isinstance(components, str):
            rewards.append(Reward.invalid(components))
        else:
            rewards.append(Reward.combine(kind, components + language, right))
    return rewards


Measured = list[Component] | str
"""The components of a valid sample, or why it is invalid."""


def _outcomes(verdicts: Sequence[Verdict], lengths: Sequence[int], config: RewardConfig) -> list[Measured]:
    factors = length_factors(
        lengths,
        [verdict.correct for verdict in verdicts],
        config.max_length,
        config.length_k,
        config.length_band,
        config.length_min_accuracy,
        config.length_quantile,
        config.overlong,
        config.overlong_share,
    )
    measured: list[Measured] = []
    for verdict, length, factor in zip(verdicts, lengths, factors, strict=True):
        if verdict.correct is None:
            measured.append(verdict.reason or "the grader could not tell and gave no reason")
            continue
        evidence = {**verdict.evidence, "reason": verdict.reason}
        measured.append(
            [
                Component("outcome", float(verdict.correct), 1.0, evidence=evidence),
                Component("length", factor, config.length_weight, evidence={"tokens": length}),
            ]
        )
    return measured


def _rubric(result: RubricResult) -> Measured:
    if result.score is None:
        return result.invalid_reason or "the judge gave no score"
    if not 0 <= result.score <= 1:
        return f"the judge's score {result.score} is not in [0, 1]"
    return [Component("rubric", result.score, 1.0, evidence=result.evidence())]


def _languages(
    scores: Sequence[LanguageScore | None], measured: Sequence[Measured], config: RewardConfig
) -> list[list[Component]]:
    """The language component of each sample, in a list of one or none."""
    told = [
        score.share
        for score, components in zip(scores, measured, strict=True)
        if score is not None and score.share is not None and not isinstance(components, str) and components[0].value > 0
    ]
    neutral = math.fsum(told) / len(told) if told else 1.0
    return [
        []
        if score is None
        else [
            Component(
                "language",
                min(1.0, neutral if score.share is None else score.share),
                config.language_weight,
                evidence={**score.evidence, "opinion": score.share is not None},
            )
        ]
        for score in scores
    ]
