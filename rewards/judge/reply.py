"""What a judge replies: one JSON object, read strictly, with a quote that is looked up in the answer.

    {"reason": "says the red.", "evidence": "red", "met": true}

Reason before evidence before verdict, so that the verdict follows from them. Several criteria in one call are answered
by one object of such objects, `{"1": {...}, "2": {...}}`. Anything else is an abstention, never a guess: text around
the object, a second object, a key twice, missing or in another order, a number for a truth value. A criterion counts as
met only with evidence that stands in the answer word for word.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rewards.judge.text import says_something
from rewards.strict_json import loads

FIELDS = ("reason", "evidence", "met")
MAX_REPLY_CHARS = 20_000
"""Per verdict; a longer reply is none."""


@dataclass(frozen=True)
class JudgeVerdict:
    """One judgement of one criterion."""

    reason: str
    evidence: str
    met: bool

    def to_text(self) -> str:
        """The reply that says it, in the form that is parsed."""
        record = {"reason": self.reason, "evidence": self.evidence, "met": self.met}
        return json.dumps(record, ensure_ascii=False, separators=(",", ":"))


def parse_verdicts(text: str, count: int = 1) -> tuple[JudgeVerdict, ...] | None:
    """The verdicts on `count` criteria, in the order in which they were asked for; None for anything but them."""
    if len(text) > MAX_REPLY_CHARS * count:
        return None
    record = strict_json(text)
    if not isinstance(record, dict):
        return None
    if count == 1:
        parts: list[Any] = [record]
    elif tuple(record) == tuple(str(number) for number in range(1, count + 1)):
        parts = list(record.values())
    else:
        return None
    verdicts = [_verdict(part) for part in parts]
    found = tuple(verdict for verdict in verdicts if verdict is not None)
    return found if len(found) == count else None


def _verdict(record: Any) -> JudgeVerdict | None:
    if not isinstance(record, dict) or tuple(record) != FIELDS:
        return None
    reason, evidence, met = record.values()
    if not isinstance(reason, str) or not isinstance(evidence, str) or not isinstance(met, bool):
        return None
    return JudgeVerdict(reason.strip(), evidence.strip(), met)


def strict_json(text: str) -> Any:
    """The one JSON value that `text` is (`strict_json.loads`), white space around it apart; None where it is none."""
    try:
        return loads(text)
    except ValueError:
        return None


def supported(verdict: JudgeVerdict, shown: str) -> bool:
    """Whether a verdict has the evidence that it needs: none for not met; for met a quote, more than punctuation, that
    occurs in `shown`, the answer as the judge saw it.
    """
    return not verdict.met or (says_something(verdict.evidence) and verdict.evidence in shown)


def count_votes(votes: Sequence[bool | None]) -> bool | None:
    """The majority of the votes that are no abstentions; None for a tie or when all abstained."""
    met, not_met = votes.count(True), votes.count(False)
    return None if met == not_met else met > not_met


def reply_form(count: int) -> str:
    """The reply that is asked for, as a pattern for the prompt."""
    one = '{"reason":"why","evidence":"quote of the answer","met":true or false}'
    return one if count == 1 else "{" + ",".join(f'"{number}":{one}' for number in range(1, count + 1)) + "}"


def response_format(count: int) -> dict[str, Any]:
    """OpenAI's `response_format` for guided decoding: only such a reply can be written."""
    one = _object({"reason": {"type": "string"}, "evidence": {"type": "string"}, "met": {"type": "boolean"}})
    schema = one if count == 1 else _object({str(number): one for number in range(1, count + 1)})
    return {"type": "json_schema", "json_schema": {"name": "verdict", "strict": True, "schema": schema}}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
