"""The router: which judgements make up the reward of which kind of task.

    verifiable   value = outcome * length_factor - language_weight * (1 - share)      outcome in {0, 1}
    general      value = rubric score            - language_weight * (1 - share)      score in [0, 1]

The language penalty is bounded, is paid only where there is something to lose (a right answer, a score
above zero), and never takes a value below zero. A verifiable task takes verdicts only and a general one
rubric results only: mixing them is a `TypeError`, because a judge that can be persuaded must not be addable
to a task that can be checked. (DeepSeek-V3.2, arXiv:2512.02556: rule-based outcome, length and language
rewards for reasoning and agents; a generative reward model with per-prompt rubrics for general tasks.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from rewards.language import LanguageScore
from rewards.length import length_factors
from rewards.rubric import RubricResult
from rewards.types import Component, Reward, Verdict

TaskKind = Literal["verifiable", "general"]
MAX_LANGUAGE_WEIGHT = 0.2

T = TypeVar("T")


@dataclass(frozen=True)
class RewardConfig:
    """`max_length` in tokens; the `length_*` fields are those of `length.length_factors` (`length_k=0`
    turns the length reward off, `language_weight=0` the language reward).

    Raises `ValueError` for weights with which a right answer could score no more than a wrong one.
    """

    max_length: int
    length_k: float = 0.2
    length_band: float = 1.2
    length_min_accuracy: float = 0.5
    length_quantile: float = 0.25
    language_weight: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.language_weight <= MAX_LANGUAGE_WEIGHT:
            raise ValueError(
                f"language_weight must lie in [0, {MAX_LANGUAGE_WEIGHT}], got {self.language_weight}"
            )
        if not self.length_k >= 0 or self.length_k + self.language_weight >= 1:
            raise ValueError(
                "expected 0 <= length_k and length_k + language_weight < 1, so that a right answer always "
                f"beats a wrong one; got {self.length_k} and {self.language_weight}"
            )


def combine_group(
    kind: TaskKind,
    judgements: Sequence[Verdict] | Sequence[RubricResult],
    lengths: Sequence[int],
    language_scores: Sequence[LanguageScore | None],
    config: RewardConfig,
) -> list[Reward]:
    """The rewards of one group: sample i has `judgements[i]`, `lengths[i]` tokens and `language_scores[i]`.

    `judgements` are `Verdict`s for a verifiable task and `RubricResult`s for a general one; anything else
    raises `TypeError`. A language score of None, or with a share of None, is neutral. Invalid judgements
    give invalid rewards.
    """
    if not len(judgements) == len(lengths) == len(language_scores):
        raise ValueError(
            f"{len(judgements)} judgements, {len(lengths)} lengths and {len(language_scores)} language "
            "scores do not belong to one group"
        )
    if kind == "verifiable":
        verdicts = [_expect(judgement, Verdict, kind) for judgement in judgements]
        factors = length_factors(
            lengths,
            [verdict.correct for verdict in verdicts],
            config.max_length,
            config.length_k,
            config.length_band,
            config.length_min_accuracy,
            config.length_quantile,
        )
        return [
            _verifiable(verdict, length, factor, score, config)
            for verdict, length, factor, score in zip(
                verdicts, lengths, factors, language_scores, strict=True
            )
        ]
    if kind == "general":
        results = [_expect(judgement, RubricResult, kind) for judgement in judgements]
        return [
            _general(result, score, config) for result, score in zip(results, language_scores, strict=True)
        ]
    raise ValueError(f"kind must be 'verifiable' or 'general', got {kind!r}")


def _expect(judgement: object, wanted: type[T], kind: TaskKind) -> T:
    if not isinstance(judgement, wanted):
        raise TypeError(f"a {kind} task is paid by {wanted.__name__}, got {type(judgement).__name__}")
    return judgement


def _verifiable(
    verdict: Verdict, length: int, factor: float, language: LanguageScore | None, config: RewardConfig
) -> Reward:
    if verdict.correct is None:
        return Reward.invalid(verdict.reason)
    outcome = float(verdict.correct)
    evidence = {**verdict.evidence, "reason": verdict.reason}
    components = [
        Component("outcome", outcome, 1.0, outcome, evidence),
        Component("length", factor, config.length_k, outcome * (factor - 1.0), {"tokens": length}),
    ]
    components += _language(language, sum(component.contribution for component in components), config)
    return Reward.of(components, verdict.correct)


def _general(result: RubricResult, language: LanguageScore | None, config: RewardConfig) -> Reward:
    if result.score is None:
        return Reward.invalid(result.invalid_reason or "the judge gave no score")
    components = [Component("rubric", result.score, 1.0, result.score, result.evidence())]
    components += _language(language, result.score, config)
    return Reward.of(components, result.passed)


def _language(language: LanguageScore | None, before: float, config: RewardConfig) -> list[Component]:
    if language is None:
        return []
    share = 1.0 if language.share is None else language.share
    penalty = min(config.language_weight * (1.0 - share), before)
    evidence = {**language.evidence, "opinion": language.share is not None}
    return [Component("language", share, config.language_weight, -penalty, evidence)]
