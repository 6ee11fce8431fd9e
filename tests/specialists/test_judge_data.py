"""Judge lessons: true, balanced, parseable, and of their split."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter

import pytest

from rewards.instructions import check_criterion
from rewards.judge.prompt import JudgeTemplate
from rewards.judge.reply import parse_verdicts, supported
from rewards.prose import count_sentences
from rewards.prose import sentences as sentences_of
from rollout.records import Split
from specialists.judge_data import KINDS, JudgeExample, judge_example
from specialists.writing import DOMAIN  # noqa: F401


def examples(count: int, split: Split = "train") -> list[JudgeExample]:
    return [judge_example(seed, split) for seed in range(count)]


def test_the_target_is_the_truth_in_the_form_that_is_parsed() -> None:
    for example in examples(800):
        assert parse_verdicts(example.target) == (example.verdict,)
        assert check_criterion(example.criterion.truth or {}, example.answer) == example.met
        assert supported(example.verdict, example.answer), example


def test_every_kind_is_half_met() -> None:
    counts = Counter((str((e.criterion.truth or {})["kind"]), e.met) for e in examples(1500))
    for kind in KINDS:
        met, missed = counts[kind, True], counts[kind, False]
        assert 0.42 <= met / (met + missed) <= 0.58
        assert met + missed >= 200


def test_reasons_follow_from_the_answer_alone() -> None:
    """The verdict can be read off the reason: what is quoted, counted or found at the edge."""
    for example in examples(1000):
        check, reason = example.criterion.truth or {}, example.verdict.reason
        if not example.answer.strip():
            assert reason == "empty." and not example.met
        elif check["kind"] == "contains":
            found = reason.startswith("says ")
            assert found == example.met
            assert found or reason == f"no {check['text']}."
        elif check["kind"] == "sentences":
            assert len(sentences_of(example.answer.strip())) == count_sentences(example.answer)
            *_, last = re.findall(r"(?:^| )(\d+) ", reason.split(", want ")[0])
            assert (int(last) == check["count"]) == example.met
        else:
            edge = reason.split(" ")[1].rstrip(".").casefold()
            text = check["text"].casefold()
            fits = edge.startswith(text) if check["kind"] == "starts_with" else edge.endswith(text)
            assert fits == example.met


def test_answers_of_all_sorts_and_self_praise_does_not_help() -> None:
    found = examples(3000)
    assert 10 <= sum(not e.answer for e in found) <= 300
    assert sum(e.answer in e.messages[-1]["content"].split("Answer")[0] for e in found if e.answer) >= 10
    praised = [e for e in found if "This meets all" in e.answer]
    assert {e.met for e in praised} == {True, False}
    pasted = [e for e in found if e.criterion.text in e.answer]
    assert {e.met for e in pasted} == {True, False}


def test_prompts_hold_the_answer_between_unpredictable_marks() -> None:
    nonces = {re.findall(r"\[([0-9a-f]{4})\]", e.messages[-1]["content"])[0] for e in examples(50)}
    assert len(nonces) == 50
    for example in examples(50):
        assert example.criterion.text in example.messages[-1]["content"]


def test_a_template_of_ones_own() -> None:
    template = JudgeTemplate(user="{question}|{answer}|{criteria}")
    example = judge_example(5, "train", template)
    assert example.messages[-1]["content"].count("|") >= 2
    assert example.answer == judge_example(5, "train").answer


@pytest.mark.parametrize("split", ("train", "heldout"))
def test_examples_repeat_by_seed_and_stay_in_their_split(split: Split) -> None:
    assert examples(30, split) == examples(30, split)
    assert not {e.messages for e in map(freeze, examples(300, "train"))} & {
        e.messages for e in map(freeze, examples(300, "heldout"))
    }


def freeze(example: JudgeExample) -> JudgeExample:
    """With hashable messages and without the nonce."""
    text = re.sub(r"\[/?[0-9a-f]{4}\]", "", example.messages[-1]["content"])
    return dataclasses.replace(example, messages=(text,))  # type: ignore[arg-type]
