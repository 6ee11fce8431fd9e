"""One small trial of every rival: does it start, and does it compute what float64 does."""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks import inputs, oracles, rivals
from benchmarks.inputs import DIM, INDEX_DIM, INDEX_HEADS, LATENT, NOPE, ROPE, SCALE, VALUE, normal
from kernels.quantize import quantize_fp8, quantize_latent

DEVICE = torch.device("cuda")


def flashmla_sparse(heads: int) -> float:
    q, kv = normal(64, heads, DIM, device=DEVICE), normal(4096, DIM, device=DEVICE)
    chosen = inputs.selection(64, 4096, 2048, DEVICE)
    found = rivals.flashmla_sparse(q, kv, chosen, SCALE, LATENT)()
    return oracles.relative_error(found, oracles.sparse_attention(q, kv, chosen, SCALE, LATENT))


def flashmla_sparse_decode(heads: int) -> float:
    q = normal(128, heads, DIM, device=DEVICE)
    cache = quantize_latent(normal(8192, DIM, device=DEVICE))
    chosen = inputs.selection(128, 8192, 2048, DEVICE)
    found = rivals.flashmla_sparse_decode(q, cache, chosen, SCALE, LATENT)()
    expected = oracles.sparse_attention(q, oracles.fp8_cache_rows(cache), chosen, SCALE, LATENT)
    return oracles.relative_error(found, expected)


def flashmla_dense_decode() -> float:
    q, cache = normal(4, 128, DIM, device=DEVICE), normal(4, 1024, DIM, device=DEVICE)
    lengths = torch.full((4,), 1000, dtype=torch.int32, device=DEVICE)
    found = rivals.flashmla_dense_decode(q, cache, lengths, SCALE, LATENT)()
    every = torch.arange(1000, device=DEVICE) + 1024 * torch.arange(4, device=DEVICE)[:, None]
    return oracles.relative_error(found, oracles.sparse_attention(q, cache.flatten(0, 1), every, SCALE, LATENT))


def deep_gemm_logits() -> float:
    q, k, weights = inputs.index_inputs(256, 4096, INDEX_HEADS, INDEX_DIM, DEVICE)
    (q8, q_scale), (k8, k_scale) = quantize_fp8(q), quantize_fp8(k)
    ranges = inputs.full_ranges(256, 4096, DEVICE)
    found = rivals.deep_gemm_logits(q8, k8, k_scale, weights * q_scale, *ranges)()
    expected = oracles.index_scores(q8, k8, weights * q_scale) * k_scale.double()
    return oracles.relative_error(found, expected)


def deep_gemm_decode_logits() -> float:
    q, _, weights = inputs.index_inputs(8, 1, INDEX_HEADS, INDEX_DIM, DEVICE)
    (q8, q_scale), (k8, k_scale) = quantize_fp8(q), quantize_fp8(normal(8, 4096, INDEX_DIM, device=DEVICE))
    lengths = torch.full((8,), 4096, dtype=torch.int32, device=DEVICE)
    found = rivals.deep_gemm_decode_logits(q8, k8, k_scale, weights * q_scale, lengths)()
    rows = [oracles.index_scores(q8[b : b + 1], k8[b], (weights * q_scale)[b : b + 1])[0] for b in range(8)]
    return oracles.relative_error(found[:, :4096], torch.stack(rows) * k_scale.double())


def vllm_topk() -> float:
    scores = torch.randn(256, 32768, device=DEVICE)
    found = rivals.vllm_topk(scores, 2048, *inputs.full_ranges(256, 32768, DEVICE))()
    return oracles.topk_mismatch(scores, found, 2048)


def dense(make: Callable[..., rivals.Call], backward: bool) -> Callable[[], float]:
    def trial() -> float:
        q, k, v = (normal(1024, 8, size, device=DEVICE) for size in (NOPE + ROPE, NOPE + ROPE, VALUE))
        for x in (q, k, v):
            x.requires_grad_(backward)
        found = make(q, k, v, SCALE)()
        if backward:
            torch.autograd.grad(found, (q, k, v), torch.ones_like(found))
        rows = torch.tensor([0, 77, 1023], device=DEVICE)
        expected = oracles.causal_attention(q.detach(), k.detach(), v.detach(), SCALE, rows)
        return oracles.relative_error(found.detach()[rows], expected)

    return trial


TRIALS: dict[str, Callable[[], float]] = {
    "FlashMLA sparse 128 heads": lambda: flashmla_sparse(128),
    "FlashMLA sparse 64 heads": lambda: flashmla_sparse(64),
    "FlashMLA decode 128 heads": lambda: flashmla_sparse_decode(128),
    "FlashMLA decode 64 heads": lambda: flashmla_sparse_decode(64),
    "FlashMLA dense decode": flashmla_dense_decode,
    "DeepGEMM logits": deep_gemm_logits,
    "DeepGEMM decode logits": deep_gemm_decode_logits,
    "vLLM top-k": vllm_topk,
    "FlashAttention-3": dense(rivals.flash_attention_3, backward=False),
    "FlashAttention-4 + backward": dense(rivals.flash_attention_4, backward=True),
    "cuDNN + backward": dense(rivals.cudnn_attention, backward=True),
    "torch flash + backward": dense(rivals.torch_flash_attention, backward=True),
    "TileLang sparse": lambda: float(bool(rivals.tilelang_sparse())),
}
