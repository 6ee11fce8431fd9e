"""The body for GPUs against the body for CPUs, both in float64 on the CPU: layouts, caches, losses, telemetry."""

import dataclasses

import pytest
import torch

import model.attention
from model import DeepseekForCausalLM, DsaStats, LatentCache, PackedBatch, SharedPrompts
from tests.model.tiny_models import dense_config, ids, sparse_config

LENGTHS = [1, 60, 33, 31, 70, 13, 69, 2]


def make(kind: str) -> DeepseekForCausalLM:
    torch.manual_seed(0)
    made = DeepseekForCausalLM({"sparse": sparse_config, "dense": dense_config}[kind]()).double()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
    return made


def in_rows(monkeypatch: pytest.MonkeyPatch, on: bool) -> None:
    monkeypatch.setattr(model.attention, "use_triton", lambda _: on)


def run(policy: DeepseekForCausalLM, batch: PackedBatch, **options: str) -> dict[str, torch.Tensor]:
    policy.zero_grad()
    out = policy.hidden_states(batch, **options)
    loss = policy.token_logprobs(batch, hidden=out.hidden).sum()
    if out.indexer_loss is not None:
        loss = loss + 0.5 * out.indexer_loss
    loss.backward()
    grads = {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}
    return {"hidden": out.hidden.detach(), "loss": loss.detach(), **grads}


@pytest.mark.parametrize(
    ("model_kind", "kind"),
    [
        *(("sparse", kind) for kind in ("plain", "shared", "sparse_kl", "dense_kl")),
        ("dense", "plain"),
        ("dense", "shared"),
    ],
)
def test_packed(model_kind: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = make(model_kind)
    texts = [ids(length, seed) for seed, length in enumerate(LENGTHS)]
    options = {"sparse_kl": {"indexer_loss": "sparse"}, "dense_kl": {"attention": "dense", "indexer_loss": "dense"}}
    if kind == "shared":
        prompt = ids(25, 9)
        texts = [torch.cat([prompt, ids(length, seed)]) for seed, length in enumerate([30, 12, 44])] + [ids(20, 5)]
    batch = PackedBatch.from_sequences(texts)
    if kind == "shared":
        shared = SharedPrompts.find([prompt.numpy()] * 3 + [ids(4, 5).numpy()])
        batch = dataclasses.replace(batch, shared=shared)
    in_rows(monkeypatch, False)
    want = run(policy, batch, **options.get(kind, {}))
    in_rows(monkeypatch, True)
    got = run(policy, batch, **options.get(kind, {}))
    assert got.keys() == want.keys()
    for name, value in want.items():
        torch.testing.assert_close(got[name], value, atol=1e-9, rtol=1e-8, msg=lambda m, name=name: f"{name}: {m}")


def test_telemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    policy = DeepseekForCausalLM(sparse_config(index_n_heads=2)).double()
    batch = PackedBatch.from_sequences([ids(length, seed) for seed, length in enumerate(LENGTHS)])
    seen = []
    for on in (False, True):
        in_rows(monkeypatch, on)
        stats = DsaStats()
        with torch.no_grad():
            policy.hidden_states(batch, collect=stats)
        seen.append([dataclasses.asdict(layer) for layer in stats.layers])
    assert len(seen[0]) == len(seen[1]) == policy.config.num_hidden_layers
    for want, got in zip(*seen, strict=True):
        assert got == pytest.approx(want, rel=1e-9, abs=1e-12) and want["rows"] > 0


@pytest.mark.parametrize("kind", ["sparse", "dense"])
def test_cached(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = make(kind)
    texts, logits = [ids(90, seed) for seed in range(3)], []
    for on in (False, True):
        in_rows(monkeypatch, on)
        cache, held = LatentCache(policy.config, 5, 96, torch.float64, "cpu"), [0, 0, 0]
        slots, seen = torch.tensor([3, 0, 4]), []
        for turn in ([40, 7, 21], [1, 30, 9], *[[1, 1, 1]] * 6):
            parts = [text[at : at + more] for text, at, more in zip(texts, held, turn, strict=True)]
            if turn == [1, 1, 1]:
                seen.append(policy.decode(torch.cat(parts), cache, slots).logits)
            else:
                seen.append(policy.prefill(PackedBatch.from_sequences(parts), cache, slots).logits)
            held = [at + more for at, more in zip(held, turn, strict=True)]
        logits.append(torch.stack(seen))
    torch.testing.assert_close(logits[1], logits[0], atol=1e-9, rtol=1e-8)
