"""What a run would do: stages, reasons, resources, time."""

import importlib.resources
import importlib.util
import json
from pathlib import Path

import pytest

from pipeline.conductor import run_stages
from pipeline.config import load_config
from pipeline.config.schema import TextDataConfig
from pipeline.errors import UsageError
from pipeline.machine import parameters, requirements
from pipeline.plan import blocked_by, check_targets, make_plan, step_text, with_needs
from pipeline.progress import NullProgress
from pipeline.runs import Run

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def finished(tmp_path, fakes):
    """A run whose fake stages up to the specialists are done, and its settings."""
    config, _ = load_config("smoke")
    config.run = str(tmp_path / "run")
    run_stages(config, ["specialists"], progress=NullProgress())
    return config


def states(config, targets=("specialists",), **more):
    made = make_plan(Run(config.run), config, list(targets), **more)
    return {part.name: (part.state, part.reasons) for part in made.stages}


def test_targets_bring_what_they_need_in_order():
    config, _ = load_config("smoke")
    assert [spec.name for spec in with_needs(["specialists"], config)] == ["base", "sparsify", "judge", "specialists"]
    assert check_targets(["all"])[-1] == "evaluate"
    assert check_targets(["judge", "base"]) == ["base", "judge"]
    with pytest.raises(UsageError, match="Did you mean grpo"):
        check_targets(["grop"])


def test_a_new_run_misses_everything_and_nothing_is_written(tmp_path):
    config, _ = load_config("tiny")
    config.run = str(tmp_path / "run")
    made = make_plan(Run(config.run), config, ["grpo"])
    assert {part.state for part in made.stages} == {"missing"}
    assert made.seconds is None
    assert json.loads(json.dumps(made.to_json()))["stages"][0]["name"] == "base"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("preset", ["dsa-paper", "dsa-h200"])
def test_presets_for_gpus_are_planned_on_any_machine(tmp_path, preset):
    config, _ = load_config(preset, [], [f"run={tmp_path / 'run'}"])
    made = make_plan(Run(config.run), config, ["sparsify"])
    assert [(part.name, part.state) for part in made.stages] == [("base", "missing"), ("sparsify", "missing")]
    assert {need.name: need.needed for need in made.resources}["GPUs"] == 1
    config.model.path, config.sparsify.data = "my_model", TextDataConfig(train="texts.jsonl")
    assert [part.name for part in make_plan(Run(config.run), config, ["sparsify"]).stages] == ["sparsify"]


def test_unchanged_stages_are_cached_and_timed(finished):
    assert {state for state, _ in states(finished).values()} == {"cached"}
    assert make_plan(Run(finished.run), finished, ["specialists"]).seconds == 0


def test_a_changed_setting_is_named_and_what_follows_waits(finished):
    steps = finished.sparsify.sparse_steps
    finished.sparsify.sparse_steps += 1
    found = states(finished)
    assert found["base"] == ("cached", ())
    assert found["sparsify"] == ("stale", (f"sparsify.sparse_steps {steps} → {steps + 1}",))
    assert found["judge"] == ("cached", ())
    assert found["specialists"][0] == "stale"
    assert "sparsify will run first" in found["specialists"][1][0]
    made = make_plan(Run(finished.run), finished, ["specialists"])
    assert made.seconds is not None


def test_settings_that_change_no_result_leave_a_stage_cached(finished):
    finished.base.checkpoint_every = 1
    finished.judge.concurrency = 2
    finished.runtime.threads = 1
    assert {state for state, _ in states(finished).values()} == {"cached"}


def test_a_changed_or_missing_output_makes_a_stage_stale(finished):
    result = Run(finished.run).folder("base") / "result.json"
    content = result.read_text()
    result.write_text("tampered")
    state, reasons = states(finished)["base"]
    assert state == "stale"
    assert "changed on disk" in reasons[0]
    result.unlink()
    assert "is gone" in states(finished)["base"][1][0]
    result.write_text(content)
    assert states(finished)["base"][0] == "cached"


def test_another_version_of_the_package_makes_stages_stale(finished, monkeypatch):
    monkeypatch.setattr("pipeline.runs.manifest.package_version", lambda: "99")
    assert "→ 99" in states(finished)["base"][1][0]


def test_a_changed_input_is_named(finished):
    run = Run(finished.run)
    manifest = run.stage_manifest("base")
    (run.folder("base") / "result.json").write_text("other")
    output = manifest.outputs["result"]
    manifest.outputs["result"] = type(output).of(output.at(run.path), "value", run.path)
    manifest.write(run.folder("base"))
    state, reasons = states(finished)["sparsify"]
    assert state == "stale"
    assert reasons[0].startswith("input base/result")


def test_force_and_a_damaged_manifest(finished):
    assert states(finished, force=["judge"])["judge"] == ("stale", ("forced",))
    (Run(finished.run).folder("judge") / "manifest.json").write_text("{")
    assert states(finished)["judge"][0] == "missing"


def test_blocked_names_only_direct_needs_that_are_no_targets(finished):
    made = make_plan(Run(finished.run), finished, ["grpo"])
    assert [part.name for part in blocked_by(made, ["grpo"])] == ["distill"]
    assert blocked_by(made, ["specialists", "distill"]) == []


def test_measured_times_of_a_preset_are_the_estimate(tmp_path, monkeypatch):
    (tmp_path / "timings.json").write_text(
        json.dumps({"tiny": {"base": 60, "sparsify": 30, "device": "2 CPUs", "date": "2026-11-23"}})
    )
    config, _ = load_config("tiny")
    monkeypatch.setattr(importlib.resources, "files", lambda package: tmp_path)
    config.run = str(tmp_path / "run")
    made = make_plan(Run(config.run), config, ["sparsify"], preset="tiny")
    assert made.seconds == 90
    assert made.stages[0].measured == "2 CPUs, 2026-11-23"
    assert make_plan(Run(config.run), config, ["sparsify"], preset="other").seconds is None


def test_the_script_writes_what_the_plan_reads(tmp_path, fakes, monkeypatch):
    spec = importlib.util.spec_from_file_location("write_timings", ROOT / "scripts/write_timings.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    config, _ = load_config("smoke")
    config.run = str(tmp_path / "run")
    file = tmp_path / "timings.json"
    file.write_text('{"tiny": {"base": 7}}')
    arguments = [config.run, "smoke", "--file", str(file)]
    with pytest.raises(SystemExit, match="stage base is missing"):
        script.main(arguments)
    run_stages(config, ["evaluate"], progress=NullProgress())
    script.main(arguments)
    written = json.loads(file.read_text())
    assert written["tiny"] == {"base": 7}
    assert list(written["smoke"]) == [*check_targets(["all"]), "device", "date"]
    assert "cores" in written["smoke"]["device"]
    config.run = str(tmp_path / "another")
    with monkeypatch.context() as patch:
        patch.setattr(importlib.resources, "files", lambda package: tmp_path)
        made = make_plan(Run(config.run), config, ["evaluate"], preset="smoke")
    assert made.seconds == pytest.approx(sum(written["smoke"][name] for name in check_targets(["all"])))
    assert made.stages[0].measured == f"{written['smoke']['device']}, {written['smoke']['date']}"
    with pytest.raises(SystemExit, match=r"other settings than preset tiny: .*base\.steps"):
        script.main([str(tmp_path / "run"), "tiny", "--file", str(file)])


def test_resources_are_compared_with_the_machine(monkeypatch):
    config, _ = load_config("tiny")
    table = {need.name: need for need in requirements(config)}
    assert table["memory"].there > 0.1
    assert not table["GPUs"].short
    config.device, config.runtime.gpus_per_worker = "cuda", 2.0
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    table = {need.name: need for need in requirements(config)}
    assert table["GPUs"].needed == 4
    assert table["GPUs"].short
    config.runtime.address = "10.0.0.1:6379"
    assert not any(need.short for need in requirements(config) if need.name == "GPUs")


def test_an_unreadable_model_folder_has_no_estimate(tmp_path):
    config, _ = load_config("tiny", [], [f"model.path={tmp_path}"])
    assert parameters(config.model) is None
    (tmp_path / "config.json").write_text('{"torch_dtype": "bfloat16"}')
    (tmp_path / "model.safetensors").write_bytes(b"0" * 2000)
    assert parameters(config.model) == 1000


def test_steps_in_words():
    assert step_text({"": 12}) == "12"
    assert step_text({"math": 3}) == "3 (math)"
    assert step_text({"base": 3}, "base") == "3"
    assert step_text({"math": 3, "code": 4}) == "math 3, code 4"
    assert step_text({}) == ""
