"""The command line as a user meets it."""

import json
import os
import re
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
import typer.testing

from pipeline.cli import app
from pipeline.config import load_config
from pipeline.errors import StageError
from pipeline.runs import Run, write_json

ROOT = Path(__file__).resolve().parents[2]
STEPS = load_config("smoke")[0].base.steps


@pytest.fixture
def pipeline(tmp_path, monkeypatch, fakes):
    """`pipeline("run", "base")` in an empty folder, with stages that take no time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    runner = typer.testing.CliRunner()

    def invoke(*words: str, code: int = 0):
        result = runner.invoke(app, list(words))
        assert result.exit_code == code, result.output
        return result

    return invoke


@pytest.mark.parametrize("words", [["--help"], ["plan"], ["status", "--json"], ["config", "show"], ["list"]])
def test_commands_that_look_start_without_torch_or_ray(words, tmp_path):
    config, _ = load_config("tiny")
    Run(tmp_path / "runs/default").create(config)
    program = (
        "import sys\nfrom pipeline.cli import app\n"
        "try:\n    app(sys.argv[1:], prog_name='pipeline')\n"
        "finally:\n    print(sorted({'torch', 'ray', 'pyarrow'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "[]"


def test_run_then_status_and_list(pipeline):
    out = pipeline("run", "sparsify", "--preset", "smoke", "base.steps=2").output
    assert "settings: preset smoke, base.steps=2" in out
    assert "base: done" in out
    rows = json.loads(pipeline("status", "--json").stdout)["stages"]
    assert rows[0]["state"] == "done"
    assert rows[0]["steps"] == {"math": 2}
    assert rows[0]["key number"] == "reward 1"
    assert rows[2]["state"] == "missing"
    assert "reward 1" in pipeline("status").output
    listed = json.loads(pipeline("list", "--json").stdout)
    assert listed[0]["done"] == ["base", "sparsify"]
    assert "2 of 7" in pipeline("list").output


def test_a_run_remembers_its_settings_until_new_ones_are_given(pipeline):
    pipeline("run", "base", "--preset", "smoke", "base.steps=2", "--set", "seed=1", "--run", "runs/a")
    plan = json.loads(pipeline("plan", "base", "--run", "runs/a", "--json").stdout)
    assert plan["stages"][0]["state"] == "cached"
    assert "base: unchanged" in pipeline("run", "base", "run=runs/a").output
    shown = json.loads(pipeline("config", "show", "--run", "runs/a", "seed=2", "--json").stdout)
    assert (shown["base"]["steps"], shown["seed"], shown["run"]) == (2, 2, "runs/a")
    plan = json.loads(pipeline("plan", "base", "--run", "runs/a", "--preset", "smoke", "--json").stdout)
    assert plan["stages"][0]["reasons"] == [f"base.steps 2 → {STEPS}", "seed 1 → 0"]


def test_a_remembered_file_that_is_gone_is_told_with_the_way_out(pipeline, tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text("base: {steps: 2}\n")
    pipeline("run", "base", "--preset", "smoke", "-c", "own.yaml")
    file.unlink()
    assert "--preset or -c starts them over" in pipeline("run", "base", code=2).output


def test_dry_run_is_plan_and_writes_nothing(pipeline, tmp_path):
    dry = json.loads(pipeline("run", "grpo", "--dry-run", "--json").stdout)
    assert dry["stages"] == json.loads(pipeline("plan", "grpo", "--json").stdout)["stages"]
    told = pipeline("plan", "--preset", "smoke", "base.steps=3").output
    assert "tokenizer and dense base" in told
    assert "Run it with: pipeline run all --run runs/default --preset smoke base.steps=3" in told
    assert list(tmp_path.iterdir()) == []


def test_wrong_settings_exit_2_with_all_problems_and_nothing_written(pipeline, tmp_path):
    result = pipeline("run", "all", "grpo.stepz=1", "--set", "judge.votes=2", "seed=x", code=2)
    for text in ("Did you mean grpo.steps?", "judge.votes", "an integer", "3 problems"):
        assert text in result.output
    problems = json.loads(pipeline("run", "all", "grpo.stepz=1", "seed=x", "--json", code=2).stderr)[
        "problems"
    ]
    assert [problem["key"] for problem in problems] == ["grpo.stepz", "seed"]
    assert problems[0]["suggestion"] == "grpo.steps"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["run"], "Which stages?"),
        (["run", "grop"], "Did you mean grpo?"),
        (["run", "base", "--force", "bas"], "Did you mean base?"),
        (["status"], "There is no run in runs/default"),
        (["config", "explain", "grpo.stepz"], "Did you mean grpo.steps?"),
        (["config", "explain"], "KEY"),
        (["config", "show", "grpo"], "key=value"),
        (["export"], "There is no run"),
        (["chat", "--mode", "silent"], "thinking or direct"),
        (["plan", "--preset", "tniy"], "Did you mean tiny?"),
        (["grop"], "grop"),
    ],
)
def test_usage_errors_exit_2(pipeline, words, says):
    assert says in pipeline(*words, code=2).output


def test_a_failed_stage_exits_4_with_log_and_command(pipeline, monkeypatch):
    monkeypatch.setenv("FAKE_FAIL", "base")
    result = pipeline("run", "base", "--preset", "smoke", code=4)
    assert "Stage base failed: ValueError" in result.output
    assert "Details: runs/default/logs/base.log" in result.output
    assert "Go on with: pipeline run base --run runs/default" in result.output
    assert "the fake stage was told to fail" in pipeline("status").output
    row = json.loads(pipeline("run", "base", "--json", code=4).stderr.partition("{")[2].join(["{", ""]))
    assert row["exit_code"] == 4
    assert row["log"] == "runs/default/logs/base.log"


def test_run_as_json_keeps_standard_output_for_the_result(pipeline):
    result = pipeline("run", "base", "--preset", "smoke", "--json")
    assert json.loads(result.stdout)["stages"][0]["state"] == "done"
    assert "base: begins" in result.stderr


def test_config_commands(pipeline):
    assert "settings are valid" in pipeline("config", "validate", "grpo.steps=3").output
    assert "grpo.steps: 3" in pipeline("config", "show", "--origin", "grpo.steps=3").output
    assert "# override grpo.steps=3" in pipeline("config", "show", "--origin", "grpo.steps=3").output
    assert "clip_low: 0.2" in pipeline("config", "show").output
    out = pipeline("config", "explain", "grpo.clip_low", "grpo.clip_low=0.3").output
    for text in ("importance ratio", "default: 0.2", "value: 0.3", "set in: override", "between 0 and 1"):
        assert text in out
    section = pipeline("config", "explain", "grpo", "grpo.steps=77").output
    assert "grpo.optimizer" in section
    assert re.search(r"grpo\.steps +77 +an integer +rollout batches", section)
    assert re.search(r"grpo\.scale_by_std +false", section)


def test_export_and_chat_call_their_rooms_with_the_run(pipeline, monkeypatch):
    seen: list[tuple] = []
    exporting, chatting = types.ModuleType("pipeline.export"), types.ModuleType("pipeline.chat")
    exporting.export_checkpoint = lambda *given: seen.append(given) or given[2]
    chatting.chat = lambda *given: seen.append(given)
    monkeypatch.setitem(sys.modules, "pipeline.export", exporting)
    monkeypatch.setitem(sys.modules, "pipeline.chat", chatting)
    pipeline("run", "base", "--preset", "smoke")
    assert "runs/default/export/specialists_math" in pipeline("export", "specialists/math").output
    assert json.loads(pipeline("export", "--out", "here", "--json").stdout)["path"] == "here"
    pipeline("chat", "base", "--mode", "direct", "-p", "2+2?")
    assert seen[0] == (Path("runs/default"), "specialists/math", Path("runs/default/export/specialists_math"))
    assert seen[2][:4] == (Path("runs/default"), "base", "direct", "2+2?")
    assert seen[2][4].base.steps == STEPS


def test_a_stage_may_say_the_way_on_itself(pipeline, monkeypatch):
    def fail(context):
        raise StageError("the judge agrees too little", go_on="pipeline run judge judge.steps=400")

    monkeypatch.setattr(sys.modules["pipeline.stages.base"], "run", fail)
    assert "Go on with: pipeline run judge judge.steps=400" in pipeline("run", "base", code=4).output


def test_status_tells_a_killed_stage_from_a_running_one(pipeline):
    pipeline("run", "base", "--preset", "smoke")
    path = Path("runs/default/base/manifest.json")
    write_json(path, json.loads(path.read_text()) | {"state": "running"})
    assert json.loads(pipeline("status", "--json").stdout)["stages"][0]["state"] == "interrupted"
    assert json.loads(pipeline("plan", "base", "--json").stdout)["stages"][0]["state"] == "interrupted"
    with Run("runs/default").lock():
        os.utime(path, (time.time() - 100, time.time() - 100))
        row = json.loads(pipeline("status", "--json").stdout)["stages"][0]
        assert row["state"] == "running"
        assert 100 <= row["seconds"] < 200
