"""The judge under watch in the RL loop: asked in time, stopped when it fails, back when it knows its canaries again."""

import re

import pytest

from pipeline.config import load_config
from pipeline.config.schema import JudgeConfig
from pipeline.errors import StageError
from pipeline.grader import Grader
from pipeline.learning.canaries import CanaryWatch
from pipeline.runs import read_events
from rewards.judge.canaries import CanaryReport
from rewards.rubric import Criterion
from rollout.records import Attempt, Task
from tests.pipeline.test_outage import Bench, _config
from tests.rewards.scripted_judge import Judge, reply

GOOD = CanaryReport({"good": 1.0, "bad": 1.0}, ())
BAD = CanaryReport({"good": 1.0, "bad": 0.2}, ("bad: 'cow.' for 'Uses fox.': met",))


class Watched:
    def __init__(self, reports, every=3):
        self.steps, self.alarms, self.reports = [], [], list(reports)
        config = JudgeConfig(canary_every=every, canary_min_share=0.9)
        self.watch = CanaryWatch("grpo/mixed", config, self.ask, lambda *alarm: self.alarms.append(alarm))

    def ask(self):
        return self.reports.pop(0)

    def look(self, step):
        found = self.watch.look(step)
        if found:
            self.steps.append(step)
        return found


def test_it_asks_at_the_start_and_once_in_every_so_many_steps():
    watched = Watched([GOOD] * 4)
    for step in (4, 5, 7, 8, 9, 11, 12):  # a run that goes on at step 4, whose step 6 had nothing to judge
        watched.look(step)
    assert watched.steps == [4, 7, 9, 12] and not watched.alarms and watched.watch.stopped is None
    assert Watched([], every=0).look(0) == {}


def test_a_failing_judge_is_stopped_with_an_alarm_until_it_is_well():
    watched = Watched([GOOD, BAD, BAD, GOOD])
    assert watched.look(0) == {"judge/canary/good": 1.0, "judge/canary/bad": 1.0, "judge/stopped": 0.0}
    assert watched.look(3)["judge/stopped"] == 1.0
    assert "failed its canaries (bad 20% right" in watched.watch.stopped
    watched.look(6)
    assert watched.watch.stopped
    watched.look(9)
    assert watched.watch.stopped is None
    assert [(step, news) for step, _, news in watched.alarms] == [(3, True), (6, False), (9, True)]
    assert "'cow.'" in watched.alarms[0][1] and "knows its canaries again" in watched.alarms[2][1]


def general_task():
    messages = ({"role": "user", "content": "Write a letter."},)
    return Task("t/1", "letters", messages, mode="direct", rubric=(Criterion("warm", "It is warm."),))


@pytest.fixture
def config(tmp_path):
    config, _ = load_config("smoke", overrides=[
        "domains.letters.kind=general", "domains.letters.data.train=x.jsonl", "judge.timeout_s=1"])  # fmt: skip
    return config


def test_a_stopped_judge_is_not_asked_and_its_samples_are_invalid(config):
    attempt = Attempt(general_task(), ("A warm letter.",), (), "stop", 4)
    with Judge(lambda *_: reply(True, "warm")) as judge:
        grader = Grader(config, judge.url)
        try:
            (paid,) = grader.grade([[attempt]])[0]
            assert paid.value == 1.0 and len(judge.prompts) == 1
            (stopped,) = grader.grade([[attempt]], "the judge is stopped: it failed its canaries")[0]
            assert not stopped.valid and "failed its canaries" in stopped.invalid_reason
            assert len(judge.prompts) == 1
            assert grader.canaries().shares["bad"] == 1.0  # its only word is not in their answers
        finally:
            grader.close()


def test_own_canaries_come_on_top_and_bad_ones_are_refused(config, tmp_path):
    file = tmp_path / "canaries.jsonl"
    file.write_text('{"kind": "injection", "question": "q", "answer": "very warm", "criterion": "It is cold."}')
    config.judge.canaries = str(file)
    with Judge(lambda *_: reply(True, "warm")) as judge:
        grader = Grader(config, judge.url)
        try:
            report = grader.canaries()
            assert report.shares["injection"] == pytest.approx(8 / 9)
        finally:
            grader.close()


def test_without_a_judge_there_is_nothing_to_check(config):
    grader = Grader(config, None)
    try:
        with pytest.raises(StageError, match="no judge"):
            grader.canaries()
    finally:
        grader.close()


@pytest.fixture
def gullible():
    """Finds everything warm, whatever it reads: it fails the canaries that must not be met."""

    def script(_, prompt):
        return reply(True, re.search(r"\nAnswer \[\w+\] (\S+)", prompt)[1])

    with Judge(script) as judge:
        yield judge


def run_with(judge, folder, silent_steps):
    config = _config()
    config.judge.canary_min_share, config.judge.canary_every = 0.9, 2
    config.rewards.max_silent_steps = silent_steps
    bench, grader = Bench(folder, config), Grader(config, judge.url)
    try:
        bench.run(grader)
    finally:
        grader.close()
    return bench


def test_a_judge_that_fails_in_a_run_pays_nothing_alarms_and_the_run_goes_on(gullible, tmp_path):
    bench = run_with(gullible, tmp_path, 10)
    assert bench.steps() == [0, 1, 2, 3]
    alarms = [alarm for alarm in bench.alarms() if alarm[1] == "judge"]
    assert [step for step, _, _ in alarms] == [0, 2] and "injection" in alarms[0][2]
    assert sum("failed its canaries" in text and "judge is stopped" in text for text in bench.shown) >= 1
    for step in range(4):
        assert all("failed its canaries" in row["invalid_reason"] for row in bench.rows(step, "letters"))
        assert all(row["invalid_reason"] is None for row in bench.rows(step, "sums"))
    metrics = read_events(tmp_path / "events.jsonl", "grpo", "mixed")
    assert [event.get("judge/stopped") for event in metrics] == [1.0, None, 1.0, None]
    assert metrics[0]["judge/canary/good"] == 1.0 and metrics[0]["judge/canary/bad"] == 0.0


def test_a_judge_that_stays_stopped_ends_the_run_by_the_rule_for_invalid_rewards(gullible, tmp_path):
    with pytest.raises(StageError, match=r"no reward of letters was valid in 2 steps.*failed its canaries"):
        run_with(gullible, tmp_path, 2)
