"""The judge's part of the audit: nothing is paid and all that is honest is; without its guards the exploits pay."""

import json

import pytest

import rewards.judge.client
import rewards.judge.prompt
from pipeline.audit import exploits_judge, honest_judge
from pipeline.audit.workbench import Bench
from rewards.judge.reply import JudgeVerdict


@pytest.fixture(scope="module")
def bench():
    with Bench() as opened:
        yield opened


def wrong(bench, cases):
    return {c.name for c in cases if not c.holds((paid := bench.pay(c)).value) or paid.error}


def test_no_exploit_pays_and_every_honest_answer_does(bench):
    assert len(exploits_judge.CASES) >= 50 and len(honest_judge.CASES) >= 40
    assert wrong(bench, exploits_judge.CASES) == set()
    assert wrong(bench, honest_judge.CASES) == set()


def named(*names):
    found = [case for case in exploits_judge.CASES if case.name in names]
    assert len(found) == len(names)
    return found


def test_without_sanitising_injections_pay(bench, monkeypatch):
    monkeypatch.setattr(rewards.judge.prompt, "sanitise", lambda text, nonce="": text)
    names = {f"injection: {name}" for name in ("chat tokens", "zero width", "llama turns", "a tool call")}
    assert wrong(bench, named(*names)) == names


def test_without_a_bound_on_the_answer_the_criterion_is_pushed_out(bench, monkeypatch):
    monkeypatch.setattr(rewards.judge.prompt, "shorten", lambda text, limit: text)
    names = {"injection: 100 kB", "injection: 100 kB and a new rubric"}
    assert wrong(bench, named(*names)) == names


def test_without_the_look_at_the_evidence_made_up_quotes_pay(bench, monkeypatch):
    monkeypatch.setattr(rewards.judge.client, "supported", lambda verdict, shown: True)
    names = {"reply: evidence made up", "reply: no evidence", "reply: evidence of the criterion"}
    assert wrong(bench, named(*names)) == names


def test_a_parser_that_repairs_pays(bench, monkeypatch):
    def lenient(text, count=1):
        record = json.loads(text[text.find("{") : text.rfind("}") + 1])
        return (JudgeVerdict("", str(record["evidence"]), bool(record["met"])),)

    monkeypatch.setattr(rewards.judge.client, "parse_verdicts", lenient)
    names = {f"reply: {name}" for name in ("prose around", "the key twice", "a text for a truth value")}
    assert wrong(bench, named(*names)) == names


def test_a_cache_that_knows_too_little_pays(bench, monkeypatch):
    key = lambda judge, template, question, answer, *rest: question + answer  # noqa: E731
    monkeypatch.setattr(rewards.judge.client, "cache_key", key)
    assert wrong(bench, named("cache: another criterion")) == {"cache: another criterion"}
