import json

import pytest

from pipeline.errors import UsageError
from pipeline.export import checkpoints, export_checkpoint, resolve_checkpoint
from pipeline.runs import Artifact, Manifest, hash_path


def add(run, stage, names, state="done"):
    outputs = {}
    for name in names:
        folder = run / stage / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"model_type": stage}))
        (folder / "model.safetensors").write_bytes(name.encode())
        outputs[name] = Artifact.of(folder, "checkpoint", run)
    Manifest(
        stage,
        "key",
        state,
        {},
        {"earlier/checkpoint": "ab" * 32},
        outputs,
        seed=7,
        versions={"torch": "2.13.0"},
    ).write(run / stage)


@pytest.fixture
def run(tmp_path):
    run = tmp_path / "runs" / "mine"
    add(run, "base", ["checkpoint"])
    add(run, "sparsify", ["checkpoint"])
    add(run, "specialists", ["math", "code"])
    add(run, "distill", ["checkpoint"], state="running")
    return run


def test_names_are_those_of_finished_stages(run):
    assert list(checkpoints(run)) == ["base", "sparsified", "specialist/math", "specialist/code"]
    assert resolve_checkpoint(run, "sparsified") == run / "sparsify" / "checkpoint"
    assert resolve_checkpoint(run, "specialist/math") == run / "specialists" / "math"
    assert resolve_checkpoint(run, "specialists/math") == run / "specialists" / "math"
    assert resolve_checkpoint(run, str(run / "distill" / "checkpoint")) == run / "distill" / "checkpoint"
    add(run, "grpo", ["checkpoint"])
    assert list(checkpoints(run))[-1] == "final"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("final", "`pipeline run grpo --run "),
        ("distilled", "there are: base, sparsified, specialist/math, specialist/code. `pipeline run distill"),
        ("specialist/maths", "did you mean 'specialist/math'?"),
        ("finale", "did you mean 'final'?"),
    ],
)
def test_unknown_names_say_what_exists_and_what_makes_it(run, name, says):
    with pytest.raises(UsageError) as caught:
        resolve_checkpoint(run, name)
    assert says in caught.value.message


def test_an_empty_run_says_so(tmp_path):
    with pytest.raises(UsageError, match=r"it has none yet\. `pipeline run specialists"):
        resolve_checkpoint(tmp_path, "specialist/math")


def test_export_copies_and_tells_where_it_came_from(run, tmp_path):
    out = export_checkpoint(run, "specialist/math", tmp_path / "there" / "model")
    assert sorted(file.name for file in out.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert (out / "model.safetensors").read_bytes() == b"math"
    card = (out / "README.md").read_text()
    for part in (
        "# specialist/math",
        "`mine`",
        hash_path(run / "specialists" / "math"),
        "ab" * 32,
        "| torch | 2.13.0 |",
    ):
        assert part in card
    assert [file.name for file in out.parent.iterdir()] == ["model"]


def test_export_refuses_a_damaged_checkpoint_and_a_used_folder(run, tmp_path):
    used = tmp_path / "used"
    used.mkdir()
    (used / "file").write_text("mine")
    with pytest.raises(UsageError, match="exists and is not empty"):
        export_checkpoint(run, "base", used)
    (run / "base" / "checkpoint" / "model.safetensors").write_bytes(b"other")
    with pytest.raises(UsageError, match="is damaged: its manifest says SHA-256"):
        export_checkpoint(run, "base", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs", "used"]
