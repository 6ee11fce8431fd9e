"""The generative reward model, part one: what is asked, how a reply is read, how votes are counted (no
network).

One question per criterion, answered `<reason> verdict: met` or `verdict: not met`. The answer under
judgement is untrusted text: it stands between nonce marks that it cannot know, without the chat template's
special tokens and without invisible characters. A reply that is not exactly of the expected form is an
abstention, never a guess.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rewards.rubric import Criterion

_VERDICT = re.compile(r"\bverdict\b", re.IGNORECASE)
_REPLY = re.compile(
    r"(?P<reason>.*?)\s*\bverdict\s*:\s*(?P<met>not\s+met|met)\s*\.?\s*", re.IGNORECASE | re.DOTALL
)
_SPECIAL = re.compile(
    r"<[|｜][^<>\n]{0,40}[|｜]>|</?(?:think|s|bos|eos|pad|tool_call|tool_response)>|\[/?INST\]"
)
_INVISIBLE = re.compile(r"[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff\U000e0000-\U000e007f]")

DEFAULT_USER = (
    "Question: {question}\nAnswer [{nonce}] {answer} [/{nonce}]\nCriterion: {criterion}\n"
    "Does the answer meet the criterion? Give a reason, then 'verdict: met' or 'verdict: not met'."
)


@dataclass(frozen=True)
class JudgeTemplate:
    """The prompt of the judge. `user` holds `{question}`, `{answer}`, `{criterion}` and `{nonce}`; `system`
    may be empty. The criterion stands after the answer, and a question or answer above `max_chars` is cut
    in the middle, so that a long answer cannot push the criterion out of a short context.
    """

    user: str = DEFAULT_USER
    system: str = ""
    max_question_chars: int = 300
    max_answer_chars: int = 600

    def __post_init__(self) -> None:
        for name in ("question", "answer", "criterion"):
            if "{" + name + "}" not in self.user:
                raise ValueError(f"the judge's template lacks {{{name}}}: {self.user!r}")


@dataclass(frozen=True)
class Sampling:
    """How the judge samples; part of the cache key."""

    temperature: float = 0.7
    max_tokens: int = 64
    seed: int = 0


DEFAULT_TEMPLATE = JudgeTemplate()
DEFAULT_SAMPLING = Sampling()


@dataclass(frozen=True)
class JudgeRequest:
    """One answer to be judged by one rubric."""

    question: str
    answer: str
    criteria: tuple[Criterion, ...] = field(default_factory=tuple)


def judge_prompt(
    question: str,
    answer: str,
    criterion: Criterion,
    nonce: str = "answer",
    template: JudgeTemplate = DEFAULT_TEMPLATE,
) -> list[dict[str, str]]:
    """The chat messages that ask for one criterion. `nonce` should be unknown to whoever wrote `answer`."""
    values = {
        "question": _shorten(sanitise(question, nonce), template.max_question_chars),
        "answer": _shorten(sanitise(answer, nonce), template.max_answer_chars),
        "criterion": criterion.text,
        "nonce": nonce,
    }
    # One pass over the template: an answer that contains "{criterion}" stays as it is.
    user = re.sub(
        r"\{(question|answer|criterion|nonce)\}", lambda match: values[match.group(1)], template.user
    )
    system = [{"role": "system", "content": template.system}] if template.system else []
    return [*system, {"role": "user", "content": user}]


def sanitise(text: str, nonce: str) -> str:
    """`text` without the nonce, special tokens and invisible characters (until nothing is left to take
    away).
    """
    while True:
        cleaned = _SPECIAL.sub(" ", _INVISIBLE.sub("", text))
        if nonce:
            cleaned = re.sub(rf"\[/?{re.escape(nonce)}\]", " ", cleaned)
        if cleaned == text:
            return text.strip()
        text = cleaned


def _shorten(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    half = (limit - 5) // 2
    return f"{text[:half]} ... {text[-half:]}"


def parse_verdict(text: str) -> tuple[str, bool] | None:
    """(reason, met), or None unless the reply has exactly one verdict, at its end."""
    if len(_VERDICT.findall(text)) != 1:
        return None
    match = _REPLY.fullmatch(text.strip())
    if match is None:
        return None
    return match.group("reason").strip(), match.group("met").lower() == "met"


def count_votes(votes: Sequence[bool | None]) -> bool | None:
    """The majority of the votes that are no abstentions; None for a tie or when all abstained."""
    met, not_met = votes.count(True), votes.count(False)
    return None if met == not_met else met > not_met


def cache_key(
    model: str,
    template: JudgeTemplate,
    question: str,
    answer: str,
    criterion: Criterion,
    sampling: Sampling,
    vote: int,
) -> str:
    """SHA-256 over everything that the judge's reply depends on (but not the nonce, which is fresh each
    time).
    """
    record: dict[str, Any] = {
        "model": model,
        "template": asdict(template),
        "question": question,
        "answer": answer,
        "criterion": criterion.to_json(),
        "sampling": asdict(sampling),
        "vote": vote,
    }
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
