"""Fine-tuning of the generalist: on the marked tokens alone, visible while it runs, and the same after a kill."""

import datasets
import numpy as np
import pytest
import torch

from model import load_checkpoint
from pipeline.config.schema import OptimizerConfig, SFTConfig
from pipeline.sft_worker import SFTSpec, SFTWorker, sft_steps

CONFIG = SFTConfig(epochs=24, batch_size=8, optimizer=OptimizerConfig(lr=2e-2, warmup_steps=2, decay="linear"))
ROWS = 16


@pytest.fixture
def spec(checkpoint, tmp_path):
    """Builds a spec whose rows have noise for a prompt and one fixed answer, which is what is marked."""
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(ROWS):
        prompt = rng.integers(10, 200, rng.integers(3, 9)).tolist()
        rows.append({"input_ids": [*prompt, 7, 8, 9], "assistant_masks": [0] * len(prompt) + [1, 1, 1]})
    datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "dataset"))

    def build(name="one", config=CONFIG):
        work, out = (str(tmp_path / name / kind) for kind in ("work", "out"))
        return SFTSpec(str(checkpoint), str(tmp_path / "dataset"), work, out, config, seed=3, threads=1, device="cpu")

    return build


def finish(worker):
    """Follows to the end; the states that were seen."""
    states = [worker.follow(0.05)]
    while not states[-1].done:
        states.append(worker.follow(0.05))
    return states


def test_it_learns_the_marked_tokens_and_can_be_watched(spec):
    states = finish(SFTWorker(spec()))
    steps = sft_steps(ROWS, CONFIG)
    assert steps == ROWS * 24 // 8
    assert states[-1].step == steps
    assert [state.step for state in states] == sorted(state.step for state in states)
    assert len({state.step for state in states}) > 3
    first, last = states[-1].log[0]["loss"], states[-1].log[-1]["loss"]
    # Three tokens that are always the same; the noise before them has an entropy of 5 nats and would stay.
    assert first > 2 and last < 0.2


def test_after_a_kill_it_goes_on_from_its_checkpoint_and_ends_with_the_same_weights(spec):
    undisturbed, disturbed = spec("undisturbed"), spec("disturbed")
    finish(SFTWorker(undisturbed))
    first = SFTWorker(disturbed)
    while first.follow(0.01).step < 25:
        pass
    first.close()
    with pytest.raises(RuntimeError, match="was stopped at step"):
        first.follow(0.0)
    second = SFTWorker(disturbed)
    states = finish(second)
    assert min(state.step for state in states if state.step) > 20
    steps = [entry["step"] for entry in states[-1].log]
    assert steps == sorted(set(steps))
    ours, theirs = (load_checkpoint(one.out).state_dict() for one in (disturbed, undisturbed))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_what_the_training_raises_reaches_whoever_follows(spec, tmp_path):
    broken = spec()
    (tmp_path / "dataset" / "dataset_info.json").unlink()
    (tmp_path / "dataset" / "state.json").unlink()
    worker = SFTWorker(broken)
    with pytest.raises(FileNotFoundError):
        for _ in range(600):
            worker.follow(0.1)
