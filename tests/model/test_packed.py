"""Packed batches, log-probabilities and gradients."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from model import (
    DeepseekForCausalLM,
    DsaStats,
    LayerStats,
    PackedBatch,
    SharedPrompts,
    add_indexer,
    indexer_parameters,
    main_parameters,
)
from model.layout import BlockLayout
from tests.model.tiny_models import dense_config, ids, sparse_config

LENGTHS = [1, 90, 33, 31, 70, 13, 89, 2]


def make(config=None, seed: int = 0) -> DeepseekForCausalLM:
    torch.manual_seed(seed)
    return DeepseekForCausalLM(config or sparse_config())


def texts() -> list[torch.Tensor]:
    return [ids(length, seed) for seed, length in enumerate(LENGTHS)]


def test_from_sequences_accepts_lists_arrays_tensors() -> None:
    batch = PackedBatch.from_sequences([[1, 2, 3], np.array([4]), torch.tensor([5, 6])])
    assert batch.input_ids.tolist() == [1, 2, 3, 4, 5, 6]
    assert batch.position_ids.tolist() == [0, 1, 2, 0, 0, 1]
    assert batch.cu_seqlens.tolist() == [0, 3, 4, 6] and batch.cu_seqlens.dtype == torch.int32
    assert batch.max_seqlen == 3
    assert [part.tolist() for part in batch.unpack(batch.input_ids)] == [[1, 2, 3], [4], [5, 6]]
    with pytest.raises(ValueError, match="sequence 1 is empty"):
        PackedBatch.from_sequences([[1], []])


def test_layout_is_a_bijection_with_bounded_padding() -> None:
    lengths = np.random.default_rng(0).integers(1, 300, 60).tolist()
    layout = BlockLayout.build(lengths, torch.device("cpu"))
    assert torch.equal(layout.row_token[layout.token_row], torch.arange(sum(lengths)))
    assert sorted(torch.cat(layout.sequences).tolist()) == list(range(60))
    assert len(layout.row_token) == sum(n * length for n, length, _ in layout.groups) <= sum(lengths) / 0.94
    expected = torch.cat([torch.arange(length) for length in lengths])
    assert torch.equal(layout.positions[layout.token_row], expected)


@pytest.mark.parametrize("config", [sparse_config(), dense_config()], ids=["sparse", "dense"])
def test_packed_equals_unpacked(config) -> None:
    model = make(config)
    batch = PackedBatch.from_sequences(texts())
    with torch.no_grad():
        hidden = batch.unpack(model.hidden_states(batch).hidden)
        logprobs = batch.unpack(model.token_logprobs(batch))
        for text, got, logprob in zip(texts(), hidden, logprobs, strict=True):
            alone = PackedBatch.from_sequences([text])
            want = model.hidden_states(alone).hidden
            torch.testing.assert_close(got, want, atol=1e-5, rtol=0)
            log_p = model.logits(want).log_softmax(-1)
            expected = torch.cat([torch.zeros(1), log_p[:-1].gather(1, text[1:, None])[:, 0]])
            torch.testing.assert_close(logprob, expected, atol=1e-5, rtol=0)


def test_packed_gradients_equal_unpacked() -> None:
    model = make()
    batch = PackedBatch.from_sequences(texts())
    model.token_logprobs(batch).sum().backward()
    packed = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    for text in texts():
        model.token_logprobs(PackedBatch.from_sequences([text])).sum().backward()
    for name, parameter in model.named_parameters():
        if ".indexer." in name:
            assert name not in packed  # the language-model loss must not train the indexer
        else:
            torch.testing.assert_close(packed[name], parameter.grad, atol=2e-4, rtol=1e-3)


def test_padded_forward_equals_packed_and_has_the_reference_loss() -> None:
    model = make()
    lengths = [40, 25]
    tokens, mask = torch.zeros(2, 40, dtype=torch.long), torch.zeros(2, 40, dtype=torch.long)
    for row, length in enumerate(lengths):
        tokens[row, :length], mask[row, :length] = ids(length, row), 1
    labels = tokens.masked_fill(mask == 0, -100)
    labels[:, :10] = -100
    out = model(tokens, attention_mask=mask, labels=labels)
    for row, length in enumerate(lengths):
        want = model(tokens[row : row + 1, :length]).logits[0]
        torch.testing.assert_close(out.logits[row, :length], want, atol=1e-5, rtol=0)
    expected = torch.nn.functional.cross_entropy(out.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    torch.testing.assert_close(out.loss, expected)
    out.loss.backward()
    assert all(p.grad is not None for p in main_parameters(model))

    # Padding-free rows, as TRL packs them: position_ids that start again at 0.
    joined = torch.cat([tokens[0], tokens[1, :25]]).unsqueeze(0)
    positions = torch.cat([torch.arange(40), torch.arange(25)]).unsqueeze(0)
    flat = model(joined, position_ids=positions).logits[0]
    torch.testing.assert_close(flat[40:], out.logits[1, :25], atol=1e-5, rtol=0)


@pytest.mark.parametrize("stage", ["dense", "sparse"])
def test_indexer_loss_trains_indexers_only(stage: str) -> None:
    model = make()
    batch = PackedBatch.from_sequences(texts())
    attention = "dense" if stage == "dense" else "auto"
    stats = DsaStats()
    out = model.hidden_states(batch, attention=attention, indexer_loss=stage, collect=stats)
    assert out.indexer_loss is not None and out.indexer_loss > 0
    out.indexer_loss.backward()
    assert all(p.grad is None or not p.grad.any() for p in main_parameters(model))
    assert all(p.grad is not None for p in indexer_parameters(model))
    assert len(stats.layers) == 3 and stats.layers[0].rows == sum(max(0, n - 12) for n in LENGTHS)
    assert 0 < stats.layers[0].topk_mass < 1
    if stage == "dense":
        total = sum(layer.kl for layer in stats.layers) * len(batch.input_ids)
        assert out.indexer_loss.item() == pytest.approx(total, rel=1e-4)


def test_packed_indexer_loss_equals_the_sum_over_sequences() -> None:
    model = make()
    whole = model.hidden_states(PackedBatch.from_sequences(texts()), indexer_loss="sparse").indexer_loss
    parts = [model.hidden_states(PackedBatch.from_sequences([t]), indexer_loss="sparse").indexer_loss for t in texts()]
    torch.testing.assert_close(whole, torch.stack(parts).sum(), atol=1e-3, rtol=1e-4)


def test_warm_up_learns_where_attention_looks() -> None:
    """KL training of a random indexer lowers its KL and raises the attention that the selection captures."""
    dense = make(dense_config(num_hidden_layers=1, first_k_dense_replace=1))
    with torch.no_grad():
        for parameter in dense.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8)
    model = add_indexer(dense, 4, 16, 12, seed=0)
    for parameter in main_parameters(model):
        parameter.requires_grad_(False)
    optimiser = torch.optim.Adam(indexer_parameters(model), lr=1e-2)
    batch = PackedBatch.from_sequences([ids(80, seed) for seed in range(4)])

    def measure() -> LayerStats:
        stats = DsaStats()
        with torch.no_grad():
            model.hidden_states(batch, attention="dense", collect=stats)
        return stats.layers[0]

    before = measure()
    for _ in range(100):
        optimiser.zero_grad()
        model.hidden_states(batch, attention="dense", indexer_loss="dense").indexer_loss.backward()
        optimiser.step()
    after = measure()
    assert after.kl < 0.4 * before.kl
    assert after.topk_mass > before.topk_mass + 0.08


def test_add_indexer_keeps_weights_and_the_random_stream() -> None:
    dense = make(dense_config())
    state = torch.get_rng_state()
    sparse = add_indexer(dense, 4, 16, 12, seed=7)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(sparse.state_dict()[name], tensor) for name, tensor in dense.state_dict().items())
    again = add_indexer(dense, 4, 16, 12, seed=7)
    assert all(torch.equal(a, b) for a, b in zip(sparse.parameters(), again.parameters(), strict=True))
    batch = PackedBatch.from_sequences(texts())
    with torch.no_grad():
        torch.testing.assert_close(
            sparse.hidden_states(batch, attention="dense").hidden, dense.hidden_states(batch).hidden
        )


def test_wrong_combinations_are_refused() -> None:
    batch = PackedBatch.from_sequences([ids(5)])
    with pytest.raises(ValueError, match="no indexer"):
        make(dense_config()).hidden_states(batch, attention="sparse")
    with pytest.raises(ValueError, match="needs dense attention"):
        make().hidden_states(batch, indexer_loss="dense")
    with pytest.raises(ValueError, match="attention must be"):
        make().hidden_states(batch, attention="flash")


def test_gathered_and_masked_selection_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make()
    batch = PackedBatch.from_sequences(texts())

    def run() -> tuple[torch.Tensor, list[torch.Tensor]]:
        model.zero_grad()
        out = model.hidden_states(batch, indexer_loss="sparse")
        (out.hidden.square().sum() + out.indexer_loss).backward()
        return out.hidden.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]

    masked, masked_grads = run()
    monkeypatch.setattr("model.indexer.GATHER_RATIO", 1)
    gathered, gathered_grads = run()
    torch.testing.assert_close(masked, gathered, atol=1e-5, rtol=0)
    for a, b in zip(masked_grads, gathered_grads, strict=True):
        torch.testing.assert_close(a, b, atol=5e-3, rtol=1e-3)


def test_bfloat16_runs() -> None:
    from model import cast_model

    model = cast_model(make(), torch.bfloat16)
    assert model.model.layers[0].self_attn.indexer.weights_proj.weight.dtype == torch.float32
    batch = PackedBatch.from_sequences(texts())
    out = model.hidden_states(batch, indexer_loss="sparse")
    (model.token_logprobs(batch, hidden=out.hidden).sum() + out.indexer_loss).backward()
    assert out.hidden.dtype == torch.bfloat16 and out.hidden.isfinite().all()


def shared_batch() -> tuple[PackedBatch, PackedBatch]:
    """Sequences of three prompts and one with a prompt of its own, with and without sharing."""
    prompts = [ids(length, seed) for seed, length in enumerate((30, 17, 30, 8))]
    which, more = [0, 1, 0, 2, 1, 0, 2, 3, 1, 2], [1, 40, 25, 3, 38, 60, 24, 20, 9, 61]
    sequences = [torch.cat([prompts[p], ids(n, 10 + i)]) for i, (p, n) in enumerate(zip(which, more, strict=True))]
    batch = PackedBatch.from_sequences(sequences)
    return batch, replace(batch, shared=SharedPrompts.find([prompts[p].numpy() for p in which]))


def test_a_layout_with_shared_prompts_has_fewer_rows_for_the_same_tokens() -> None:
    plain, shared = shared_batch()
    assert shared.shared.length.tolist() == [30, 17, 30, 30, 17, 30, 30, 8, 17, 30]
    layout = BlockLayout.build(shared.lengths, torch.device("cpu"), shared.shared)
    assert SharedPrompts.find([np.array([1, 2]), np.array([1, 3])]) is None
    ids_of_row, tokens = shared.input_ids[layout.row_token], shared.input_ids
    assert torch.equal(ids_of_row[layout.token_row], tokens)
    assert torch.equal(layout.positions[layout.token_row], plain.position_ids)
    assert layout.valid is None or bool(layout.valid[layout.token_row].all())
    assert len(layout.row_token) == sum(group.query_rows for group in layout.groups) < 0.85 * len(tokens)
    assert len(layout.key_row) == sum(group.key_rows for group in layout.groups)
    keys, row = ids_of_row[layout.key_row], 0
    for group, members in zip(layout.groups, layout.sequences, strict=True):
        for i, sequence in zip(range(group.n), members.tolist(), strict=True):
            start, length = int(shared.cu_seqlens[sequence]), min(group.length, shared.lengths[sequence])
            at = row + i * group.length
            assert torch.equal(keys[at : at + length], tokens[start : start + length])
        row += group.key_rows


@pytest.mark.parametrize("gather_ratio", [8, 1])
@pytest.mark.parametrize("config", [sparse_config(), dense_config()], ids=["sparse", "dense"])
def test_sharing_prompts_changes_neither_results_nor_gradients(config, gather_ratio: int, monkeypatch) -> None:
    monkeypatch.setattr("model.indexer.GATHER_RATIO", gather_ratio)
    model = make(config).double()
    runs = []
    for batch in shared_batch():
        model.zero_grad()
        logprobs = model.token_logprobs(batch)
        (logprobs * torch.linspace(-1, 1, len(logprobs))).sum().backward()
        runs.append((logprobs.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]))
    (plain, plain_grads), (shared, shared_grads) = runs
    torch.testing.assert_close(shared, plain, atol=1e-10, rtol=0)
    for a, b in zip(shared_grads, plain_grads, strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)


def test_sharing_prompts_leaves_the_indexer_loss_and_the_statistics_alone() -> None:
    model = make()
    plain, shared = (model.hidden_states(batch, indexer_loss="sparse", collect=DsaStats()) for batch in shared_batch())
    torch.testing.assert_close(shared.indexer_loss, plain.indexer_loss)
    assert shared.stats == plain.stats
