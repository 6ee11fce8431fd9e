"""Other people's kernels for the same work, each as a function that gives a call or raises why it does not start.

    python -m benchmarks.rivals [--log rivals.log]

starts every rival at a small shape, compares it with float64 and prints one line each; full tracebacks go to the log.
FlashMLA, DeepGEMM, FlashAttention and the per-row top-k are the copies inside vLLM 0.24.0's wheel.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.timing import synchronize

Call = Callable[[], Any]
PAGE = 64  # tokens of a page of FlashMLA's and DeepGEMM's caches
NOT_COMPARABLE = {
    "flash-linear-attention": "not comparable: its sparse kernels are NSA's, which selects blocks for groups of heads"
}
"""Packages of the field that have no kernel for the same work."""


class NotStarted(RuntimeError):
    """Why a rival cannot be measured here, as a sentence."""


def start(make: Callable[[], Call]) -> tuple[Call | None, str]:
    """The rival's call after a first successful run, and "" or the reason why there is none."""
    try:
        call = make()
        call()
        synchronize()
    except Exception as error:
        return None, reason(error)
    return call, ""


def reason(error: Exception) -> str:
    """Why a rival cannot be measured, in one line."""
    if isinstance(error, ModuleNotFoundError):
        return f"not installed ({error.name})"
    text = (str(error).strip().splitlines() or [""])[0][:160]
    return text if isinstance(error, NotStarted) else f"does not start: {type(error).__name__}: {text}"


def flashmla_sparse(q: Tensor, kv: Tensor, indices: Tensor, scale: float, value_dim: int) -> Call:
    """FlashMLA's sparse prefill of q [M, H, 576] over kv [S, 576]: out [M, H, 512]."""
    from vllm.third_party.flashmla.flash_mla_interface import flash_mla_sparse_fwd

    return lambda: flash_mla_sparse_fwd(q, kv.unsqueeze(1), indices.unsqueeze(1), scale, value_dim)[0]


def flashmla_sparse_decode(q: Tensor, cache: Tensor, indices: Tensor, scale: float, value_dim: int) -> Call:
    """FlashMLA's sparse decode of q [B, H, 576] over an FP8 cache [S, 656] uint8: out [B, H, 512]."""
    from vllm.third_party.flashmla.flash_mla_interface import flash_mla_with_kvcache, get_mla_metadata

    schedule, _ = get_mla_metadata()
    pages = cache.view(-1, PAGE, 1, cache.shape[1])

    def call() -> Tensor:
        out, _ = flash_mla_with_kvcache(
            q=q.unsqueeze(1),
            k_cache=pages,
            block_table=None,
            cache_seqlens=None,
            head_dim_v=value_dim,
            tile_scheduler_metadata=schedule,
            softmax_scale=scale,
            is_fp8_kvcache=True,
            indices=indices.unsqueeze(1),
        )
        return out.squeeze(1)

    return call


def flashmla_dense_decode(q: Tensor, cache: Tensor, lengths: Tensor, scale: float, value_dim: int) -> Call:
    """FlashMLA's dense decode of q [B, H, 576] over a bf16 cache [B, L, 576] up to `lengths` [B] int32: [B, H, 512]."""
    from vllm.third_party.flashmla.flash_mla_interface import flash_mla_with_kvcache, get_mla_metadata

    schedule, _ = get_mla_metadata()
    batch, length, dim = cache.shape
    table = torch.arange(batch * length // PAGE, dtype=torch.int32, device=cache.device).view(batch, -1)

    def call() -> Tensor:
        out, _ = flash_mla_with_kvcache(
            q=q.unsqueeze(1),
            k_cache=cache.view(-1, PAGE, 1, dim),
            block_table=table,
            cache_seqlens=lengths,
            head_dim_v=value_dim,
            tile_scheduler_metadata=schedule,
            softmax_scale=scale,
            causal=True,
        )
        return out.squeeze(1)

    return call


def deep_gemm_logits(q: Tensor, k: Tensor, k_scale: Tensor, weights: Tensor, starts: Tensor, ends: Tensor) -> Call:
    """DeepGEMM's index scores [M, N] of e4m3 q [M, J, 128] and k [N, 128] with scales [N]; q's are in the weights."""
    from vllm.third_party import deep_gemm

    return lambda: deep_gemm.fp8_mqa_logits(q, (k, k_scale), weights, starts, ends, clean_logits=False)


def deep_gemm_decode_logits(q: Tensor, k: Tensor, k_scale: Tensor, weights: Tensor, lengths: Tensor) -> Call:
    """DeepGEMM's paged index scores [B, L] of e4m3 q [B, J, 128] over k [B, L, 128] with scales [B, L]."""
    from vllm.third_party import deep_gemm

    batch, length, dim = k.shape
    pages = torch.empty(batch * length // PAGE, PAGE * (dim + 4), dtype=torch.uint8, device=k.device)
    # A page holds the values of its 64 keys and then their 64 scales.
    pages[:, : PAGE * dim] = k.view(torch.uint8).view(-1, PAGE * dim)
    pages[:, PAGE * dim :] = k_scale.view(-1, PAGE).view(torch.uint8)
    pages = pages.view(-1, PAGE, 1, dim + 4)
    table = torch.arange(len(pages), dtype=torch.int32, device=k.device).view(batch, -1)
    lengths = lengths.view(-1, 1)
    schedule = deep_gemm.get_paged_mqa_logits_metadata(lengths, PAGE, deep_gemm.get_num_sms())
    return lambda: deep_gemm.fp8_paged_mqa_logits(
        q.unsqueeze(1), pages, weights, lengths, table, schedule, length, clean_logits=False
    )


def vllm_topk(scores: Tensor, k: int, starts: Tensor, ends: Tensor) -> Call:
    """vLLM's per-row top-k [M, k] int32 of scores [M, N]: its own order, any winner among equals."""
    from vllm import _custom_ops

    rows = len(scores)
    found = torch.empty(rows, k, dtype=torch.int32, device=scores.device)

    def call() -> Tensor:
        _custom_ops.top_k_per_row_prefill(scores, starts, ends, found, rows, *scores.stride(), k)
        return found

    return call


def torch_topk(scores: Tensor, k: int) -> Call:
    """torch.topk of whole rows."""
    return lambda: scores.topk(k, dim=-1, sorted=False).indices


def flash_attention_3(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Call:
    """FlashAttention-3's causal forward of q [M, H, d] over k [L, H, d] and v [L, H, d_v], the last rows aligned."""
    from vllm.vllm_flash_attn import flash_attn_varlen_func

    queries, keys = (torch.tensor([0, len(x)], dtype=torch.int32, device=q.device) for x in (q, k))
    return lambda: flash_attn_varlen_func(
        q, k, v, len(q), queries, len(k), cu_seqlens_k=keys, softmax_scale=scale, causal=True, fa_version=3
    )


def flash_attention_4(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Call:
    """FlashAttention's CuTe kernels for Hopper, differentiable: out [L, H, d_v]."""
    from vllm.vllm_flash_attn.cute.interface import flash_attn_func

    return lambda: flash_attn_func(q[None], k[None], v[None], softmax_scale=scale, causal=True)[0][0]


def cudnn_attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Call:
    """cuDNN's causal attention through torch, differentiable: out [L, H, d_v]."""
    return _torch_attention(q, k, v, scale, torch.nn.attention.SDPBackend.CUDNN_ATTENTION)


def torch_flash_attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Call:
    """torch's own FlashAttention-2, differentiable. It wants equal head sizes: v is padded, and that is timed too."""
    padded = F.pad(v, (0, q.shape[-1] - v.shape[-1]))
    call = _torch_attention(q, k, padded, scale, torch.nn.attention.SDPBackend.FLASH_ATTENTION)
    return lambda: call()[..., : v.shape[-1]]


def _torch_attention(q: Tensor, k: Tensor, v: Tensor, scale: float, backend: Any) -> Call:
    queries, keys, values = (x.transpose(0, 1)[None] for x in (q, k, v))

    def call() -> Tensor:
        with torch.nn.attention.sdpa_kernel(backend):
            out = F.scaled_dot_product_attention(queries, keys, values, is_causal=True, scale=scale)
        return out[0].transpose(0, 1)

    return call


def torch_logprob(hidden: Tensor, weight: Tensor, targets: Tensor) -> Call:
    """The log-probabilities [T] by way of the logits, as a training loop without a fused kernel has them."""
    return lambda: -F.cross_entropy((hidden @ weight.t()).float(), targets, reduction="none")


def tilelang_sparse(*_: Any) -> Call:
    """TileLang's sparse MLA."""
    import tilelang  # noqa: F401

    raise NotStarted(
        "its sparse MLA is an example in its repository, not in its package; its backward did not run here"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Which rivals start on this machine.")
    parser.add_argument("--log", type=Path, default=Path("rivals.log"), help="where full tracebacks go")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("the rivals run on a GPU, and torch sees none here")
        return 2
    from benchmarks.rivals_trial import TRIALS

    with arguments.log.open("w", encoding="utf-8") as log:
        for name, trial in TRIALS.items():
            try:
                error = trial()
                synchronize()
                line = f"starts, error {error:.1e}"
            except Exception as failure:
                line = reason(failure)
                log.write(f"{name}\n{traceback.format_exc()}\n")
                log.flush()
            print(f"{name:<28} {line}", flush=True)
    for name, why in NOT_COMPARABLE.items():
        print(f"{name:<28} {why}")
    print(f"tracebacks in {arguments.log}" if arguments.log.stat().st_size else "no failures")
    return 0


if __name__ == "__main__":
    sys.exit(main())
