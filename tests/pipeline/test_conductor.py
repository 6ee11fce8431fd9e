"""Stages run once, in order, and go on after anything that may happen to them."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from pipeline.conductor import continue_command, run_stages
from pipeline.config import load_config
from pipeline.errors import ResourceError, StageError, UsageError
from pipeline.progress import NullProgress, PlainProgress
from pipeline.runs import Run, Sources
from pipeline.stages import STAGES, StageResult

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def config(tmp_path, fakes):
    config, _ = load_config("smoke", [], ["base.steps=4"])
    config.run = str(tmp_path / "run")
    return config


def run(config, *targets, **more):
    return {one.name: one.state for one in run_stages(config, targets, progress=NullProgress(), **more)}


def calls(config) -> list[str]:
    """`stage step` of every step that a fake stage took."""
    return (Path(config.run) / "calls.log").read_text().splitlines()


def results(folder: Path) -> dict[str, str]:
    return {spec.name: (folder / spec.name / "result.json").read_text() for spec in STAGES}


def test_everything_runs_once_and_the_second_time_nothing(config):
    assert set(run(config, "evaluate").values()) == {"done"}
    before = calls(config)
    assert [line.split()[0] for line in before] == [
        spec.name for spec in STAGES for _ in range(4 if spec.name == "base" else 3)
    ]
    assert set(run(config, "evaluate").values()) == {"cached"}
    assert calls(config) == before
    manifest = Run(config.run).stage_manifest("base")
    assert (manifest.state, manifest.attempts, manifest.counts) == ("done", 1, {"steps": 4})
    assert manifest.settings["base.steps"] == 4
    assert manifest.seconds > 0
    assert "python" in manifest.versions


def test_a_changed_setting_runs_that_stage_and_what_follows_only_if_it_differs(config):
    run(config, "specialists")
    config.judge.heldout += 1
    expected = {"base": "cached", "sparsify": "cached", "judge": "done", "specialists": "done"}
    assert run(config, "specialists") == expected
    config.sparsify.eval_batches += 1
    # The fake stage's result does not depend on the setting, so the inputs of what follows are what they were.
    assert run(config, "specialists") == dict.fromkeys(expected, "cached") | {"sparsify": "done"}
    config.base.steps += 1
    assert set(run(config, "specialists").values()) == {"done"}
    assert (Path(config.run) / "replaced" / "base" / "manifest.json").exists()


def test_force_runs_a_stage_again(config):
    run(config, "base")
    assert run(config, "base", force=["base"]) == {"base": "done"}
    assert calls(config) == 2 * [f"base {step}" for step in range(1, 5)]


def test_a_failed_stage_says_why_and_goes_on_from_its_last_step(config, monkeypatch):
    monkeypatch.setenv("FAKE_FAIL", "sparsify")
    with pytest.raises(StageError, match="Stage sparsify failed: ValueError: the fake stage") as caught:
        run(config, "sparsify")
    assert caught.value.go_on == continue_command(["sparsify"], Path(config.run))
    assert "told to fail" in caught.value.log.read_text()
    assert "Traceback" in caught.value.log.read_text()
    manifest = Run(config.run).stage_manifest("sparsify")
    assert (manifest.state, manifest.error) == ("failed", "ValueError: the fake stage was told to fail")
    monkeypatch.delenv("FAKE_FAIL")
    assert run(config, "sparsify") == {"base": "cached", "sparsify": "done"}
    assert calls(config)[4:] == ["sparsify 1", "sparsify 2", "sparsify 3"]
    assert Run(config.run).stage_manifest("sparsify").attempts == 2


def test_the_command_that_goes_on_says_all_for_all_stages():
    names = [spec.name for spec in STAGES]
    assert continue_command(names, Path("runs/a")) == "pipeline run all --run runs/a"
    assert continue_command(names[:2], Path("runs/a")) == f"pipeline run {names[0]} {names[1]} --run runs/a"


def test_what_libraries_say_goes_to_the_log_of_the_stage_and_not_to_the_terminal(config, monkeypatch, capsys):
    def noisy(context):
        warnings.warn("this argument goes away", UserWarning, stacklevel=1)
        logging.getLogger("some.library").setLevel(logging.DEBUG)
        logging.getLogger("some.library").warning("beware")
        logging.getLogger("some.library").debug("chatter")
        print("(raylet) Task f failed. There are 8 retries remaining", file=sys.stderr)
        return StageResult({})

    monkeypatch.setattr(sys.modules["pipeline.stages.base"], "run", noisy)
    kept = sys.stderr
    run(config, "base")
    assert sys.stderr is kept
    written = capsys.readouterr()
    assert written.err + written.out == ""
    log = Run(config.run).log("base").read_text()
    for text in ("UserWarning: this argument goes away", "WARNING some.library: beware", "8 retries remaining"):
        assert text in log
    assert "chatter" not in log


def test_a_stream_that_a_library_kept_writes_to_the_terminal_after_the_run(config, monkeypatch, capsys):
    found = []

    def keeps_the_stream(context):
        found.append(sys.stderr)
        return StageResult({})

    monkeypatch.setattr(sys.modules["pipeline.stages.base"], "run", keeps_the_stream)
    run(config, "base")
    print("afterwards", file=found[0])
    assert capsys.readouterr().err == "afterwards\n"


def test_an_interrupted_stage_under_other_settings_begins_anew(config, monkeypatch):
    monkeypatch.setenv("FAKE_FAIL", "base")
    with pytest.raises(StageError):
        run(config, "base")
    monkeypatch.delenv("FAKE_FAIL")
    config.base.documents = 501
    run(config, "base")
    assert calls(config) == ["base 1", "base 1", "base 2", "base 3", "base 4"]
    assert [event["step"] for event in Run(config.run).events.read("base")] == [1, 2, 3, 4]


def test_without_deps_a_missing_stage_is_named_and_nothing_written(config):
    sources = Sources("smoke", (), ("base.steps=4",))
    with pytest.raises(UsageError, match="base \\(missing\\)") as caught:
        run(config, "judge", deps=False, sources=sources)
    assert caught.value.go_on.endswith("--preset smoke base.steps=4")
    assert not Path(config.run).exists()
    run(config, "base")
    assert run(config, "judge", deps=False)["judge"] == "done"


def test_a_machine_without_the_gpus_is_refused_before_anything_is_written(config, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    config.device = "cuda"
    with pytest.raises(ResourceError, match="GPUs: needed 1, there are 0"):
        run(config, "base")
    assert not Path(config.run).exists()


def test_reasons_are_said(config, capsys):
    run(config, "base")
    config.base.steps = 3
    run_stages(config, ["base"], progress=PlainProgress(sys.stdout))
    assert "base: stale because base.steps 4 → 3" in capsys.readouterr().out


def start(folder: Path, *words: str, delay: float) -> subprocess.Popen[str]:
    """The command line with fake stages, in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "FAKE_DELAY": str(delay)}
    command = [sys.executable, str(ROOT / "tests/pipeline/fake_stages.py"), "run", *words]
    return subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def wait_for_call(folder: Path, line: str) -> None:
    deadline = time.monotonic() + 30
    log = folder / "runs/default/calls.log"
    while not log.exists() or line not in log.read_text().splitlines():
        assert time.monotonic() < deadline, f"the stage never came to {line!r}"
        time.sleep(0.01)


def test_killed_at_any_point_it_ends_like_an_undisturbed_run(tmp_path):
    words = ("all", "--preset", "smoke", "base.steps=6")
    for name in ("killed", "undisturbed"):
        (tmp_path / name).mkdir()
    for line in ("base 2", "base 4", "judge 1", "grpo 2"):
        driver = start(tmp_path / "killed", *words, delay=0.1)
        wait_for_call(tmp_path / "killed", line)
        driver.kill()
        driver.communicate()
    for name in ("killed", "undisturbed"):
        driver = start(tmp_path / name, *words, delay=0)
        out, err = driver.communicate(timeout=60)
        assert driver.returncode == 0, err
    folder = tmp_path / "killed" / "runs/default"
    assert results(folder) == results(tmp_path / "undisturbed" / "runs/default")
    log = (folder / "calls.log").read_text().splitlines()
    # A step whose call was logged but not committed is repeated; nothing that was committed is.
    assert len(log) <= 6 + 6 * 3 + 4
    assert log.count("base 1") == 1
    assert "base: unchanged, skipped" not in out
    steps = [event["step"] for event in Run(folder).events.read("base")]
    assert steps == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_cleanly_with_the_command_that_goes_on(tmp_path, number):
    driver = start(tmp_path, "sparsify", "--preset", "smoke", "base.steps=50", delay=0.05)
    wait_for_call(tmp_path, "base 2")
    driver.send_signal(number)
    _, err = driver.communicate(timeout=30)
    assert driver.returncode == 130
    assert "Go on with: pipeline run sparsify --run runs/default" in err
    manifest = json.loads((tmp_path / "runs/default/base/manifest.json").read_text())
    assert manifest["state"] == "interrupted"
    driver = start(tmp_path, "base", "--run", "runs/default", delay=0)
    out, err = driver.communicate(timeout=30)
    assert driver.returncode == 0, err
    assert "base: goes on" in out
    assert (tmp_path / "runs/default/calls.log").read_text().count("base 1\n") == 1


def test_a_second_driver_is_refused_with_exit_code_3(tmp_path):
    first = start(tmp_path, "base", "--preset", "smoke", "base.steps=200", delay=0.05)
    try:
        wait_for_call(tmp_path, "base 1")
        second = start(tmp_path, "base", "--preset", "smoke", delay=0)
        _, err = second.communicate(timeout=30)
        assert second.returncode == 3
        assert f"held by process {first.pid}" in err
    finally:
        first.kill()
        first.communicate()
