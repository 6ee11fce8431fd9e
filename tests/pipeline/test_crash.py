"""SIGKILL of the driver, or of actors, in the middle of the RL stages: the run goes on and ends as if nothing had been.

A case gets the finished smoke run without its RL stages (distill stays: its inputs must come out bit for bit as they
were, or it would run again), kills processes while they are made anew, and compares with the undisturbed run.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections import Counter
from pathlib import Path

import pytest

from pipeline.config import load_config
from pipeline.runs import Manifest, read_events
from pipeline.tasks import enabled_domains

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

CONFIG = load_config("smoke")[0]
DOMAINS = enabled_domains(CONFIG)
STEPS = {"specialists": CONFIG.specialists.rl.steps, "grpo": CONFIG.grpo.steps}
KEPT = ("base", "sparsify", "judge", "distill")
POLICIES = {"specialists": DOMAINS, "grpo": ["mixed"]}


def test_run_survives_kills_of_the_driver(smoke, tmp_path: Path, start_pipeline) -> None:
    run = _without_rl(smoke.path, tmp_path / "run")
    words = (*smoke.words[:-1], str(run))
    killed = []
    for stage in ("specialists", "grpo"):
        command = start_pipeline(*words)
        command.wait_for(lambda stage=stage: _in_the_middle(run, stage), f"a step of {stage}")
        command.kill()
        killed.append(command)
        manifest = Manifest.read(run / stage)
        assert manifest is not None and manifest.state == "running", "the stage was over before the kill"

    last = start_pipeline(*words)
    assert last.finish() == 0, last.output

    assert "grpo: goes on" in last.output
    assert "specialists: goes on" in killed[1].output
    for command in (killed[1], last):
        assert all(f"{stage}: unchanged, skipped" in command.output for stage in KEPT)
    assert "specialists: unchanged, skipped" in last.output
    assert _attempts(run) == {"specialists": 2, "grpo": 2, "evaluate": 1}
    _assert_like(run, smoke.path)
    for command in (*killed, last):
        command.assert_nothing_left()


def test_run_survives_kills_of_its_actors(smoke, tmp_path: Path, start_pipeline) -> None:
    run = _without_rl(smoke.path, tmp_path / "run")
    command = start_pipeline(*smoke.words[:-1], str(run))
    for stage, names in (("specialists", ("PolicyWorker", "Grader")), ("grpo", ("PolicyWorker", "JudgeServer"))):
        command.wait_for(lambda stage=stage: _in_the_middle(run, stage), f"a step of {stage}")
        for name in names:
            _kill_actor(command, name)
        command.wait_for(lambda stage=stage: _is_done(run, stage), f"the end of {stage}")

    assert command.finish() == 0, command.output

    assert _attempts(run) == {"specialists": 1, "grpo": 1, "evaluate": 1}
    _assert_like(run, smoke.path)
    command.assert_nothing_left()


def _without_rl(source: Path, run: Path) -> Path:
    """A copy of a finished run in which specialists, grpo and evaluate have not begun."""
    run.mkdir()
    for stage in KEPT:
        shutil.copytree(source / stage, run / stage)
    lines = (source / "events.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if json.loads(line)["stage"] in KEPT]
    (run / "events.jsonl").write_text("".join(kept), encoding="utf-8")
    return run


def _steps(run: Path, stage: str, name: str) -> list[int]:
    return [event["step"] for event in read_events(run / "events.jsonl", stage, name)]


def _in_the_middle(run: Path, stage: str) -> bool:
    """Whether a policy of the stage has done a step and none has done all but the last two."""
    done = [len(_steps(run, stage, name)) for name in POLICIES[stage]]
    assert max(done) < STEPS[stage] - 1, f"{stage} was too fast to be hit in its middle"
    return max(done) > 0


def _is_done(run: Path, stage: str) -> bool:
    manifest = Manifest.read(run / stage)
    return manifest is not None and manifest.state == "done"


def _kill_actor(command, name: str) -> None:
    """SIGKILL for one actor among the command's own processes; waits until Ray has another in its place."""
    before = command.actors(name)
    assert before, f"no {name} among the processes of the run"
    os.kill(before[0], signal.SIGKILL)
    command.wait_for(lambda: set(command.actors(name)) - set(before), f"a new {name}")


def _attempts(run: Path) -> dict[str, int]:
    manifests = {stage: Manifest.read(run / stage) for stage in ("specialists", "grpo", "evaluate")}
    assert all(manifest is not None and manifest.state == "done" for manifest in manifests.values())
    return {stage: manifest.attempts for stage, manifest in manifests.items() if manifest is not None}


def _assert_like(run: Path, undisturbed: Path) -> None:
    """The same weights bit for bit, the same figures, no stage done twice, every step logged once."""
    for stage in KEPT:
        files = [folder / stage / "manifest.json" for folder in (run, undisturbed)]
        assert files[0].read_bytes() == files[1].read_bytes(), f"{stage} was repeated"
    for stage, steps in STEPS.items():
        for name in POLICIES[stage]:
            lines = [json.loads(line) for line in (run / "events.jsonl").read_text(encoding="utf-8").splitlines()]
            metrics = [line for line in lines if "alarm" not in line]
            logged = Counter(line["step"] for line in metrics if (line["stage"], line["domain"]) == (stage, name))
            assert logged == dict.fromkeys(range(steps), 1), f"{stage}/{name}: steps and how often they were logged"
        manifests = [Manifest.read(folder / stage) for folder in (run, undisturbed)]
        assert manifests[0] is not None and manifests[1] is not None
        assert manifests[0].hashes() == manifests[1].hashes(), f"{stage}: other weights than without the kill"
    for name in DOMAINS:
        assert _steps(run, "grpo", name) == _steps(undisturbed, "grpo", name)
    reports = [json.loads((folder / "report.json").read_text(encoding="utf-8")) for folder in (run, undisturbed)]
    assert reports[0]["evaluate"] == reports[1]["evaluate"]
    rollouts = [
        {str(path.relative_to(folder)) for path in (folder / "rollouts").rglob("*.parquet")}
        for folder in (run, undisturbed)
    ]
    assert rollouts[0] == rollouts[1]
