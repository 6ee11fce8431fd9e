"""What grades or stores goes away in the middle of a run: samples are masked and never paid 0, an alarm names the
culprit, an outage that lasts ends the run, and going on gives what a run without the outage would have given.

The RL loop, the grader, the files and the judge's client are the real ones; the policy is a stand-in that chains a hash
of everything it was taught, so that a step that is lost, doubled or paid differently is seen in the last value.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer.testing

from pipeline.cli import app
from pipeline.conductor import run_stages
from pipeline.config import load_config
from pipeline.config.schema import Config, RLConfig
from pipeline.errors import StageError
from pipeline.grader import Grader
from pipeline.learning.checkpoints import latest_state, save_state
from pipeline.learning.outages import OutageWatch
from pipeline.learning.rl import RLRun, run_rl
from pipeline.policy_worker import StepDone
from pipeline.progress import NullProgress
from pipeline.runs import Events, Manifest, Run, read_alarms, read_events, read_rollouts, rollouts_path
from pipeline.runtime import InlineRuntime
from rewards.rubric import Criterion
from rewards.sandbox import SandboxUnavailable
from rewards.types import Reward
from rollout.conversation import Trial
from rollout.records import Attempt, Group, Task, Trajectory
from specialists import get_domain
from specialists.base import Request
from specialists.own import OwnDomain

STEPS = 4
CODE = get_domain("code")


class HashPolicy:
    """Writes a right answer and a wrong one in turn; learns by hashing what it was paid."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        saved = latest_state(folder)
        self.step = saved.step if saved else 0
        self.metrics: dict[str, float] = saved.extra["metrics"] if saved else {}
        self.value = (saved.folder / "value").read_text() if saved else ""

    def last(self) -> StepDone:
        return StepDone(self.step, self.metrics)

    def rollout(self, trials: Sequence[Trial]) -> list[Trajectory]:
        return [_trajectory(trial) for trial in trials]

    def update(self, step: int, groups: Sequence[Group], metrics: dict[str, float]) -> StepDone:
        pairs = [pair for group in groups for pair in zip(group.trajectories, group.rewards, strict=True)]
        taught = [(trajectory.task.id, trajectory.attempt.final, reward.value) for trajectory, reward in pairs]
        value = hashlib.sha256(f"{self.value} {step} {taught}".encode()).hexdigest()
        kept = {name: number for name, number in metrics.items() if not name.startswith("time/")}
        save_state(self.folder, step + 1, lambda folder: _write(folder / "value", value), {"metrics": kept})
        self.step, self.value, self.metrics = step + 1, value, kept
        return self.last()


def _write(path: Path, text: str) -> None:
    path.write_text(text)


def _trajectory(trial: Trial) -> Trajectory:
    task = trial.task
    answers = {"sums": (r"\boxed{2}", r"\boxed{3}"), "letters": ("A warm and clear letter.", "No.")}
    if task.domain == "code":
        answers["code"] = (CODE.demonstrate(task, random.Random(0), True)[0]["content"], "```python\npass\n```")
    final = answers[task.domain][trial.sample % 2]
    attempt = Attempt(task, (final,), (), "stop", 2, sample=trial.sample)
    tokens = np.zeros(3, np.int32)
    return Trajectory(attempt, tokens, np.array([False, True, True]), np.zeros(3, np.float32), tokens)


def _config() -> Config:
    config, _ = load_config("smoke")
    own = replace(next(iter(config.domains.values())), data=None, reward=None, group_size=4, languages=["en"])
    config.domains = {"sums": own, "code": own, "letters": replace(own, kind="general")}
    config.rewards.max_invalid_share = 0.5
    config.rewards.max_silent_steps = 3
    config.judge.timeout_s = 10.0
    config.judge.votes = 1
    return config


def _tasks(step: int) -> list[Task]:
    ask = lambda name: ({"role": "user", "content": f"{name} {step}"},)  # noqa: E731
    return [
        Task(f"sums/{step}", "sums", ask("sums"), mode="direct", answer="2"),
        CODE.generate(Request(seed=step, split="train", mode="direct")),
        Task(f"letters/{step}", "letters", ask("letters"), mode="direct", rubric=(Criterion("warm", "It is warm."),)),
    ]


class Bench:
    """One run folder, its events, and the loop over it."""

    def __init__(self, folder: Path, config: Config) -> None:
        self.folder, self.config = folder, config
        self.events = Events(folder / "events.jsonl")
        self.shown: list[str] = []
        self.events.on_alarm = self.shown.append

    def run(self, grader: Any, before: Callable[[int], None] = lambda step: None) -> str:
        """Runs to the end; the policy's last value. `before` is called with each step's number as it begins."""

        def tasks(step: int) -> list[Task]:
            before(step)
            return _tasks(step)

        runtime, policy = InlineRuntime(), HashPolicy(self.folder / "state")
        handles = [runtime.spawn(_same, actor, name=name) for actor, name in ((policy, "policy"), (grader, "grader"))]
        rl = RLConfig(steps=STEPS, prompts_per_step=3)
        run_rl(
            RLRun("grpo", "mixed", rl, tasks), self.config, *handles, self.events, self.folder,
            lambda step, metrics: None, threading.Event(),
        )  # fmt: skip
        return policy.value

    def alarms(self) -> list[tuple[int, str, str]]:
        return [(a["step"], a["domain"], a["alarm"]) for a in read_alarms(self.folder / "events.jsonl")]

    def steps(self) -> list[int]:
        return [event["step"] for event in read_events(self.folder / "events.jsonl", "grpo", "mixed")]

    def rows(self, step: int, domain: str) -> list[dict[str, Any]]:
        return read_rollouts(rollouts_path(self.folder, "grpo", domain, step))


def _same(actor: Any) -> Any:
    return actor


class Judge:
    """An OpenAI-compatible server that says `met` to everything warm, until it is stopped for good."""

    def __init__(self) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = self.rfile.read(int(self.headers["Content-Length"])).decode()
                met = "A warm and clear" in asked
                reply = json.dumps({"choices": [{"message": {"role": "assistant", "content": _reply(met)}}]}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)

            def log_message(self, *words: Any) -> None:
                pass

        self._handler, self.server = Handler, ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._serve()

    def _serve(self) -> None:
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def start_again(self) -> None:
        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), self._handler)
        self._serve()


def _reply(met: bool) -> str:
    return json.dumps({"reason": "It is so.", "evidence": "warm" if met else "", "met": met})


@pytest.fixture
def judge() -> Iterator[Judge]:
    server = Judge()
    yield server
    server.stop()


@pytest.fixture
def grader(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> Iterator[Grader]:
    monkeypatch.setattr("pipeline.grader.judge_retries", lambda seconds: 0)
    opened = Grader(_config(), judge.url)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the policy learns when nothing goes wrong."""
    bench = Bench(tmp_path_factory.mktemp("undisturbed"), _config())
    judge = Judge()
    grader = Grader(bench.config, judge.url)
    value = bench.run(grader)
    grader.close()
    judge.stop()
    assert bench.alarms() == [] and bench.shown == []
    assert [row["reward"] for row in bench.rows(0, "code")] == [1.0, 0.0] * 2
    assert [row["reward"] for row in bench.rows(0, "letters")] == [1.0, 0.0] * 2
    return value


def test_judge_that_comes_back_costs_its_samples_only(grader, judge, undisturbed, tmp_path):
    bench = Bench(tmp_path / "run", _config())
    actions = {1: judge.stop, 2: judge.start_again}

    value = bench.run(grader, lambda step: actions.get(step, lambda: None)())

    assert value != undisturbed, "step 1 was taught without the letters"
    assert bench.steps() == list(range(STEPS))
    rows = bench.rows(1, "letters")
    assert [row["reward"] for row in rows] == [None] * 4 and all(judge.url in row["invalid_reason"] for row in rows)
    assert [row["reward"] for row in bench.rows(1, "sums")] == [1.0, 0.0] * 2
    (first, second) = bench.alarms()
    assert first[:2] == (1, "letters") and "4 of 4 rewards of letters are invalid and masked" in first[2]
    assert judge.url in first[2], "the alarm names the culprit"
    assert second == (2, "letters", "grpo/mixed, step 2: all rewards of letters are valid again")
    assert bench.shown == [f"alarm: {first[2]}", f"alarm: {second[2]}"]


def test_judge_that_stays_away_stops_the_run_and_it_goes_on_later(grader, judge, tmp_path):
    bench = Bench(tmp_path / "run", _config())
    judge.stop()
    with pytest.raises(StageError, match="no reward of letters was valid in 3 steps in a row") as stopped:
        bench.run(grader)
    assert judge.url in stopped.value.message
    assert bench.steps() == [0, 1], "the step that was refused was not learned from"
    assert len(bench.alarms()) == 3 and len(bench.shown) == 1, "each step is an alarm, the first is news"
    assert [row["reward"] for row in bench.rows(2, "letters")] == [None] * 4, "what was refused can be looked at"

    judge.start_again()
    bench.run(grader)
    assert bench.steps() == list(range(STEPS))
    assert [row["reward"] for row in bench.rows(2, "letters")] == [1.0, 0.0] * 2


def test_grader_that_raises_masks_its_samples(grader, undisturbed, tmp_path, monkeypatch, caplog):
    def broken(self: OwnDomain, attempt: Attempt, sandbox: object) -> object:
        if attempt.task.domain == "sums" and attempt.sample == 1:
            raise ZeroDivisionError("a bug of ours")
        return usual(self, attempt, sandbox)

    usual = OwnDomain.grade
    monkeypatch.setattr(OwnDomain, "grade", broken)
    bench = Bench(tmp_path / "run", _config())
    bench.run(grader)

    rows = bench.rows(0, "sums")
    assert [row["reward"] for row in rows] == [1.0, None, 1.0, 0.0]
    assert rows[1]["invalid_reason"] == "the grader of sums raised ZeroDivisionError: a bug of ours"
    assert bench.alarms()[0][:2] == (0, "sums") and "ZeroDivisionError" in bench.shown[0]
    assert "Traceback" in caplog.text, "the log shows where"


def test_grader_that_raises_for_all_stops_the_run_which_then_goes_on_bit_for_bit(
    grader, undisturbed, tmp_path, monkeypatch
):
    state = {"broken": False}
    for domain in (OwnDomain, type(CODE)):

        def broken(self: Any, attempt: Attempt, sandbox: object, usual: Any = domain.grade) -> object:
            if state["broken"]:
                raise KeyError("answer")
            return usual(self, attempt, sandbox)

        monkeypatch.setattr(domain, "grade", broken)
    bench = Bench(tmp_path / "run", _config())
    with pytest.raises(StageError, match="8 of 12 rewards are invalid, more than rewards") as stopped:
        bench.run(grader, lambda step: state.update(broken=step == 2))
    assert "the grader of" in stopped.value.message and "KeyError: 'answer'" in stopped.value.message
    assert bench.steps() == [0, 1]

    state["broken"] = False
    assert bench.run(grader) == undisturbed
    assert bench.steps() == list(range(STEPS))


def test_grader_that_gives_no_verdict_and_a_combination_that_raises_are_invalid(grader, monkeypatch):
    task = _tasks(0)[0]
    group = [Attempt(task, (r"\boxed{2}",), (), "stop", 2)]
    monkeypatch.setattr(OwnDomain, "grade", lambda self, attempt, sandbox: True)
    assert "gave bool in place of a verdict" in (grader.grade([group])[0][0].invalid_reason or "")
    monkeypatch.undo()
    monkeypatch.setattr("pipeline.grader.combine_group", lambda *words: 1 / 0)
    assert "raised ZeroDivisionError" in (grader.grade([group])[0][0].invalid_reason or "")


def test_sandbox_that_is_killed_again_and_again_is_started_again(grader, undisturbed, tmp_path):
    bench = Bench(tmp_path / "run", _config())
    assert bench.run(grader, lambda step: _kill_zygotes(grader)) == undisturbed
    assert bench.alarms() == [] and grader.sandbox.restarts == STEPS


def _kill_zygotes(grader: Grader) -> None:
    """SIGKILL for the sandbox's processes, the innermost first: bubblewrap's own may go and leave the others."""
    found = list(grader.sandbox.zygote_pids.values())
    for pid in found:
        found += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    for pid in reversed(found):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_sandbox_that_does_not_start_again_masks_what_needs_it(grader, undisturbed, tmp_path, monkeypatch):
    usual = type(grader.sandbox)._start

    def gone(*words: object) -> None:
        raise SandboxUnavailable("bwrap is not there any more")

    def act(step: int) -> None:
        _kill_zygotes(grader)
        monkeypatch.setattr(type(grader.sandbox), "_start", gone if step == 1 else usual)

    bench = Bench(tmp_path / "run", _config())
    bench.run(grader, act)
    rows = bench.rows(1, "code")
    assert all(row["reward"] is None for row in rows), [row["reward"] for row in rows]
    assert [row["reward"] for row in bench.rows(1, "sums")] == [1.0, 0.0] * 2
    assert [row["reward"] for row in bench.rows(2, "code")] == [1.0, 0.0] * 2
    assert bench.alarms()[0][:2] == (1, "code") and "sandbox" in bench.alarms()[0][2]


@pytest.mark.parametrize("place", ["rollouts", "event", "torn event", "state", "state's rename"])
def test_full_disk_loses_nothing(place, grader, undisturbed, tmp_path, monkeypatch):
    """A write of step 2 finds no room; with room again the run ends as if nothing had been."""
    bench = Bench(tmp_path / "run", _config())
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        bench.run(grader, lambda step: _fill_disk(patch, place) if step == 2 else None)
    assert not list((bench.folder / "state").glob(".*")), "half a state would keep the disk full"
    assert not list((bench.folder / "rollouts").rglob(".*"))

    assert bench.run(grader) == undisturbed
    assert bench.steps() == list(range(STEPS))
    lines = [line for line in (bench.folder / "events.jsonl").read_text().splitlines() if '"mixed"' in line]
    logged = [json.loads(line)["step"] for line in lines if line.startswith("{") and line.endswith("}")]
    assert logged == list(range(STEPS)), "no step is logged twice"
    for step in range(STEPS):
        assert len(bench.rows(step, "sums")) == 4


def _refuse(*words: Any, **more: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _fill_disk(patch: pytest.MonkeyPatch, place: str) -> None:
    def tear(self: Events, row: dict[str, Any]) -> None:
        if row.get("domain") != "mixed":
            return usual(self, row)
        with self.path.open("ab") as file:
            file.write(json.dumps(row).encode()[:40])
        return _refuse()

    usual = Events._append
    if place == "rollouts":
        patch.setattr("pyarrow.parquet.write_table", _refuse)
    elif place == "event":
        patch.setattr(Events, "_append", _refuse)
    elif place == "torn event":
        patch.setattr(Events, "_append", tear)
    elif place == "state":
        patch.setattr(f"{__name__}._write", _refuse)
    else:
        patch.setattr("pipeline.learning.checkpoints.commit_folder", _refuse)


def test_full_disk_is_named_also_where_the_manifest_can_not_be_written(fakes, tmp_path, monkeypatch):
    config, _ = load_config("smoke")
    config.run, write = str(tmp_path / "run"), Manifest.write
    with monkeypatch.context() as patch, pytest.raises(StageError) as stopped:
        patch.setattr(Events, "_append", _refuse)
        patch.setattr(
            Manifest, "write", lambda self, folder: _refuse() if self.state == "failed" else write(self, folder)
        )
        run_stages(config, ["base"], progress=NullProgress())
    assert f"The disk of {config.run} is full" in stopped.value.message and stopped.value.go_on

    run_stages(config, ["base"], progress=NullProgress())
    manifest = Manifest.read(Run(config.run).folder("base"))
    assert manifest is not None and manifest.state == "done" and manifest.attempts == 2


def test_status_shows_the_last_alarm(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    run = Run(tmp_path / "run")
    run.create(load_config("smoke")[0])
    for step in (3, 4):
        run.events.alarm("grpo", step, f"grpo/mixed, step {step}: the judge is down", domain="writing")
    assert run.events.read() == [], "an alarm is no metric"

    shown = typer.testing.CliRunner().invoke(app, ["status", "--run", str(run.path)])
    assert "alarm: grpo/mixed, step 4: the judge is down (1 before it)" in shown.output
    run.events.reset("grpo")
    assert read_alarms(run.events.path) == []


def test_reasons_that_differ_in_what_they_quote_are_one_culprit():
    said: list[str] = []
    watch = OutageWatch("grpo/mixed", _config().rewards, lambda step, domain, text, news: said.append(text))
    task = _tasks(0)[0]
    trials = tuple(_trajectory(Trial(task, number, 0, 9, (), 1)) for number in range(4))
    reasons = ["the judge's reply is no JSON: 'red'", "the judge's reply is no JSON: 'blue", "timeout", None]
    rewards = tuple(Reward.invalid(why) if why else Reward.of([], True) for why in reasons)
    with pytest.raises(StageError, match=r"most often \(2 times\): sums: the judge's reply is no JSON: 'red'"):
        watch.look(0, [Group(task, trials, rewards)])
    assert "most often (2 times): the judge's reply is no JSON: 'red'" in said[0]
