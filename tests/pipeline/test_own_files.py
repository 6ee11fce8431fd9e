"""A stage notices that the user's own files have another content."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.conductor import run_stages
from pipeline.config import load_config
from pipeline.errors import UsageError
from pipeline.plan import make_plan
from pipeline.progress import NullProgress
from pipeline.runs import Run
from pipeline.runs import manifest as manifest_module
from pipeline.runs.own_files import module_file, own_files
from pipeline.sources import local_path
from pipeline.stages import STAGES, stage

SAMPLING = ["specialists", "distill", "grpo", "evaluate"]


@pytest.fixture
def config(tmp_path, monkeypatch, fakes):
    """Settings of a finished run with own data, an own held-out folder and an own reward."""
    monkeypatch.chdir(tmp_path)
    # Whether the files are any good is of no matter here.
    monkeypatch.setattr("pipeline.tasks.check_own", lambda config, splits: None)
    Path("tasks.jsonl").write_text('{"prompt": "1+1", "answer": "2"}\n')
    Path("heldout").mkdir()
    Path("heldout/part.parquet").write_bytes(b"first")
    Path("my_rewards.py").write_text("def score(prompts, completions, **columns): ...\n")
    overrides = [
        "domains.math.data.train=tasks.jsonl",
        "domains.math.data.heldout=heldout",
        "domains.writing.reward=my_rewards.score",
        "domains.riddles.data.train=someone/riddles",
    ]
    config, _ = load_config("smoke", [], overrides)
    run_stages(config, ["evaluate"], progress=NullProgress())
    return config


def stale(config) -> dict[str, tuple[str, ...]]:
    made = make_plan(Run(config.run), config, [spec.name for spec in STAGES])
    return {part.name: part.reasons for part in made.stages if part.state != "cached"}


def test_nothing_changed_nothing_stale_and_no_file_read_again(config, monkeypatch):
    monkeypatch.setattr(manifest_module, "_hash_once", lambda path, signature: pytest.fail(f"{path} was read"))
    assert stale(config) == {}


@pytest.mark.parametrize(
    ("file", "key"),
    [
        ("tasks.jsonl", "domains.math.data.train"),
        ("heldout/part.parquet", "domains.math.data.heldout"),
        ("my_rewards.py", "domains.writing.reward"),
    ],
)
def test_another_content_makes_the_stages_stale_that_sample(config, file, key):
    Path(file).write_text("another content")
    found = stale(config)
    assert list(found) == SAMPLING
    assert set(found.values()) == {(f"{key}: file changed",)}
    run_stages(config, ["evaluate"], progress=NullProgress())
    assert stale(config) == {}


def test_the_same_content_written_again_changes_nothing(config):
    Path("tasks.jsonl").write_text(Path("tasks.jsonl").read_text())
    os.utime("tasks.jsonl", (1, 1))
    assert stale(config) == {}


def test_a_file_that_is_gone_is_named(config):
    Path("tasks.jsonl").unlink()
    assert stale(config)["grpo"] == ("domains.math.data.train: file is gone",)


def test_another_file_of_the_same_content_is_a_changed_setting_alone(config):
    Path("copy.jsonl").write_text(Path("tasks.jsonl").read_text())
    config.domains["math"].data.train = "copy.jsonl"
    assert stale(config)["grpo"] == ('domains.math.data.train "tasks.jsonl" → "copy.jsonl"',)


def test_only_stages_that_sample_and_domains_that_take_part_have_own_files(config):
    keys = ["domains.math.data.train", "domains.math.data.heldout", "domains.writing.reward"]
    assert list(own_files(stage("grpo"), config)) == keys
    assert own_files(stage("base"), config) == {}
    config.domains["math"].enabled = False
    assert list(own_files(stage("grpo"), config)) == keys[2:]


def test_a_source_on_this_machine_is_told_from_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    assert local_path("folder") == Path("folder")
    assert local_path("folder:train") == Path("folder")
    assert local_path("absent.jsonl") == Path("absent.jsonl")
    assert local_path("someone/dataset:train") is None
    assert local_path("") is None


def test_a_module_is_found_without_importing_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "package").mkdir()
    for name in ("__init__", "scores"):
        (tmp_path / "package" / f"{name}.py").write_text("raise SystemExit\n")
    assert module_file("package.scores.best") == Path("package/scores.py")
    assert module_file("package.scores:best") == Path("package/scores.py")
    assert module_file("package:best") == Path("package/__init__.py")
    assert module_file("absent.module.best") is None
    assert "package" not in sys.modules


def test_a_plan_with_own_data_imports_nothing_heavy(config):
    program = (
        "import sys\nfrom pipeline.cli import app\n"
        "try:\n    app(['plan', '--run', sys.argv[1], '-c', sys.argv[1] + '/config.yaml'])\n"
        "finally:\n    print({'torch', 'ray', 'pyarrow', 'datasets'} & set(sys.modules))"
    )
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", program, config.run]
    environment = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "set()", done.stderr


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("domains.math.data.train=bad.jsonl", "bad.jsonl, line 2: field 'prompt'"),
        ("domains.math.data.train=absent.jsonl", "absent.jsonl: no such file"),
        ("domains.math.reward=absent_rewards.score", "domains.math.reward: custom reward absent_rewards.score"),
    ],
)
def test_bad_files_are_refused_before_the_first_stage(tmp_path, monkeypatch, fakes, override, said):
    monkeypatch.chdir(tmp_path)
    rows = [f'{{"prompt": "{n}+{n}", "answer": "{2 * n}"}}' for n in range(40)]
    Path("bad.jsonl").write_text("\n".join([rows[0], '{"prompt": "", "answer": "2"}', *rows[2:]]))
    Path("good.jsonl").write_text("\n".join(rows))
    config, _ = load_config("smoke", [], ["domains.math.data.train=good.jsonl", override])
    with pytest.raises(UsageError, match=re.escape(said)):
        run_stages(config, ["evaluate"], progress=NullProgress())
    assert not Path(config.run).exists()
    run_stages(config, ["base"], progress=NullProgress())
