"""Training state: what a crash leaves behind, and workers that go on from it as if nothing had happened."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.config.schema import Config, DomainConfig, OptimizerConfig, RLConfig, SamplingConfig
from pipeline.learning.checkpoints import latest_state, save_state
from pipeline.learning.text import Text, save_texts
from pipeline.policy_worker import PolicySpec, PolicyWorker, StepDone
from pipeline.text_worker import TextSpec, TextTrainer
from rewards.types import Component, Reward
from rollout.conversation import Trial
from rollout.records import Group, Task
from rollout.seeding import seed_for


def writer(text):
    def write(folder: Path) -> None:
        (folder / "model").mkdir()
        (folder / "model" / "weights").write_text(text)
        (folder / "optimizer.pt").write_text(text[::-1])

    return write


def test_the_newest_state_is_found_and_old_ones_are_pruned(tmp_path):
    assert latest_state(tmp_path / "none") is None
    for step in (1, 2, 9, 10):
        save_state(tmp_path, step, writer(f"step {step}"), {"metrics": {"reward": step / 10}})
    found = latest_state(tmp_path)
    assert (found.step, found.extra) == (10, {"metrics": {"reward": 1.0}})
    assert (found.folder / "model" / "weights").read_text() == "step 10"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step_000009", "step_000010"]


@pytest.mark.parametrize("damage", ["changed", "shorter", "missing", "no manifest", "half a manifest"])
def test_a_damaged_state_is_named_and_the_one_before_is_used(tmp_path, capsys, damage):
    for step in (1, 2):
        save_state(tmp_path, step, writer(f"step {step}"))
    weights, manifest = tmp_path / "step_000002/model/weights", tmp_path / "step_000002/state.json"
    if damage == "changed":
        weights.write_text("step X")
    elif damage == "shorter":
        weights.write_text("ste")
    elif damage == "missing":
        weights.unlink()
    elif damage == "no manifest":
        manifest.unlink()
    else:
        manifest.write_text(manifest.read_text()[:20])
    assert latest_state(tmp_path).step == 1
    said = capsys.readouterr().err
    assert "step_000002 is damaged" in said and "using the state before it" in said
    # The step is done again and takes the damaged one's place.
    save_state(tmp_path, 2, writer("again"))
    assert (latest_state(tmp_path).folder / "model/weights").read_text() == "again"


def test_a_manifest_of_the_wrong_shape_counts_as_damage(tmp_path):
    save_state(tmp_path, 1, writer("one"))
    save_state(tmp_path, 2, writer("two"))
    for content in ("[]", '{"files": []}', '{"files": {"optimizer.pt": 3}}', '{"files": {}}'):
        (tmp_path / "step_000002/state.json").write_text(content)
        assert latest_state(tmp_path).step == 1, content


KILL = """
import os, sys
from pathlib import Path
from pipeline.learning import checkpoints
root = Path(sys.argv[1])
def write(folder):
    (folder / "weights").write_text("new")
    if sys.argv[2] == "writing":
        os._exit(9)
if sys.argv[2] == "renaming":
    checkpoints.commit_folder = lambda temporary, final: os._exit(9)
checkpoints.save_state(root, 2, write)
"""


@pytest.mark.parametrize("moment", ["writing", "renaming"])
def test_a_kill_before_the_rename_leaves_the_old_state(tmp_path, moment):
    save_state(tmp_path, 1, writer("old"))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.run([sys.executable, "-c", KILL, str(tmp_path), moment], env=environment, timeout=60)
    assert killed.returncode == 9
    found = latest_state(tmp_path)
    assert found.step == 1 and (found.folder / "model/weights").read_text() == "old"
    save_state(tmp_path, 2, writer("new"))
    assert latest_state(tmp_path).step == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step_000001", "step_000002"]


def assert_equal_weights(first, second):
    for (name, a), (_, b) in zip(first.state_dict().items(), second.state_dict().items(), strict=True):
        assert torch.equal(a, b), name


# -- the policy's worker


def policy_worker(checkpoint, state, kl=0.0, every=1, steps=4):
    optimizer = OptimizerConfig(lr=1e-3, warmup_steps=2, decay="cosine", weight_decay=0.01)
    rl = RLConfig(steps=steps, checkpoint_every=every, optimizer=optimizer)
    spec = PolicySpec(str(checkpoint), str(state), rl, {"toy": kl}, threads=1, device="cpu", sandboxed=False)
    config = Config(
        sampling=SamplingConfig(max_new_tokens=6, max_context=64), domains={"toy": DomainConfig(group_size=4)}
    )
    return PolicyWorker(spec, config)


def rl_step(worker, step):
    """One step of the loop with a reward that depends on the tokens alone."""
    task = Task("toy/0", "toy", ({"role": "user", "content": "what is 12?"},), "direct")
    trials = [Trial(task, i, seed_for("test", step, i), 6) for i in range(4)]
    trajectories = worker.rollout(trials)
    values = [float(t.token_ids[t.policy_mask].mean()) / 300 for t in trajectories]
    rewards = tuple(Reward.of([Component("x", v, 1.0, v)], None) for v in values)
    done = worker.update(step, [Group(task, tuple(trajectories), rewards)], {"reward": 1.0})
    assert done.steps == step + 1
    return dict(done.metrics), trajectories


@pytest.mark.parametrize("kl", [0.0, 0.2])
def test_a_policy_worker_goes_on_bit_for_bit(checkpoint, tmp_path, kl):
    undisturbed = policy_worker(checkpoint, tmp_path / "a", kl)
    expected = [rl_step(undisturbed, step)[0] for step in range(4)]
    assert [m["lr"] for m in expected][:2] == [0.0005, 0.001]
    found = []
    for step in range(4):  # a new process for every step
        worker = policy_worker(checkpoint, tmp_path / "b", kl)
        assert worker.last().steps == worker.engine.version == step
        metrics, trajectories = rl_step(worker, step)
        assert all((t.versions[t.policy_mask] == step).all() for t in trajectories)
        found.append(metrics)
    assert found == expected
    assert_equal_weights(undisturbed.model, worker.model)
    assert_equal_weights(undisturbed.model, policy_worker(checkpoint, tmp_path / "b", kl).model)


def test_a_repeated_update_returns_the_stored_metrics_and_changes_nothing(checkpoint, tmp_path):
    worker = policy_worker(checkpoint, tmp_path)
    metrics, _ = rl_step(worker, 0)
    before = {name: t.clone() for name, t in worker.model.state_dict().items()}
    assert metrics["reward"] == 1.0  # the rollouts' metrics are committed with the step
    assert worker.update(0, [], {}) == StepDone(1, metrics)
    restarted = policy_worker(checkpoint, tmp_path)
    assert restarted.update(0, [], {}) == restarted.last() == StepDone(1, metrics)
    for name, tensor in restarted.model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_worker_behind_its_caller_says_so_instead_of_guessing(checkpoint, tmp_path):
    worker = policy_worker(checkpoint, tmp_path, every=3, steps=5)
    for step in range(5):
        rl_step(worker, step)
        if step == 3:  # steps 0 … 2 are committed, step 3 is lost with the process
            behind = policy_worker(checkpoint, tmp_path, every=3, steps=5)
    assert behind.update(4, [], {}).steps == 3
    for step in (3, 4):
        rl_step(behind, step)
    assert_equal_weights(worker.model, behind.model)


def test_a_rollout_is_a_function_of_weights_and_seeds(checkpoint, tmp_path):
    first, second = policy_worker(checkpoint, tmp_path / "a"), policy_worker(checkpoint, tmp_path / "b")
    task = Task("toy/0", "toy", ({"role": "user", "content": "what is 12?"},), "direct")
    trials = [Trial(task, i, i, 6) for i in range(3)]
    runs = [first.rollout(trials), first.rollout(trials), second.rollout(trials)]
    for other in runs[1:]:
        for a, b in zip(runs[0], other, strict=True):
            np.testing.assert_array_equal(a.token_ids, b.token_ids)
            np.testing.assert_array_equal(a.logprobs, b.logprobs)


def test_a_worker_falls_back_to_the_state_before_a_damaged_one(checkpoint, tmp_path, capsys):
    worker = policy_worker(checkpoint, tmp_path)
    for step in range(2):
        rl_step(worker, step)
    next((tmp_path / "step_000002").rglob("*.safetensors")).write_bytes(b"no weights")
    again = policy_worker(checkpoint, tmp_path)
    assert again.last().steps == 1 and "step_000002 is damaged" in capsys.readouterr().err
    rl_step(again, 1)
    assert_equal_weights(worker.model, again.model)


def test_an_exported_policy_is_a_checkpoint_that_a_worker_starts_from(checkpoint, tmp_path):
    worker = policy_worker(checkpoint, tmp_path / "state")
    rl_step(worker, 0)
    worker.export(str(tmp_path / "exported"))
    other = policy_worker(tmp_path / "exported", tmp_path / "other")
    assert_equal_weights(worker.model, other.model)
    assert other.chat.end_token_id == worker.chat.end_token_id and other.last().steps == 0


def test_a_worker_that_only_samples_refuses_to_learn(checkpoint):
    spec = PolicySpec(str(checkpoint), None, None, {}, 1, "cpu", False)
    worker = PolicyWorker(spec, Config(domains={"toy": DomainConfig()}))
    with pytest.raises(ValueError, match="only samples"):
        worker.update(0, [], {})


# -- the trainer on text


def text_trainer(folder, checkpoint, objective, every=2, **changes):
    if not (folder / "texts.npz").exists():
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(0)
        for name, count in (("texts", 12), ("heldout", 4)):
            made = [rng.integers(20, 260, size=rng.integers(5, 25)).astype(np.int32) for _ in range(count)]
            save_texts(folder / f"{name}.npz", [Text(ids, np.arange(len(ids)) > 0) for ids in made])
    settings = {
        "objective": objective, "checkpoint": str(checkpoint), "architecture": None, "tokenizer": str(checkpoint),
        "texts": str(folder / "texts.npz"), "heldout": str(folder / "heldout.npz"), "state": str(folder / "state"),
        "steps": 7, "batch_tokens": 60, "optimizer": OptimizerConfig(lr=1e-3, warmup_steps=3, decay="linear"),
        "checkpoint_every": every, "seed": 3, "threads": 1, "device": "cpu",
    }  # fmt: skip
    return TextTrainer(TextSpec(**(settings | changes)))


@pytest.mark.parametrize("objective", ["language_model", "indexer_warmup", "sparse"])
def test_a_text_run_goes_on_bit_for_bit(checkpoint, tmp_path, objective):
    undisturbed = text_trainer(tmp_path / "a", checkpoint, objective)
    expected = undisturbed.advance(0, 10)
    assert len(expected) == 7
    stopped = text_trainer(tmp_path / "b", checkpoint, objective)
    stopped.advance(0, 5)  # steps 0 … 3 are committed, the fifth is lost
    resumed = text_trainer(tmp_path / "b", checkpoint, objective)
    assert resumed.committed() == 4
    assert resumed.advance(0, 5) == expected[:5]
    assert resumed.advance(5, 5) == expected[5:]
    assert resumed.advance(0, 7) == expected  # done steps give what was stored
    assert_equal_weights(undisturbed.model, resumed.model)
    assert json.dumps(resumed.measure()) == json.dumps(undisturbed.measure())


@pytest.mark.parametrize(
    ("objective", "indexer_moves", "main_moves"),
    [("language_model", False, True), ("indexer_warmup", True, False), ("sparse", True, True)],
)
def test_each_objective_trains_what_it_should(checkpoint, tmp_path, objective, indexer_moves, main_moves):
    trainer = text_trainer(tmp_path, checkpoint, objective, optimizer=OptimizerConfig(lr=1e-3, weight_decay=0.1))
    before = {name: p.clone() for name, p in trainer.model.named_parameters()}
    trainer.advance(0, 2)
    moved = {name for name, p in trainer.model.named_parameters() if not torch.equal(p, before[name])}
    assert any(".indexer." in name for name in moved) == indexer_moves
    assert any(".indexer." not in name for name in moved) == main_moves


@pytest.mark.parametrize(("objective", "metric"), [("language_model", "loss"), ("indexer_warmup", "indexer_kl")])
def test_text_training_learns(checkpoint, tmp_path, objective, metric):
    trainer = text_trainer(
        tmp_path, checkpoint, objective, steps=40, batch_tokens=400, every=40, optimizer=OptimizerConfig(lr=3e-3)
    )
    values = [metrics[metric] for metrics in trainer.advance(0, 40)]
    assert values[-1] < 0.8 * values[0]


def test_a_dense_checkpoint_gets_its_indexer_once(checkpoint, tiny_model, chat, tmp_path):
    from model import save_checkpoint

    dense = tiny_model(sparse=False, vocab_size=len(chat.tokenizer))
    save_checkpoint(dense, chat.tokenizer, tmp_path / "dense")
    settings = {"add_indexer": (4, 16, 8), "every": 1}
    trainer = text_trainer(tmp_path, tmp_path / "dense", "indexer_warmup", **settings)
    trainer.advance(0, 2)
    resumed = text_trainer(tmp_path, tmp_path / "dense", "indexer_warmup", **settings)
    assert resumed.committed() == 2 and resumed.model.config.model_type == "deepseek_v32"
    assert_equal_weights(trainer.model, resumed.model)
    trainer.export(str(tmp_path / "sparse"))
    assert (tmp_path / "sparse" / "chat_template.jinja").is_file()
