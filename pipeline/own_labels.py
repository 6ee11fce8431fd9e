"""The user's own labelled triples for the judge (`judge.data`): question, answer, criterion, and whether it is met."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from pipeline.config.schema import LabelDataConfig
from pipeline.data import DataError, is_held_out
from pipeline.sources import Row, SourceError, read_rows
from rewards.judge.prompt import SHORT_TEMPLATE, judge_prompt, shown_answer
from rewards.judge.reply import JudgeVerdict, supported
from rewards.rubric import Criterion
from rollout.records import Split
from specialists.judge_data import JudgeExample

TEXTS = ("question", "answer", "criterion")
FIELDS = (*TEXTS, "met", "reason", "evidence")
QUOTE_CHARS = 60
"""Characters of the answer that are the evidence of a row which names none."""


def read_labels(data: LabelDataConfig, split: Split) -> list[JudgeExample]:
    """The triples of one split, in the order of their source, as lessons: the judge's prompt and the reply to learn.

    A row has the texts `question`, `answer` and `criterion` and the truth value `met`; it may have a `reason`, and an
    `evidence`, a quote of the answer (the answer's beginning where a met criterion has none). Without `data.heldout`,
    one question in ten is held out, by the hash of its text, with all of its rows.

    Raises:
        DataError: with every bad row; nothing is loaded then.
    """
    source = data.heldout if split == "heldout" and data.heldout is not None else data.train
    try:
        rows, problems = read_rows(source, data.subset, data.split)
    except SourceError as error:
        raise DataError([str(error)]) from error
    lessons = []
    for row in rows:
        problem = _problem(row.values)
        if problem:
            problems.append(f"{row.where}: {problem}")
        elif data.heldout is not None or is_held_out(" ".join(row.values["question"].split())) == (split == "heldout"):
            lessons.append(_lesson(row))
    if not lessons and not problems:
        problems.append(f"{source}: no triple is {split}; give more, or a file of their own in judge.data.heldout")
    if problems:
        raise DataError(problems)
    return lessons


def _problem(values: Mapping[str, Any]) -> str:
    """Why a row is no lesson; empty where it is one."""
    unknown = sorted(set(values) - set(FIELDS))
    if unknown:
        return f"unknown field {unknown[0]!r}; a labelled triple has {', '.join(FIELDS)}"
    for name in TEXTS:
        if not isinstance(values.get(name), str) or not (values[name].strip() or name == "answer"):
            return f"field {name!r}: expected a text, got {values.get(name)!r:.40}"
    if not isinstance(values.get("met"), bool):
        return f"field 'met': expected true or false, got {values.get('met')!r:.40}"
    for name in ("reason", "evidence"):
        if not isinstance(values.get(name) or "", str):
            return f"field {name!r}: expected a text, got {values[name]!r:.40}"
    verdict = _verdict(values)
    if not supported(verdict, shown_answer(values["answer"], "", SHORT_TEMPLATE)):
        return f"field 'evidence': a met criterion needs a quote that is in the answer, got {verdict.evidence!r:.80}"
    return ""


def _verdict(values: Mapping[str, Any]) -> JudgeVerdict:
    evidence = (values.get("evidence") or "").strip()
    if values["met"] and not evidence:
        shown = shown_answer(values["answer"], "", SHORT_TEMPLATE)
        evidence = shown if len(shown) <= QUOTE_CHARS else shown[:QUOTE_CHARS].rpartition(" ")[0] or shown[:QUOTE_CHARS]
    return JudgeVerdict((values.get("reason") or "").strip(), evidence if values["met"] else "", values["met"])


def _lesson(row: Row) -> JudgeExample:
    values = row.values
    criterion = Criterion("own", values["criterion"])
    question, answer = values["question"], values["answer"]
    # A mark that follows from the row: lessons must be the same in every run, and marks of all sorts be seen.
    nonce = hashlib.blake2b(repr((question, answer, criterion.text)).encode(), digest_size=2).hexdigest()
    messages = judge_prompt(question, answer, (criterion,), nonce, SHORT_TEMPLATE)
    return JudgeExample(tuple(messages), question, _verdict(values), criterion, answer, (criterion,))
