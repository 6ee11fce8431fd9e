"""The whole model on a GPU against itself in float64 on the CPU; learner against sampler. Part of `gpu_check`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import DeepseekV3Config, DeepseekV32Config

from model import DeepseekForCausalLM, LatentCache, PackedBatch, cast_model
from rollout.engine import Generation, TorchEngine

Report = Callable[[str, bool, str], None]

SHAPES: dict[str, Any] = {
    "vocab_size": 512, "hidden_size": 256, "intermediate_size": 512, "moe_intermediate_size": 128,
    "num_hidden_layers": 3, "num_attention_heads": 16, "num_key_value_heads": 16, "n_routed_experts": 8,
    "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "kv_lora_rank": 512, "q_lora_rank": 256,
    "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128, "first_k_dense_replace": 1,
    "max_position_embeddings": 4096, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}  # fmt: skip
INDEXER = {"index_topk": 64, "index_head_dim": 128, "index_n_heads": 32}
LENGTHS = [700, 333, 64, 1, 512]


def check_model(report: Report) -> None:
    """Hidden states, gradients and cached logits of a sparse and a dense model; bitwise agreement; the bf16 gap."""
    for name, config in (("sparse", DeepseekV32Config(**SHAPES, **INDEXER)), ("dense", _dense())):
        torch.manual_seed(0)
        exact = DeepseekForCausalLM(config).double()
        fast = DeepseekForCausalLM(config)
        fast.load_state_dict(exact.state_dict())
        _against_float64(report, name, exact, cast_model(fast, torch.float32).cuda())
        _learner_and_sampler(report, name, fast)
        _bfloat16_gap(report, name, cast_model(fast, torch.bfloat16))


def _dense() -> DeepseekV3Config:
    return DeepseekV3Config(**SHAPES, num_mtp_layers=0)


def _batch() -> PackedBatch:
    generator = torch.Generator().manual_seed(1)
    return PackedBatch.from_sequences([torch.randint(0, 512, (length,), generator=generator) for length in LENGTHS])


def _against_float64(report: Report, name: str, exact: DeepseekForCausalLM, fast: DeepseekForCausalLM) -> None:
    results = []
    for model, device in ((exact, "cpu"), (fast, "cuda")):
        batch = _batch().to(device)
        options = {"indexer_loss": "sparse"} if name == "sparse" else {}
        model.zero_grad()
        out = model.hidden_states(batch, **options)  # type: ignore[arg-type]
        loss = model.token_logprobs(batch, hidden=out.hidden).mean()
        if out.indexer_loss is not None:
            loss = loss + out.indexer_loss / len(batch.input_ids)
        loss.backward()  # type: ignore[no-untyped-call]
        grads = {n: p.grad.double().cpu() for n, p in model.named_parameters() if p.grad is not None}
        results.append((out.hidden.detach().double().cpu(), grads))
    (want, want_grads), (got, grads) = results
    error = _relative(got, want)
    report(f"model {name}: float32 hidden states against float64", error < 1e-4, f"relative error {error:.1e}")
    worst = max(((_relative(grads[n], g), n) for n, g in want_grads.items()), key=lambda pair: pair[0])
    same = grads.keys() == want_grads.keys()
    report(f"model {name}: float32 gradients", same and worst[0] < 1e-3, f"worst {worst[0]:.1e} in {worst[1]}")


def _relative(got: torch.Tensor, want: torch.Tensor) -> float:
    return float((got - want).norm() / want.norm().clamp_min(1e-30))


def _generations(model: DeepseekForCausalLM) -> list[tuple[list[int], torch.Tensor]]:
    """Sampled texts and the sampler's log-probabilities; batches of other sizes, so that companions change."""
    engine = TorchEngine(model, end_token_id=511, max_batch=5)
    generator = torch.Generator().manual_seed(2)
    prompts = [torch.randint(0, 511, (n,), generator=generator).tolist() for n in (3, 40, 90, 200, 33, 64, 1)]
    requests = [Generation(prompt, seed, 40) for seed, prompt in enumerate(prompts)]
    completions = engine.generate(requests, 1.0)
    return [
        ([*prompt, *done.token_ids.tolist()], torch.from_numpy(done.logprobs))
        for prompt, done in zip(prompts, completions, strict=True)
    ]


def _gap(model: DeepseekForCausalLM) -> torch.Tensor:
    """|learner - sampler| of every sampled token's log-probability."""
    texts = _generations(model)
    batch = PackedBatch.from_sequences([ids for ids, _ in texts]).to("cuda")
    with torch.no_grad():
        learner = batch.unpack(model.token_logprobs(batch).cpu())
    parts = [own[-len(told) :] - told for own, (_, told) in zip(learner, texts, strict=True)]
    return torch.cat(parts).abs()


def _learner_and_sampler(report: Report, name: str, model: DeepseekForCausalLM) -> None:
    model.batch_invariant = True
    gap = _gap(model)
    model.batch_invariant = False
    detail = f"{int((gap > 0).sum())} of {len(gap)} differ, at most {float(gap.max()):.1e}"
    report(f"model {name}: learner = sampler bit for bit, float32", bool((gap == 0).all()), detail)
    loose = _gap(model)
    detail = f"mean {float(loose.mean()):.1e}, at most {float(loose.max()):.1e}"
    report(f"model {name}: learner - sampler without the invariant mode, float32", float(loose.max()) < 1e-3, detail)


def _bfloat16_gap(report: Report, name: str, model: DeepseekForCausalLM) -> None:
    gap = _gap(model)
    detail = f"mean {float(gap.mean()):.1e}, at most {float(gap.max()):.1e}"
    report(f"model {name}: learner - sampler, bfloat16", bool(gap.isfinite().all()), detail)
    cache = LatentCache(model.config, 2, 8, torch.bfloat16, "cuda")
    report(f"model {name}: cache", cache.kv.is_cuda, f"{cache.bytes_per_token()} bytes a token over all layers")
