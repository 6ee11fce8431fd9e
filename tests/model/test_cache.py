"""Prefill and decode through the latent cache against the full forward pass."""

import pytest
import torch

from model import DeepseekForCausalLM, LatentCache, PackedBatch
from tests.model.tiny_models import dense_config, ids, sparse_config


def make(config) -> DeepseekForCausalLM:
    torch.manual_seed(0)
    model = DeepseekForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
    return model


def full(model: DeepseekForCausalLM, tokens: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(tokens.unsqueeze(0)).logits[0]


@pytest.mark.parametrize("config", [sparse_config(), dense_config()], ids=["sparse", "dense"])
def test_prefill_append_decode_equal_full_forward(config) -> None:
    model = make(config)
    texts = [ids(90, seed) for seed in range(3)]
    expected = [full(model, text) for text in texts]
    cache = LatentCache(config, 5, 96, torch.float32, "cpu")
    slots, held = torch.tensor([3, 0, 4]), [0, 0, 0]
    for turn in ([40, 7, 21], [1, 30, 9], [20, 2, 40]):
        parts = [text[at : at + more] for text, at, more in zip(texts, held, turn, strict=True)]
        logits = model.prefill(PackedBatch.from_sequences(parts), cache, slots).logits
        held = [at + more for at, more in zip(held, turn, strict=True)]
        want = torch.stack([e[at - 1] for e, at in zip(expected, held, strict=True)])
        torch.testing.assert_close(logits, want, atol=1e-5, rtol=0)
    for _ in range(15):
        tokens = torch.stack([text[at] for text, at in zip(texts, held, strict=True)])
        logits = model.decode(tokens, cache, slots).logits
        held = [at + 1 for at in held]
        want = torch.stack([e[at - 1] for e, at in zip(expected, held, strict=True)])
        torch.testing.assert_close(logits, want, atol=1e-5, rtol=0)
    assert cache.lengths.tolist() == [held[1], 0, 0, held[0], held[2]]


@pytest.mark.parametrize("kept", [[0, 3, 2], [3, 0], [1, 2, 3, 0], [2]])
def test_keep_puts_slots_in_the_given_order(kept: list[int]) -> None:
    config = sparse_config()
    model = make(config)
    texts = [ids(50, seed) for seed in range(4)]
    cache = LatentCache(config, 4, 64, torch.float32, "cpu")
    model.prefill(PackedBatch.from_sequences([t[: 30 + i] for i, t in enumerate(texts)]), cache, torch.arange(4))
    cache.keep(torch.tensor(kept))
    assert cache.lengths.tolist() == [30 + i for i in kept] + [0] * (4 - len(kept))
    logits = model.decode(torch.stack([texts[i][30 + i] for i in kept]), cache, torch.arange(len(kept))).logits
    want = torch.stack([full(model, texts[i])[30 + i] for i in kept])
    torch.testing.assert_close(logits, want, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="distinct"):
        cache.keep(torch.tensor([0, 0]))


def test_keep_moves_slots_and_reset_empties_them() -> None:
    config = sparse_config()
    model = make(config)
    texts = [ids(50, seed) for seed in range(4)]
    cache = LatentCache(config, 4, 64, torch.float32, "cpu")
    model.prefill(PackedBatch.from_sequences([t[: 30 + i] for i, t in enumerate(texts)]), cache, torch.arange(4))
    cache.keep(torch.tensor([1, 3]))
    assert cache.lengths.tolist() == [31, 33, 0, 0]
    logits = model.decode(torch.stack([texts[1][31], texts[3][33]]), cache, torch.arange(2)).logits
    torch.testing.assert_close(logits[0], full(model, texts[1])[31], atol=1e-5, rtol=0)
    torch.testing.assert_close(logits[1], full(model, texts[3])[33], atol=1e-5, rtol=0)
    # A reused slot must not see what it held before.
    cache.reset(torch.tensor([0]))
    logits = model.prefill(PackedBatch.from_sequences([texts[2][:20]]), cache, torch.tensor([0])).logits
    torch.testing.assert_close(logits[0], full(model, texts[2])[19], atol=1e-5, rtol=0)


def test_cache_holds_latents_only() -> None:
    config = sparse_config()
    cache = LatentCache(config, 2, 8, torch.float32, "cpu")
    assert cache.bytes_per_token() == 3 * 4 * (24 + 8 + 16)


def test_errors_name_the_slot() -> None:
    config = sparse_config()
    model = make(config)
    cache = LatentCache(config, 2, 8, torch.float32, "cpu")
    batch = PackedBatch.from_sequences([ids(9)])
    with pytest.raises(ValueError, match="slot 1 would hold 9 tokens, but the cache has room for 8"):
        model.prefill(batch, cache, torch.tensor([1]))
    with pytest.raises(ValueError, match=r"slots must lie in 0\.\.1"):
        model.prefill(batch, cache, torch.tensor([2]))
    with pytest.raises(ValueError, match="given twice"):
        model.decode(torch.tensor([1, 1]), cache, torch.tensor([0, 0]))
