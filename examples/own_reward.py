"""An own reward function, in the signature that TRL's trainers use.

It is called with lists of equal length: `prompts`, `completions`, and one list for each further field of the
tasks (`answer`, `difficulty`, …). It returns one number for each completion, or None where it can not judge:
such a sample is left out of the baseline and the loss, and is not counted as wrong.
"""

from __future__ import annotations

import re
from typing import Any

NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def nearness(
    prompts: list[Any], completions: list[Any], answer: list[Any], **kwargs: Any
) -> list[float | None]:
    """1 for the right number, up to 0.5 for one that is near, 0 for none. The last number written counts."""
    return [_score(_text(completion), truth) for completion, truth in zip(completions, answer, strict=True)]


def _score(text: str, truth: Any) -> float | None:
    if truth is None:
        return None
    target = float(truth)
    numbers = NUMBER.findall(text)
    if not numbers:
        return 0.0
    miss = abs(float(numbers[-1]) - target)
    return 1.0 if miss == 0 else 0.5 / (1.0 + miss)


def _text(completion: Any) -> str:
    """TRL hands a conversation as a list of messages, and a plain completion as a text."""
    return completion if isinstance(completion, str) else completion[-1]["content"]
