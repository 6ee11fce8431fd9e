"""The criteria of the writing tasks: a text that a judge reads, and the hidden truth that only evaluation and the
judge's lessons see."""

from __future__ import annotations

from rewards.rubric import Criterion


def contains(text: str, gate: bool = False) -> Criterion:
    truth = {"kind": "contains", "text": text}
    return Criterion(f"contains {text}", f"Uses the word {text}.", gate=gate, truth=truth)


def excludes(text: str) -> Criterion:
    """A pitfall: the answer must not use the word."""
    truth = {"kind": "contains", "text": text}
    return Criterion(f"uses {text}", f"Uses the word {text}.", truth=truth, importance="pitfall")


def has_sentences(count: int) -> Criterion:
    size = f"{count} sentence" + "s" * (count > 1)
    return Criterion("sentences", f"Has {size}.", truth={"kind": "sentences", "count": count})


def starts_with(text: str) -> Criterion:
    return Criterion("start", f"Starts with {text}.", truth={"kind": "starts_with", "text": text})


def ends_with(text: str) -> Criterion:
    return Criterion("end", f"Ends with {text}.", truth={"kind": "ends_with", "text": text})
