"""The criteria of the writing tasks: a text that a judge reads, and the check that says what is true."""

from __future__ import annotations

from rewards.rubric import Criterion


def contains(text: str, gate: bool = False) -> Criterion:
    check = {"kind": "contains", "text": text}
    return Criterion(f"contains {text}", f"Uses the word {text}.", gate=gate, check=check)


def excludes(text: str) -> Criterion:
    return Criterion(f"excludes {text}", f"Does not use {text}.", check={"kind": "excludes", "text": text})


def has_sentences(count: int) -> Criterion:
    size = f"{count} sentence" + "s" * (count > 1)
    return Criterion("sentences", f"Has {size}.", check={"kind": "sentences", "count": count})


def starts_with(text: str) -> Criterion:
    return Criterion("start", f"Starts with {text}.", check={"kind": "starts_with", "text": text})


def ends_with(text: str) -> Criterion:
    return Criterion("end", f"Ends with {text}.", check={"kind": "ends_with", "text": text})
