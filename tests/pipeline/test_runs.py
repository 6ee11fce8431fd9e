"""Run folders: hashes, atomic writes, metrics, rollouts, the lock."""

import json
import os
import socket
import subprocess
import sys

import pytest

from pipeline.config import load_config
from pipeline.errors import ResourceError
from pipeline.runs import (
    Artifact,
    Events,
    Run,
    Sources,
    atomic_file,
    commit_folder,
    find_runs,
    hash_path,
    last_steps,
    read_rollouts,
    write_rollouts,
    write_text,
)
from pipeline.runs.artifact import stat_signature
from pipeline.runs.lock import Driver
from pipeline.runs.manifest import stage_settings
from pipeline.stages import STAGES


def test_a_folder_hash_follows_content_and_names_only(tmp_path):
    for name in ("one", "two"):
        write_text(tmp_path / name / "a" / "x.txt", "text")
        write_text(tmp_path / name / "y.txt", "more")
    os.utime(tmp_path / "two" / "y.txt", (1, 1))
    (tmp_path / "two" / ".z.tmp").write_text("a write under way")
    assert hash_path(tmp_path / "one") == hash_path(tmp_path / "two")
    (tmp_path / "two" / "y.txt").rename(tmp_path / "two" / "z.txt")
    assert hash_path(tmp_path / "one") != hash_path(tmp_path / "two")


def test_an_artifact_is_relative_to_its_run(tmp_path):
    write_text(tmp_path / "base" / "weights", "w")
    artifact = Artifact.of(tmp_path / "base" / "weights", "checkpoint", tmp_path, step=3)
    assert artifact.path == "base/weights"
    assert artifact.at(tmp_path).read_text() == "w"
    assert Artifact.from_json(json.loads(json.dumps(artifact.to_json()))) == artifact
    with pytest.raises(FileNotFoundError):
        Artifact.of(tmp_path / "base" / "nothing", "checkpoint", tmp_path)
    assert stat_signature(tmp_path / "base" / "nothing") is None


def test_a_failed_write_leaves_the_old_content(tmp_path):
    path = tmp_path / "file"
    write_text(path, "old")
    with pytest.raises(RuntimeError), atomic_file(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_committed_over_an_old_one(tmp_path):
    write_text(tmp_path / "step_1" / "old", "1")
    write_text(tmp_path / "step_1.tmp" / "new", "2")
    commit_folder(tmp_path / "step_1.tmp", tmp_path / "step_1")
    assert [file.name for file in (tmp_path / "step_1").iterdir()] == ["new"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["step_1"]


def test_events_keep_the_last_of_a_repeated_step_and_survive_a_torn_line(tmp_path):
    events = Events(tmp_path / "events.jsonl")
    assert events.read() == []
    events.log("grpo", 1, "math", reward=0.1)
    events.log("grpo", 2, "math", reward=0.2)
    events.log("grpo", 2, "code", reward=0.9)
    with events.path.open("a") as file:
        file.write('{"stage": "grpo", "domain": "math", "st')
    events.log("grpo", 2, "math", reward=0.3)
    events.log("base", 1, loss=2.0)
    assert [event["reward"] for event in events.read("grpo", "math")] == [0.1, 0.3]
    assert last_steps(events.read()) == {("grpo", "math"): 2, ("grpo", "code"): 2, ("base", None): 1}


def test_events_of_a_stage_that_began_anew_do_not_count(tmp_path):
    events = Events(tmp_path / "events.jsonl")
    events.log("base", 1, loss=2.0)
    for step in (1, 2, 3):
        events.log("grpo", step, reward=step)
    events.reset("grpo")
    events.log("grpo", 1, reward=7)
    assert [(event["stage"], event["step"]) for event in events.read()] == [("base", 1), ("grpo", 1)]


def test_rollouts_come_back_as_they_were_written(tmp_path):
    component = {"name": "outcome", "value": 1.0, "evidence": {"reason": "equal", "tests": [1, 2]}}
    rows = [
        {
            "task": "a",
            "reward": 1.0,
            "tokens": [1, 2],
            "components": [component],
            "state": {"files": 2},
            "odd": 1,
        },
        {"task": "b", "reward": None, "tokens": [], "components": [], "state": None, "odd": "text"},
    ]
    path = write_rollouts(tmp_path, "grpo", "math", 12, rows)
    assert path == tmp_path / "rollouts" / "grpo" / "math" / "step_000012.parquet"
    assert read_rollouts(path) == [{"schema": 1, **row} for row in rows]
    write_rollouts(tmp_path, "grpo", "math", 12, [])
    assert read_rollouts(path) == []
    assert len(list(path.parent.iterdir())) == 1


def test_rollout_components_are_structs_that_sql_can_read(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"components": [{"name": "length", "contribution": -0.1, "evidence": {}}]}]
    schema = pq.read_schema(write_rollouts(tmp_path, "grpo", "math", 1, rows))
    assert pa.types.is_list(schema.field("components").type)
    assert pa.types.is_struct(schema.field("components").type.value_type)


def test_a_run_remembers_its_settings(tmp_path):
    config, _ = load_config("smoke")
    run = Run(tmp_path / "runs" / "one")
    assert not run.exists
    run.create(config, Sources("smoke", (), ("seed=3",)), ["pipeline", "run"])
    created = run.info()["created"]
    run.create(config, Sources("smoke"))
    assert run.info()["created"] == created
    assert run.sources() == Sources("smoke")
    assert "torch" in run.info()["versions"]
    assert load_config(None, [run.path / "config.yaml"])[0] == config
    assert [found.path for found in find_runs(tmp_path / "runs")] == [run.path]


def test_what_a_stage_left_is_moved_aside_with_its_rollouts(tmp_path):
    run = Run(tmp_path)
    assert run.replace("grpo") is None
    write_text(tmp_path / "grpo" / "file", "first")
    write_rollouts(tmp_path, "grpo", "math", 1, [{"reward": 1.0}])
    run.events.log("grpo", 1, reward=1.0)
    assert run.replace("grpo") == tmp_path / "replaced" / "grpo"
    assert (tmp_path / "replaced" / "grpo" / "rollouts" / "math").is_dir()
    assert not (tmp_path / "grpo").exists()
    assert run.events.read() == []


def test_a_second_driver_is_refused_and_a_dead_one_replaced(tmp_path):
    run = Run(tmp_path)
    hold = (
        "import sys, time; from pipeline.runs import Run\n"
        "with Run(sys.argv[1]).lock(): print('held', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", hold, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert run.driver().pid == other.pid
        with pytest.raises(ResourceError, match=f"held by process {other.pid}"), run.lock():
            pass
    finally:
        other.kill()
        other.wait()
    assert run.driver() is None
    with run.lock():
        assert run.driver().is_me
    assert run.driver() is None


def test_a_reused_pid_and_another_host_are_told_apart():
    me = Driver.this_process()
    assert me.alive
    assert not Driver(me.pid, me.host, (me.started or 0) + 1, 0.0).alive
    assert Driver(1, f"not-{socket.gethostname()}", 5, 0.0).alive


@pytest.mark.parametrize(
    ("override", "concerned"),
    [
        ("domains.math.reward=my.reward", "specialists distill grpo evaluate"),
        ("domains.math.share=2", "grpo"),
        ("domains.math.kl_coef=0.1", "specialists grpo"),
        ("domains.math.specialist_steps=9", "specialists distill"),
        ("domains.math.levels=[1,2]", "base specialists distill grpo evaluate"),
        ("domains.writing.levels=[1,2]", "base judge specialists distill grpo evaluate"),
        ("domains.math.corpus_share=2", "base"),
        ("base.steps=7", "base"),
        ("specialists.wave=1", ""),
        ("judge.votes=3", "judge specialists distill grpo evaluate"),
    ],
)
def test_a_setting_concerns_the_stages_that_read_it(override, concerned):
    """What follows runs again only where the outputs differ; a new reward must not train the base anew."""
    before, _ = load_config("tiny")
    after, _ = load_config("tiny", [], [override])
    changed = [spec.name for spec in STAGES if stage_settings(spec, before) != stage_settings(spec, after)]
    assert changed == concerned.split()
