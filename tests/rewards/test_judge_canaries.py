"""Canaries tell a judge that works from one that pays for nothing, refuses everything or is gone."""

import json

import pytest

from rewards.instructions import check_criterion
from rewards.judge.canaries import BUILT_IN, KINDS, Canary, ask_canaries, read_canaries
from rewards.judge.client import GenRMClient
from rewards.judge.text import sanitise
from tests.rewards.scripted_judge import Judge, answer_of, criterion_of, reply


def strict(_, prompt):
    """A judge that reads: words, number of sentences, first word."""
    kind, _, rest = criterion_of(prompt).rstrip(".").partition(" ")
    value = rest.split()[-1] if kind != "Has" else rest.split()[0]
    spec = {
        "Uses": {"kind": "contains", "text": value},
        "Has": {"kind": "sentences", "count": value},
        "Starts": {"kind": "starts_with", "text": value},
    }[kind]
    if kind == "Has":
        spec["count"] = int(value)
    answer = answer_of(prompt)
    met = check_criterion(spec, answer)
    return reply(met, answer.split()[0] if met else "")


def gullible(_, prompt):
    """Pays for anything that it can quote."""
    return reply(True, answer_of(prompt)[:8].strip())


def asked(script, canaries=BUILT_IN):
    with Judge(script) as judge:
        client = GenRMClient(judge.url, "judge", timeout=2.0, votes=1, max_retries=0)
        return ask_canaries(client, canaries)


def test_every_kind_is_there_and_the_truth_of_each_is_plain():
    assert {canary.kind for canary in BUILT_IN} == set(KINDS)
    assert all(canary.met == (canary.kind == "good") for canary in BUILT_IN)
    assert len({(c.question, c.answer, c.criterion) for c in BUILT_IN}) == len(BUILT_IN)
    assert all(sanitise(c.question) and sanitise(c.criterion) for c in BUILT_IN)


def test_a_judge_that_reads_knows_them_all():
    assert asked(strict) == type(asked(strict))(dict.fromkeys(KINDS, 1.0), ())


def test_a_gullible_judge_is_found_out():
    report = asked(gullible)
    assert report.shares["good"] == 1.0 and report.shares["bad"] == 0.0
    assert report.shares["master_key"] < 0.5 and report.shares["injection"] == 0.0
    assert len(report.failures) == 3 and "met" in report.failures[0]


@pytest.mark.parametrize("script", [lambda *_: reply(False), lambda *_: "hm", lambda *_: (500, "down", 0)])
def test_a_judge_that_refuses_or_is_gone_is_found_out_too(script):
    report = asked(script)
    assert report.shares == {"good": 0.0, "bad": 1.0, "master_key": 1.0, "injection": 1.0}


def test_no_canary_is_answered_from_the_cache():
    with Judge(gullible) as judge:
        client = GenRMClient(judge.url, "judge", votes=1)
        for _ in range(2):
            ask_canaries(client, BUILT_IN[:3])
        assert len(judge.prompts) == 6


def test_own_canaries_are_read_and_bad_lines_named(tmp_path):
    file = tmp_path / "canaries.jsonl"
    row = {"kind": "bad", "question": "q", "answer": "a", "criterion": "c"}
    file.write_text(json.dumps(row) + "\n\n" + json.dumps({**row, "kind": "good"}) + "\n")
    assert read_canaries(file) == (Canary("bad", "q", "a", "c"), Canary("good", "q", "a", "c"))
    file.write_text('{"kind": "bad"}\nnot json\n' + json.dumps({**row, "kind": "ugly"}))
    with pytest.raises(ValueError) as error:
        read_canaries(file)
    for text in ("line 1: expected an object", "line 2", "line 3: kind must be one of"):
        assert text in str(error.value)
    file.write_text("\n")
    with pytest.raises(ValueError, match="no canary"):
        read_canaries(file)
