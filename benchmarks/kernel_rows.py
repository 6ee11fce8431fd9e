"""The rows of `python -m benchmarks.kernels`: inputs, our call, the rivals' calls, the oracle and the targets of each.

A builder makes its inputs on the device and gives a `Row`; the row's closures hold them, so dropping it frees them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from benchmarks import inputs, oracles, rivals
from benchmarks.inputs import DIM, INDEX_DIM, INDEX_HEADS, LATENT, NOPE, ROPE, SCALE, normal
from benchmarks.rivals import Call
from benchmarks.row import FULL, Goal, Row, Size
from benchmarks.timing import device
from kernels.quantize import quantize_fp8, quantize_latent

GIB = 2**30


def indexer_fp8(size: Size) -> Row:
    from kernels.indexer import indexer_logits_fp8

    q, k, weights = inputs.index_inputs(size.queries, size.keys, INDEX_HEADS, INDEX_DIM, device())
    (q, q_scale), (k, k_scale) = quantize_fp8(q), quantize_fp8(k)
    weights = weights * q_scale
    starts, ends = inputs.full_ranges(size.queries, size.keys, device())
    some = slice(0, size.checked)
    expected = oracles.index_scores(q[some], k, weights[some]) * k_scale.double()
    return Row(
        "indexer FP8",
        f"{size.queries} x {size.keys}, {INDEX_HEADS}x{INDEX_DIM}",
        "TFLOPS",
        2.0 * size.queries * size.keys * INDEX_HEADS * INDEX_DIM,
        "fp8",
        ours=lambda: indexer_logits_fp8(q, k, k_scale, weights, starts, ends),
        error=lambda out: oracles.relative_error(out[some, : size.keys], expected),
        rivals={"DeepGEMM": lambda: rivals.deep_gemm_logits(q, k, k_scale, weights, starts, ends)},
        must=Goal("ratio", 0.70),
        aim=Goal("ratio", 0.95),
        noted=("DeepGEMM", 8.43) if size == FULL else None,
    )


def indexer_bf16(size: Size) -> Row:
    from kernels.indexer import indexer_logits_rows

    q, k, weights = inputs.index_inputs(size.queries, size.keys, INDEX_HEADS, INDEX_DIM, device())
    starts, ends = inputs.full_ranges(size.queries, size.keys, device())
    some = slice(0, size.checked)
    expected = oracles.index_scores(q[some], k, weights[some])
    return Row(
        "indexer BF16",
        f"{size.queries} x {size.keys}, {INDEX_HEADS}x{INDEX_DIM}",
        "TFLOPS",
        2.0 * size.queries * size.keys * INDEX_HEADS * INDEX_DIM,
        "bf16",
        ours=lambda: indexer_logits_rows(q, k, weights, starts, ends),
        error=lambda out: oracles.relative_error(out[some], expected),
        must=Goal("rate", 400),
        aim=Goal("rate", 550),
    )


def topk(size: Size, keys: int) -> Row:
    from kernels.topk import topk_rows

    scores = torch.randn(size.queries, keys, device=device())
    starts, ends = inputs.full_ranges(size.queries, keys, device())
    long = keys == size.keys
    noted = {131072: 1.29, 32768: 0.38}.get(keys) if size.queries == FULL.queries else None
    return Row(
        f"top-k {size.k} of {keys}",
        f"{size.queries} rows",
        "TB/s",
        float(scores.nbytes),
        "copy",
        ours=lambda: topk_rows(scores, size.k, starts, ends),
        error=lambda found: oracles.topk_mismatch(scores, found, size.k),
        rivals={
            "vLLM": lambda: rivals.vllm_topk(scores, size.k, starts, ends),
            "torch.topk": lambda: rivals.torch_topk(scores, size.k),
        },
        must=Goal("ratio", 1.0, same_bits=True) if long else None,
        aim=Goal("passes", 2.0, same_bits=True) if long else None,
        noted=("vLLM", noted) if noted else None,
    )


def sparse_forward(size: Size, heads: int) -> Row:
    from kernels.sparse_mla import sparse_mla_attention

    q, kv = normal(size.queries, heads, DIM, device=device()), normal(size.keys, DIM, device=device())
    chosen = inputs.selection(size.queries, size.keys, size.k, device())
    some = slice(0, size.checked)
    expected = oracles.sparse_attention(q[some], kv, chosen[some], SCALE, LATENT)

    @torch.no_grad()
    def ours() -> Tensor:
        return sparse_mla_attention(q, kv, chosen, SCALE, LATENT)[0]

    noted = {128: 4.16, 64: 2.42}[heads] if size == FULL else None
    return Row(
        f"sparse MLA forward, {heads} heads",
        f"{size.queries} queries, k {size.k}, {size.keys} keys",
        "TFLOPS",
        2.0 * size.queries * heads * size.k * (DIM + LATENT),
        "bf16",
        ours=ours,
        error=lambda out: oracles.relative_error(out[some], expected),
        rivals={
            "FlashMLA": lambda: rivals.flashmla_sparse(q, kv, chosen, SCALE, LATENT),
            "TileLang": rivals.tilelang_sparse,
        },
        must=Goal("ratio", 0.60) if heads == 128 else None,
        aim=Goal("ratio", 0.90) if heads == 128 else None,
        noted=("FlashMLA", noted) if noted else None,
    )


def sparse_backward(size: Size, heads: int) -> Row:
    from kernels.sparse_mla import sparse_mla_attention

    q, kv = normal(size.queries, heads, DIM, device=device()), normal(size.keys, DIM, device=device())
    chosen = inputs.selection(size.queries, size.keys, size.k, device())
    upstream = normal(size.queries, heads, LATENT, device=device())
    q.requires_grad_()
    kv.requires_grad_()
    out, lse = sparse_mla_attention(q, kv, chosen, SCALE, LATENT)
    expected = oracles.sparse_attention_gradients(q.detach(), kv.detach(), chosen, upstream, SCALE, LATENT)

    def ours() -> tuple[Tensor, ...]:
        return torch.autograd.grad(out, (q, kv), upstream, retain_graph=True)

    def atomic() -> Call:
        from benchmarks.atomic_backward import atomic_backward

        return partial(atomic_backward, *(x.detach() for x in (q, kv, chosen, out, lse, upstream)), SCALE)

    return Row(
        f"sparse MLA backward, {heads} heads",
        f"{size.queries} queries, k {size.k}, {size.keys} keys",
        "TFLOPS",
        2.0 * size.queries * heads * size.k * (3 * DIM + 2 * LATENT),
        "bf16",
        ours=ours,
        error=lambda grads: max(oracles.relative_error(*pair) for pair in zip(grads, expected, strict=True)),
        rivals={"TileLang": rivals.tilelang_sparse}
        | ({"own, atomic": atomic} if heads == 128 and size.k == FULL.k else {}),
        must=Goal("rate", 115, same_bits=True) if heads == 128 else None,
        aim=Goal("rate", 250, same_bits=True) if heads == 128 else None,
    )


def sparse_decode(size: Size, heads: int, cache_format: Literal["bf16", "fp8"]) -> Row:
    from kernels.decode import sparse_mla_decode

    q = normal(size.batch, heads, DIM, device=device())
    cache = normal(size.batch * size.cached, DIM, device=device())
    chosen = inputs.selection(size.batch, size.cached, size.k, device())
    chosen += size.cached * torch.arange(size.batch, dtype=torch.int32, device=device()).unsqueeze(1)
    if cache_format == "fp8":
        cache = quantize_latent(cache, LATENT)
        used = oracles.fp8_cache_rows(cache[chosen.long().flatten()])
        rows = torch.arange(len(used), device=device()).view_as(chosen)
        expected = oracles.sparse_attention(q, used, rows, SCALE, LATENT)
    else:
        expected = oracles.sparse_attention(q, cache, chosen, SCALE, LATENT)
    full = size == FULL and cache_format == "fp8"
    return Row(
        f"sparse decode {cache_format.upper()}, {heads} heads",
        f"batch {size.batch}, k {size.k}",
        "TFLOPS",
        2.0 * size.batch * heads * size.k * (DIM + LATENT),
        "bf16",
        ours=lambda: sparse_mla_decode(q, cache, chosen, SCALE, LATENT)[0],
        error=lambda out: oracles.relative_error(out, expected),
        rivals={"FlashMLA": lambda: rivals.flashmla_sparse_decode(q, cache, chosen, SCALE, LATENT)}
        if cache_format == "fp8"
        else {},
        must=Goal("ratio", 0.5) if heads == 128 and cache_format == "fp8" else None,
        aim=Goal("ratio", 0.8) if heads == 128 and cache_format == "fp8" else None,
        noted=("FlashMLA", {128: 0.250, 64: 0.155}[heads]) if full else None,
    )


def index_decode(size: Size) -> Row:
    from kernels.indexer import indexer_logits_decode

    batch, length = size.batch, size.keys
    q, _, weights = inputs.index_inputs(batch, 1, INDEX_HEADS, INDEX_DIM, device())
    (q, q_scale), (k, k_scale) = quantize_fp8(q), quantize_fp8(normal(batch, length, INDEX_DIM, device=device()))
    weights = weights * q_scale
    slots = torch.arange(batch, dtype=torch.int32, device=device())
    lengths = torch.full((batch,), length, dtype=torch.int32, device=device())
    some = range(min(batch, size.checked))
    expected = torch.stack(
        [oracles.index_scores(q[b : b + 1], k[b], weights[b : b + 1])[0] * k_scale[b].double() for b in some]
    )
    return Row(
        "index decode FP8",
        f"batch {batch}, {length} cached, {INDEX_HEADS}x{INDEX_DIM}",
        "TB/s",
        float(k.nbytes + k_scale.nbytes),
        "copy",
        ours=lambda: indexer_logits_decode(q, k, weights, slots, lengths, length, k_scale),
        error=lambda out: oracles.relative_error(out[: len(some), :length], expected),
        rivals={"DeepGEMM": lambda: rivals.deep_gemm_decode_logits(q, k, k_scale, weights, lengths)},
        must=Goal("share", 0.70),
    )


def dense_kl(size: Size, heads: int = 128) -> Row:
    from kernels.kl_rows import indexer_kl_rows

    index = [
        x.requires_grad_() for x in inputs.index_inputs(size.kl_queries, size.keys, INDEX_HEADS, INDEX_DIM, device())
    ]
    q, k_nope = (
        normal(size.kl_queries, heads, NOPE + ROPE, device=device()),
        normal(size.keys, heads, NOPE, device=device()),
    )
    k_rope = normal(size.keys, ROPE, device=device())
    starts, ends = inputs.causal_ranges(size.kl_queries, size.keys, device())
    lse = oracles.dense_lse(q, k_nope, k_rope, ends, SCALE)
    some = torch.linspace(0, size.kl_queries - 1, size.checked, device=device()).long()
    expected = oracles.kl_gradients(*(x.detach() for x in index), q, k_nope, k_rope, lse, ends, SCALE, some)

    def ours() -> tuple[Tensor, ...]:
        loss = indexer_kl_rows(*index, q, k_nope, k_rope, lse, starts, ends, SCALE)
        return loss.detach(), *torch.autograd.grad(loss, index)

    pairs = float(ends.sum())
    return Row(
        "warm-up KL, loss + gradients",
        f"{size.kl_queries} queries of {size.keys}, {heads} heads",
        "TFLOPS",
        # The target in its cheaper form; the index scores once in the forward pass, then again and twice backward.
        2.0 * pairs * (heads * (NOPE + ROPE) + 4 * INDEX_HEADS * INDEX_DIM),
        "bf16",
        ours=ours,
        error=lambda out: max(oracles.relative_error(out[i][some], x) for i, x in ((1, expected[0]), (3, expected[1]))),
        must=Goal("rate", 300, scratch=GIB),
        aim=Goal("rate", 450, scratch=GIB),
    )


def token_logprob(size: Size) -> Row:
    from kernels.logprob import token_logprob as logprob

    hidden = normal(size.tokens, size.hidden, device=device()).requires_grad_()
    weight = normal(size.vocabulary, size.hidden, device=device(), scale=size.hidden**-0.5).requires_grad_()
    targets = torch.randint(size.vocabulary, (size.tokens,), device=device())
    some = slice(0, size.checked)
    leaf = hidden.detach()[some].double().requires_grad_()
    values = oracles.token_logprob(leaf, weight.detach(), targets[some])
    (gradient,) = torch.autograd.grad(values.sum(), leaf)

    def with_gradients(logprobs: Tensor) -> tuple[Tensor, ...]:
        return logprobs.detach(), *torch.autograd.grad(logprobs.sum(), (hidden, weight))

    def by_logits() -> Call:
        call = rivals.torch_logprob(hidden, weight, targets)
        return lambda: with_gradients(call())

    def error(out: tuple[Tensor, ...]) -> float:
        return max(oracles.relative_error(out[0][some], values), oracles.relative_error(out[1][some], gradient))

    return Row(
        "token log-prob, fwd + bwd",
        f"{size.tokens} tokens, {size.hidden} to {size.vocabulary}",
        "TFLOPS",
        6.0 * size.tokens * size.hidden * size.vocabulary,
        "bf16",
        ours=lambda: with_gradients(logprob(hidden, weight, targets)[0]),
        error=error,
        rivals={"torch, with logits": by_logits},
    )


ROWS: dict[str, Callable[[Size], Row]] = {
    "indexer_fp8": indexer_fp8,
    "indexer_bf16": indexer_bf16,
    "topk_131072": lambda size: topk(size, size.keys),
    "topk_32768": lambda size: topk(size, size.short_keys),
    "sparse_forward_128": partial(sparse_forward, heads=128),
    "sparse_forward_64": partial(sparse_forward, heads=64),
    "sparse_backward_128": partial(sparse_backward, heads=128),
    "sparse_backward_64": partial(sparse_backward, heads=64),
    "sparse_decode_fp8_128": partial(sparse_decode, heads=128, cache_format="fp8"),
    "sparse_decode_fp8_64": partial(sparse_decode, heads=64, cache_format="fp8"),
    "sparse_decode_bf16_128": partial(sparse_decode, heads=128, cache_format="bf16"),
    "sparse_decode_bf16_64": partial(sparse_decode, heads=64, cache_format="bf16"),
    "index_decode": index_decode,
    "dense_kl": dense_kl,
    "token_logprob": token_logprob,
}
