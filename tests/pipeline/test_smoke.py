"""The whole pipeline on Ray with the preset `smoke`: every stage does its work, and a second call does nothing."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from pipeline.config import load_config
from pipeline.runs import Manifest, read_events, read_rollouts
from pipeline.stages import STAGES
from pipeline.tasks import enabled_domains
from rollout.records import MODES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

CONFIG = load_config("smoke")[0]
DOMAINS = enabled_domains(CONFIG)
CHECKPOINTS = ("base", "sparsified", "specialists", "distilled", "final")
PROVENANCE = {"domain", "mode", "language", "specialist", "specialist_step", "task", "seed", "reward"}


@pytest.fixture(scope="module")
def report(smoke) -> dict:
    return json.loads((smoke.path / "report.json").read_text(encoding="utf-8"))


def test_every_stage_is_done_at_the_first_attempt_and_leaves_no_process(smoke) -> None:
    manifests = {spec.name: Manifest.read(smoke.path / spec.name) for spec in STAGES}
    assert {name: (m.state, m.attempts) for name, m in manifests.items() if m} == {
        spec.name: ("done", 1) for spec in STAGES
    }
    smoke.command.assert_nothing_left()


def test_report_has_every_checkpoint_domain_and_mode(smoke, report: dict) -> None:
    assert tuple(report["evaluate"]) == CHECKPOINTS
    for checkpoint in CHECKPOINTS:
        assert set(report["evaluate"][checkpoint]) == set(DOMAINS)
        for domain in DOMAINS:
            assert set(report["evaluate"][checkpoint][domain]) == set(MODES)
            for cell in report["evaluate"][checkpoint][domain].values():
                low, high = cell["ci95"]
                assert 0 <= low <= cell["pass_rate"] <= high <= 1
                assert cell["n"] + cell.get("invalid", 0) == CONFIG.evaluate.tasks
                assert cell["mean_tokens"] > 0
                assert 0 <= cell["language_consistency"] <= 1
    assert {spec.name for spec in STAGES} - {"evaluate"} <= set(report["timings"])
    assert {"torch", "transformers", "trl", "ray", "polymath-rl"} <= set(report["versions"])


def test_every_plot_is_png_and_svg(smoke) -> None:
    plots = {path.name: path for path in (smoke.path / "plots").iterdir()}
    stems = {Path(name).stem for name in plots}
    assert stems
    assert set(plots) == {f"{stem}.{kind}" for stem in stems for kind in ("png", "svg")}
    assert all(plots[f"{stem}.png"].read_bytes().startswith(b"\x89PNG") for stem in stems)
    assert all("<svg" in plots[f"{stem}.svg"].read_text(encoding="utf-8") for stem in stems)


def test_distilled_rows_are_verified_and_say_where_they_come_from(smoke) -> None:
    import datasets

    rows = datasets.load_from_disk(str(smoke.path / "distill" / "dataset"))
    assert len(rows) > 0
    assert set(rows.column_names) >= PROVENANCE
    assert set(rows["domain"]) <= set(DOMAINS) and set(rows["specialist"]) <= set(DOMAINS)
    assert set(rows["specialist_step"]) == {CONFIG.specialists.rl.steps}
    for row in rows:
        assert len(row["input_ids"]) == len(row["assistant_masks"])
        assert sum(row["assistant_masks"]) == row["tokens"] > 0
        assert row["messages"][-1]["role"] == "assistant"


@pytest.mark.parametrize("stage", ["specialists", "grpo"])
def test_every_trajectory_has_a_row_whose_components_sum_to_its_reward(smoke, stage: str) -> None:
    steps, group_size = _rl(stage)
    rows = [row for path in (smoke.path / "rollouts" / stage).rglob("*.parquet") for row in read_rollouts(path)]
    keys = {(row["step"], row["domain"], row["group"], row["sample"]) for row in rows}
    policies = len(DOMAINS) if stage == "specialists" else 1
    prompts = (CONFIG.specialists.rl if stage == "specialists" else CONFIG.grpo).prompts_per_step
    assert len(rows) == len(keys) == policies * steps * prompts * group_size
    valid = [row for row in rows if row["invalid_reason"] is None]
    assert valid
    for row in valid:
        assert sum(part["contribution"] for part in row["components"]) == pytest.approx(row["reward"])
    assert max(row["reward"] for row in valid) > 0
    assert any(row["advantage"] for row in valid), "no group had a signal to learn from"


def test_tools_answer_in_conversations_of_several_turns(smoke) -> None:
    rows = [
        row
        for path in (smoke.path / "rollouts" / "specialists" / "agentic_search").iterdir()
        for row in read_rollouts(path)
    ]
    assert any(row["tool_results"] and not row["tool_results"][0].startswith("error") for row in rows)
    assert all(len(row["completions"]) >= len(row["tool_results"]) for row in rows)


def test_metrics_of_every_step_are_there_and_the_reference_model_took_part(smoke) -> None:
    for stage, names in (("specialists", DOMAINS), ("grpo", ["mixed", *DOMAINS])):
        steps, _ = _rl(stage)
        for name in names:
            events = read_events(smoke.path / "events.jsonl", stage, name)
            assert [event["step"] for event in events] == list(range(steps))
            assert all("reward" in event for event in events)
    mixed = read_events(smoke.path / "events.jsonl", "grpo", "mixed")
    assert any(event.get("kl", 0.0) > 0 for event in mixed)
    assert any(event.get("grad_norm", 0.0) > 0 for event in mixed)


def test_second_call_repeats_nothing(smoke, start_pipeline) -> None:
    before = {path: path.stat().st_mtime_ns for path in smoke.path.rglob("*") if path.is_file()}
    began = time.monotonic()
    command = start_pipeline(*smoke.words)
    assert command.finish() == 0, command.output
    for spec in STAGES:
        assert f"{spec.name}: unchanged, skipped" in command.output
    after = {path: path.stat().st_mtime_ns for path in smoke.path.rglob("*") if path.is_file()}
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    assert {str(path.relative_to(smoke.path)) for path in changed} <= {"run.json", "config.yaml", "lock"}
    assert time.monotonic() - began < smoke.seconds / 3


def _rl(stage: str) -> tuple[int, int]:
    """Steps of a stage and the group size, which all domains of the preset share."""
    (group_size,) = {CONFIG.domains[name].group_size for name in DOMAINS}
    return (CONFIG.specialists.rl if stage == "specialists" else CONFIG.grpo).steps, group_size
