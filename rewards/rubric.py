"""Rubrics: weighted criteria, gates, and the criteria that a program can check without any judge.

A rubric's score is the weight of the criteria met over the weight of all; a gate that is not met makes it
0. A criterion on which the judge abstained makes the whole result invalid: guessing its verdict would be a
reward bug.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rewards.exact import normalise
from rewards.language import language_consistency

_SENTENCE_END = re.compile(r"[.!?。！？]+(?=\s|$)|[。！？]")


@dataclass(frozen=True)
class Criterion:
    """One thing that an answer must do. `check`, where given, is a specification for `check_criterion`, and
    then no judge is asked. `truth` is such a specification too, but a hidden one: it labels the judge's training
    data and tells evaluation what is right, while the reward still comes from the judge. `weight` is positive;
    `gate=True` makes it a veto as well.
    """

    name: str
    text: str
    weight: float = 1.0
    gate: bool = False
    check: Mapping[str, Any] | None = None
    truth: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise ValueError(f"criterion {self.name!r} needs a positive weight, got {self.weight}")
        for spec in (self.check, self.truth):
            if spec is not None and spec.get("kind") not in _CHECKS:
                raise ValueError(
                    f"criterion {self.name!r} has an unknown check {dict(spec)!r}; kinds: {sorted(_CHECKS)}"
                )

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
        }


@dataclass(frozen=True)
class CriterionResult:
    """`met` is None when the judge abstained. `reason` is the judge's, or "checked" for a programmatic
    criterion. `votes` are the single judgements in the order they were asked for.
    """

    name: str
    met: bool | None
    reason: str = ""
    votes: tuple[bool | None, ...] = ()


@dataclass(frozen=True)
class RubricResult:
    """`score` in [0, 1], or None with `invalid_reason`. `passed` says that every criterion was met."""

    score: float | None
    passed: bool | None
    criteria: tuple[CriterionResult, ...]
    invalid_reason: str | None = None

    def evidence(self) -> dict[str, Any]:
        return {result.name: {"met": result.met, "reason": result.reason} for result in self.criteria}


def combine_criteria(criteria: Sequence[Criterion], results: Sequence[CriterionResult]) -> RubricResult:
    """The rubric's result; `results[i]` belongs to `criteria[i]`."""
    if [criterion.name for criterion in criteria] != [result.name for result in results]:
        raise ValueError("criteria and results must name the same criteria in the same order")
    if not criteria:
        raise ValueError("a rubric needs at least one criterion")
    missing = [result for result in results if result.met is None]
    if missing:
        reason = f"no verdict on criterion {missing[0].name!r}: {missing[0].reason or 'the judge abstained'}"
        return RubricResult(None, None, tuple(results), reason)
    vetoed = any(
        criterion.gate and not result.met for criterion, result in zip(criteria, results, strict=True)
    )
    met = math.fsum(
        criterion.weight for criterion, result in zip(criteria, results, strict=True) if result.met
    )
    total = math.fsum(criterion.weight for criterion in criteria)
    return RubricResult(
        score=0.0 if vetoed else min(1.0, met / total),
        passed=all(result.met for result in results),
        criteria=tuple(results),
    )


def check_criterion(spec: Mapping[str, Any], answer: str) -> bool:
    """Whether `answer` meets a programmatic criterion. Pure; an empty answer meets none.

    Kinds: `contains` (text, optional times), `excludes` (text), `equals` (text), `starts_with` (text),
    `ends_with` (text), `sentences` (count, or min/max), `max_words` (count), `min_words` (count),
    `language` (language, optional languages and min_share). Text is compared after NFKC, case folding and
    space folding. Raises `ValueError` for an unknown kind and `KeyError` for a missing field.
    """
    kind = spec.get("kind")
    if kind not in _CHECKS:
        raise ValueError(f"unknown check {dict(spec)!r}; kinds: {sorted(_CHECKS)}")
    return bool(answer.strip()) and _CHECKS[kind](spec, answer)


def count_sentences(text: str) -> int:
    """Sentences by their end marks; a last sentence without one counts too."""
    ends = list(_SENTENCE_END.finditer(text.strip()))
    rest = text.strip()[ends[-1].end() :] if ends else text
    return len(ends) + bool(rest.strip())


def _contains(spec: Mapping[str, Any], answer: str) -> bool:
    """Whole words, so that "art" is not found in "start"; a text in Han characters has no word edges."""
    wanted = normalise(spec["text"])
    found = re.findall(rf"(?<![a-z0-9]){re.escape(wanted)}(?![a-z0-9])", _folded(answer))
    return len(found) >= spec.get("times", 1)


def _folded(text: str) -> str:
    # The marker words keep `normalise` from cutting punctuation at the ends.
    return normalise(f"x {text} x")[2:-2]


def _sentences(spec: Mapping[str, Any], answer: str) -> bool:
    count = count_sentences(answer)
    if "count" in spec:
        return count == int(spec["count"])
    return int(spec.get("min", 0)) <= count <= spec.get("max", math.inf)


def _language(spec: Mapping[str, Any], answer: str) -> bool:
    languages = spec.get("languages", ("en", "zh"))
    score = language_consistency(answer, spec["language"], languages, min_letters=spec.get("min_letters", 4))
    return score.share is not None and score.share >= spec.get("min_share", 0.8)


_CHECKS: dict[str, Callable[[Mapping[str, Any], str], bool]] = {
    "contains": _contains,
    "excludes": lambda spec, answer: not _contains(spec, answer),
    "equals": lambda spec, answer: normalise(answer) == normalise(spec["text"]),
    "starts_with": lambda spec, answer: _folded(answer).startswith(_folded(spec["text"])),
    "ends_with": lambda spec, answer: normalise(answer).endswith(normalise(spec["text"])),
    "sentences": _sentences,
    "max_words": lambda spec, answer: len(answer.split()) <= int(spec["count"]),
    "min_words": lambda spec, answer: len(answer.split()) >= int(spec["count"]),
    "language": _language,
}
