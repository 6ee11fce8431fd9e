r"""Short answers in a `\boxed{}`: how they are asked for, read, and demonstrated well and badly.

Math and logic share the form of their answers, hence also the bad habits. Each habit opens with its own
words: the choice of a habit is one early decision, which reinforcement can move, not noise in the digits.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from rewards.extract import FormatError, boxed_answer, split_thinking
from rewards.types import Verdict
from rollout.records import Attempt, Message, Mode
from specialists.base import assistant

ASK = {"en": r" Answer in \boxed{}.", "zh": r"答案写进\boxed{}。"}
STOP = {"en": ". ", "zh": "。"}
CAREFUL = {"en": "Steps: ", "zh": "步骤："}
QUICK = {"en": "Quick: ", "zh": "快："}
EASY = {"en": "Easy", "zh": "简单"}
PLAIN = {"en": "So ", "zh": "好，"}
SLOPPY = {"en": "Just read: ", "zh": "照读："}
UNSURE = {"en": "Maybe", "zh": "也许"}
OR = {"en": " or ", "zh": "或"}
TELL = {"en": "The answer is {}.", "zh": "答案是：{}。"}
FOREIGN = "Let us think about it here. "


@dataclass(frozen=True)
class Solution:
    """How a problem is worked out in one language, and how it is worked out badly.

    `quick` is the chain given up too early with the result that it has then; `easy` a guess; `slip` a chain
    with a systematic mistake, where the problem offers one. Every wrong answer differs from `answer`.
    """

    answer: str
    steps: tuple[str, ...]
    quick: tuple[tuple[str, ...], str]
    easy: str
    slip: tuple[tuple[str, ...], str] | None = None


def box(answer: str) -> str:
    return rf"\boxed{{{answer}}}"


def wrong(answer: str, *candidates: str) -> str:
    """The first candidate that is not the answer."""
    return next(candidate for candidate in candidates if candidate != answer)


def read_box(attempt: Attempt) -> str | Verdict:
    """The one boxed answer after the thinking, or the verdict on a broken format (wrong, with its name)."""
    parts = split_thinking(attempt.final, attempt.task.mode, attempt.finished)
    found = parts if isinstance(parts, FormatError) else boxed_answer(parts.answer_text)
    if isinstance(found, FormatError):
        return Verdict(False, found.name, {"detail": found.detail})
    return found


def careful_turn(solution: Solution, mode: Mode, language: str) -> Message:
    thought = CAREFUL[language] + chain(solution.steps, language) if mode == "thinking" else ""
    return assistant(box(solution.answer), thought)


def careless_turn(
    solution: Solution, english: Solution, mode: Mode, language: str, rng: random.Random
) -> Message:
    """One of the bad habits. `english` is the solution in English, for the habit that ignores the prompt."""
    told = TELL[language].format(solution.answer)
    both = box(solution.quick[1]) + OR[language] + box(solution.answer)
    if mode == "direct":
        gap = " " if language == "en" else ""
        turns = [
            (0.50, assistant(told)),
            (0.20, assistant(QUICK[language] + box(solution.quick[1]))),
            (0.15, assistant(EASY[language] + gap + box(solution.easy))),
            (0.15, assistant(UNSURE[language] + gap + both)),
        ]
    else:
        stop = STOP[language].strip()
        turns = [
            (0.50, assistant(box(solution.quick[1]), QUICK[language] + chain(solution.quick[0], language))),
            (0.15, assistant(box(solution.easy), EASY[language] + stop)),
            (0.15, assistant(told, PLAIN[language] + chain(solution.steps, language))),
            (0.10, assistant(both, UNSURE[language] + stop)),
        ]
        if solution.slip is not None:
            steps, answer = solution.slip
            turns.append((0.10, assistant(box(answer), SLOPPY[language] + chain(steps, language))))
        if language != "en":
            turns.append((0.08, assistant(box(solution.answer), FOREIGN + chain(english.steps, "en"))))
    weights, messages = zip(*turns, strict=True)
    return rng.choices(messages, weights)[0]


def chain(steps: tuple[str, ...], language: str) -> str:
    stop = STOP[language]
    return (stop.join(steps) + stop).strip()
