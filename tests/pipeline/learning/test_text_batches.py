"""Packing to windows, accumulated steps, float32 twins of bfloat16 weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from model import load_checkpoint, save_checkpoint
from pipeline.config.schema import OptimizerConfig
from pipeline.learning.master import MasterWeights
from pipeline.learning.text import Text, load_texts, save_plain_texts, save_texts
from pipeline.learning.text_batches import Packing, TextBatches, longest
from pipeline.text_worker import TextSpec, TextTrainer


def numbered(lengths, start=20):
    """Documents whose tokens are all different."""
    ends = np.cumsum(lengths)
    ids = [np.arange(end - n, end, dtype=np.int32) + start for n, end in zip(lengths, ends, strict=True)]
    return [Text(part, np.arange(len(part)) > 0) for part in ids]


def epoch(texts, packing, seed=0):
    batches, total, step = TextBatches(texts, packing, seed), sum(len(text.token_ids) for text in texts), 0
    while total > 0:
        batch = batches.batch(step)
        total -= len(batch.packed.input_ids)
        step += 1
        yield batch


@pytest.mark.parametrize("join", [False, True])
def test_windows_hold_every_token_once_and_are_full_but_for_the_last(join):
    texts = numbered([3, 50, 17, 1, 29, 40])
    batches = list(epoch(texts, Packing(32, 16, join)))
    assert [len(batch.packed.input_ids) for batch in batches] == [32, 32, 32, 32, 12]
    seen = sorted(token for batch in batches for token in batch.packed.input_ids.tolist())
    assert seen == list(range(20, 160))
    assert all(batch.packed.max_seqlen <= 16 for batch in batches)
    if join:
        assert batches[0].packed.lengths == [16, 16]


def test_a_document_sees_itself_alone_unless_documents_are_joined():
    texts = numbered([10, 30])
    for batch in epoch(texts, Packing(40, 20)):
        for sequence in batch.packed.unpack(batch.packed.input_ids):
            assert (sequence.diff() == 1).all()
    whole = list(epoch(texts, Packing(40, 20, join=True)))
    assert [batch.packed.lengths for batch in whole] == [[20, 20]]


@pytest.mark.parametrize("join", [False, True])
def test_no_loss_is_taken_on_a_token_that_nothing_before_it_predicts(join):
    texts = numbered([7, 30, 22])
    first = {int(text.token_ids[0]) for text in texts}
    for batch in epoch(texts, Packing(32, 16, join)):
        for ids, mask in zip(*(batch.packed.unpack(x) for x in (batch.packed.input_ids, batch.mask)), strict=True):
            expected = [int(token) not in first and at > 0 for at, token in enumerate(ids)]
            assert mask.tolist() == expected


def test_measuring_in_windows_takes_the_longest_sequences():
    texts = numbered([5, 60, 9, 33])
    batches = longest(texts, Packing(32, 16), 2)
    assert [max(batch.packed.lengths) for batch in batches] == [16, 16]
    assert len(longest(texts, Packing(32, 16), 1)) == 1


def test_plain_texts_are_read_as_they_were_written(chat, tmp_path):
    documents = ["what is 12", "a b c d", "the answer is 46"]
    save_plain_texts(tmp_path / "texts", documents, chat.tokenizer)
    texts, end = load_texts(tmp_path / "texts"), chat.tokenizer.eos_token_id
    assert [chat.tokenizer.decode(text.token_ids[:-1]) for text in texts] == documents
    assert all(text.token_ids[-1] == end and not text.mask[0] and text.mask[1:].all() for text in texts)
    assert [len(text.token_ids) for text in texts[1:]] == [len(texts[1].token_ids), len(texts[2].token_ids)]
    save_plain_texts(tmp_path / "none", [], chat.tokenizer)
    assert len(load_texts(tmp_path / "none")) == 0


# -- steps of several batches


def trainer(checkpoint, folder, **changes) -> TextTrainer:
    if not (folder / "texts.npz").exists():
        rng = np.random.default_rng(0)
        made = [rng.integers(20, 260, size=24).astype(np.int32) for _ in range(16)]
        for name in ("texts", "heldout"):
            # The first document counts nowhere: a batch may have no token that counts.
            masks = [np.arange(24) > (23 if i == 0 else i % 5) for i in range(16)]
            save_texts(folder / f"{name}.npz", [Text(*pair) for pair in zip(made, masks, strict=True)])
    spec = TextSpec(
        objective="sparse", checkpoint=str(checkpoint), architecture=None, tokenizer=str(checkpoint),
        texts=str(folder / "texts.npz"), heldout=str(folder / "heldout.npz"), state=str(folder / "state"), steps=4,
        batch_tokens=96, optimizer=OptimizerConfig(lr=1e-3), checkpoint_every=2, seed=3, threads=1, device="cpu",
    )  # fmt: skip
    return TextTrainer(replace(spec, **changes))


@pytest.mark.parametrize("objective", ["sparse", "indexer_warmup", "language_model"])
@pytest.mark.parametrize("again", [False, True])
def test_accumulated_gradients_are_those_of_one_large_batch(checkpoint, tmp_path, objective, again):
    def gradients(**changes):
        worker = trainer(checkpoint, tmp_path, objective=objective, gradient_checkpointing=again, **changes)
        metrics = worker._accumulate(0)
        return metrics, {n: p.grad for n, p in worker.model.named_parameters() if p.grad is not None}

    (one, expected), (four, found) = gradients(), gradients(batch_tokens=24, accumulation=4)
    assert expected.keys() == found.keys() and len(found) > 0
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-4)
    assert four == pytest.approx(one, rel=1e-5)


@pytest.mark.parametrize("objective", ["sparse", "indexer_warmup"])
def test_the_kl_of_the_layers_is_logged_and_sums_to_the_loss(checkpoint, tmp_path, objective):
    (metrics,) = trainer(checkpoint, tmp_path, objective=objective, accumulation=2).advance(0, 1)
    layers = [value for name, value in metrics.items() if name.startswith("kl/layer_")]
    assert len(layers) == 2 and sum(layers) == pytest.approx(metrics["indexer_kl"], rel=1e-5)


# -- bfloat16


@pytest.fixture
def half(checkpoint, chat, tmp_path):
    """The checkpoint in bfloat16."""
    model = load_checkpoint(checkpoint, dtype=torch.bfloat16)
    save_checkpoint(model, chat.tokenizer, tmp_path / "half")
    return tmp_path / "half"


def test_steps_too_small_for_bfloat16_add_up_in_the_twins(half):
    model = load_checkpoint(half)
    masters = MasterWeights(model.parameters())
    (twin,) = masters.of([model.lm_head.weight])
    optimizer = torch.optim.SGD([twin], lr=1.0)
    before = model.lm_head.weight.detach().clone()
    for _ in range(64):
        model.lm_head.weight.sum().mul(1e-5).backward()
        assert model.lm_head.weight.grad is None
        optimizer.step()
        optimizer.zero_grad()
        masters.publish()
    torch.testing.assert_close(twin.detach(), before.float() - 64e-5, atol=1e-6, rtol=0)
    assert torch.equal(model.lm_head.weight, twin.bfloat16())


def test_a_bfloat16_run_goes_on_bit_for_bit(half, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    undisturbed = trainer(half, tmp_path / "a", accumulation=2)
    expected = undisturbed.advance(0, 4)
    trainer(half, tmp_path / "b", accumulation=2).advance(0, 3)  # the third step is lost
    resumed = trainer(half, tmp_path / "b", accumulation=2)
    assert resumed.committed() == 2 and resumed.advance(0, 4) == expected
    for first, second in zip(undisturbed.masters.state(), resumed.masters.state(), strict=True):
        assert first.dtype == torch.float32 and torch.equal(first, second)
