"""Cost of one token's attention against its position, dense against DSA, at the shape of the 671B model.

What the paper's figure 3 shows in dollars, here as microseconds of one GPU for one token in one layer, attention alone:
projections cost the same on both sides (the up-projection of a latent row and the two absorbed products per query are
the same number of operations), and so does everything outside attention.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from benchmarks import inputs, rivals
from benchmarks.inputs import CACHE_BYTES, DIM, INDEX_DIM, INDEX_HEADS, LATENT, NOPE, ROPE, SCALE, VALUE, normal
from benchmarks.provenance import provenance
from benchmarks.timing import device, free_memory, take_turns
from kernels.decode import dense_mla_decode, sparse_mla_decode
from kernels.indexer import indexer_logits_decode, indexer_logits_fp8
from kernels.quantize import quantize_fp8, quantize_latent
from kernels.sparse_mla import sparse_mla_attention
from kernels.topk import topk_rows

HEADS = 128
Calls = dict[str, Callable[[], Any]]


@dataclass(frozen=True)
class Size:
    """positions: tokens up to and including the measured ones. chunk: queries of a prefill step, which end there."""

    positions: tuple[int, ...]
    chunk: int
    batch: int
    k: int


FULL = Size((2048, 4096, 6144, 8192, 12288, 16384, 24576, 32768, 49152, 65536, 98304, 131072), 2048, 128, 2048)
TOY = Size((64, 128, 192), 16, 2, 32)


def measure(size: Size) -> dict[str, Any]:
    """Both curves, their crossovers and the bytes of every cache format."""
    result: dict[str, Any] = {**provenance("benchmarks.dsa_paper"), "heads": HEADS, "k": size.k, "cache": cache_bytes()}
    for phase, curve in (("prefill", prefill), ("decode", decode)):
        points, state = curve(size)
        dense = {p["position"]: min(p[name] for name in p if name.startswith("dense")) for p in points}
        result[phase] = {
            "points": points,
            "tokens_at_once": size.chunk if phase == "prefill" else size.batch,
            "dense_kernels": state,
            "crossover": crossover([(p["position"], dense[p["position"]], p["dsa"]) for p in points]),
            "ratio_at_longest": dense[points[-1]["position"]] / points[-1]["dsa"],
        }
        free_memory()
    return result


def prefill(size: Size) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Microseconds per token of a chunk of queries that ends at each position."""
    longest, chunk = max(size.positions), size.chunk
    index_q, index_k, weights = inputs.index_inputs(chunk, longest, INDEX_HEADS, INDEX_DIM, device())
    (q8, q_scale), (k8, k_scale) = quantize_fp8(index_q), quantize_fp8(index_k)
    weights = weights * q_scale
    q, kv = normal(chunk, HEADS, DIM, device=device()), normal(longest, DIM, device=device())
    wide_q, wide_k = (normal(n, HEADS, NOPE + ROPE, device=device()) for n in (chunk, longest))
    wide_v = normal(longest, HEADS, VALUE, device=device())
    contenders = {"FlashAttention-3": rivals.flash_attention_3, "FlashAttention-2": flash_attention_2}
    make, state = first_that_starts({n: partial(c, wide_q, wide_k, wide_v, SCALE) for n, c in contenders.items()})

    def calls_at(n: int) -> Calls:
        starts, ends = inputs.causal_ranges(chunk, n, device())
        calls = dsa_calls(
            index=lambda: indexer_logits_fp8(q8, k8[:n], k_scale[:n], weights, starts, ends),
            select=lambda scores: topk_rows(scores, size.k, starts, ends),
            attend=lambda chosen: sparse_mla_attention(q, kv[:n], chosen, SCALE, LATENT)[0],
        )
        if make:
            calls[f"dense, {make}"] = contenders[make](wide_q, wide_k[:n], wide_v[:n], SCALE)
        return calls

    return [point(position, chunk, calls_at(position)) for position in size.positions], state


def decode(size: Size) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Microseconds per token of a batch of sequences that are all at one position."""
    longest, batch = max(size.positions), size.batch
    index_q, _, weights = inputs.index_inputs(batch, 1, INDEX_HEADS, INDEX_DIM, device())
    (q8, q_scale), (k8, k_scale) = (
        quantize_fp8(index_q),
        quantize_fp8(normal(batch, longest, INDEX_DIM, device=device())),
    )
    weights = weights * q_scale
    q, cache = normal(batch, HEADS, DIM, device=device()), normal(batch, longest, DIM, device=device())
    packed = quantize_latent(cache.view(-1, DIM), LATENT)
    slots = torch.arange(batch, dtype=torch.int32, device=device())
    zero, first = torch.zeros_like(slots), slots * longest
    state: dict[str, str] = {}

    def calls_at(n: int) -> Calls:
        lengths = torch.full_like(slots, n)

        def select(scores: Tensor) -> Tensor:
            chosen = topk_rows(scores, size.k, zero, lengths)
            return torch.where(chosen >= 0, chosen + first.unsqueeze(1), -1)

        calls = dsa_calls(
            index=lambda: indexer_logits_decode(q8, k8, weights, slots, lengths, n, k_scale),
            select=select,
            attend=lambda chosen: sparse_mla_decode(q, packed, chosen, SCALE, LATENT)[0],
        )
        dense = {
            "FlashMLA": partial(rivals.flashmla_dense_decode, q, cache, lengths, SCALE, LATENT),
            "ours BF16": partial(own_dense_decode, q, cache.view(-1, DIM), first, lengths, n),
            "ours FP8": partial(own_dense_decode, q, packed, first, lengths, n),
        }
        for name, make in dense.items():
            call, why = rivals.start(make)
            state[name] = why or "measured"
            if call:
                calls[f"dense, {name}"] = call
        return calls

    return [point(position, batch, calls_at(position)) for position in size.positions], state


def dsa_calls(
    index: Callable[..., Tensor], select: Callable[..., Tensor], attend: Callable[..., Tensor]
) -> dict[str, Callable[[], Any]]:
    """The three parts of DSA, each on what the one before it gave, and all of them in a row."""
    with torch.no_grad():
        scores = index()
        chosen = select(scores)
        attend(chosen)
    parts: Calls = {
        "indexer": index,
        "top-k": partial(select, scores),
        "attention": partial(attend, chosen),
        "dsa": lambda: attend(select(index())),
    }
    return {name: torch.no_grad()(call) for name, call in parts.items()}


def point(position: int, tokens: int, calls: Calls) -> dict[str, Any]:
    """Microseconds per token of every call at one position."""
    for call in calls.values():
        call()
    ms = take_turns(calls, seconds=0.4)
    print(f"{position:>7}  " + "  ".join(f"{name} {1e3 * t / tokens:.3f}" for name, t in ms.items()), flush=True)
    return {"position": position, **{name: 1e3 * t / tokens for name, t in ms.items()}}


def first_that_starts(contenders: dict[str, Callable[[], rivals.Call]]) -> tuple[str | None, dict[str, str]]:
    """The first contender that starts, and what became of the ones before it."""
    state: dict[str, str] = {}
    for name, make in contenders.items():
        call, why = rivals.start(make)
        state[name] = why or "measured"
        if call:
            return name, state
    return None, state


def flash_attention_2(q: Tensor, k: Tensor, v: Tensor, scale: float) -> rivals.Call:
    """torch's FlashAttention-2 with the last query at the last key; v is padded to the keys' size."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.attention.bias import causal_lower_right
    from torch.nn.functional import pad, scaled_dot_product_attention

    queries, keys, values = (x.transpose(0, 1)[None] for x in (q, k, pad(v, (0, q.shape[-1] - v.shape[-1]))))
    mask = causal_lower_right(len(q), len(k))

    def call() -> Tensor:
        with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]):
            return scaled_dot_product_attention(queries, keys, values, attn_mask=mask, scale=scale)

    return call


def own_dense_decode(q: Tensor, rows: Tensor, first: Tensor, lengths: Tensor, longest: int) -> rivals.Call:
    """Our decode over every row of each sequence."""
    return lambda: dense_mla_decode(q, rows, first, first + lengths, longest, SCALE, LATENT)


def crossover(points: list[tuple[int, float, float]]) -> float | None:
    """Position from which on DSA is cheaper, by (position, dense, DSA): interpolated where log(dense / DSA) crosses 0;
    0 when it is cheaper everywhere, None when it is not at the end."""
    gains = [(position, math.log(dense / dsa)) for position, dense, dsa in points]
    if gains[-1][1] <= 0:
        return None
    for (low, before), (high, after) in reversed(list(pairwise(gains))):
        if before <= 0 < after:
            return float(low * (high / low) ** (-before / (after - before)))
    return 0.0


def cache_bytes() -> dict[str, int]:
    """Bytes of one token in one layer, from the shapes alone."""
    fp8_index = INDEX_DIM + 4
    return {
        "dense MLA, BF16": CACHE_BYTES["bf16"],
        "dense MLA, FP8": CACHE_BYTES["fp8"],
        "DSA, FP8 latent + FP8 index": CACHE_BYTES["fp8"] + fp8_index,
        "DSA, BF16 latent + FP8 index": CACHE_BYTES["bf16"] + fp8_index,
        "DSA, BF16 latent + BF16 index": CACHE_BYTES["bf16"] + 2 * INDEX_DIM,
    }


CACHE_NOTE = (
    "DSA by itself costs memory: each token has an index key beside its latent row. What saves memory is the FP8 "
    "format of the cache, which a dense model can use as well."
)


def report(result: dict[str, Any]) -> str:
    """The findings in words, and the table of cache formats in Markdown."""
    lines = [f"{result['device']}, {result['heads']} heads, k {result['k']}"]
    for phase in ("prefill", "decode"):
        found = result[phase]
        where = found["crossover"]
        at = "nowhere up to the longest" if where is None else f"from {where:.0f} tokens on" if where else "everywhere"
        longest = found["points"][-1]["position"]
        lines.append(f"{phase}: DSA is cheaper {at}; {found['ratio_at_longest']:.1f} times at {longest}")
        lines += [f"  {name}: {state}" for name, state in found["dense_kernels"].items() if state != "measured"]
    dense = result["cache"]["dense MLA, BF16"]
    lines += ["", "| cache | bytes per token and layer | against dense BF16 |", "| --- | --- | --- |"]
    lines += [f"| {name} | {count} | {100 * (count / dense - 1):+.1f} % |" for name, count in result["cache"].items()]
    return "\n".join([*lines, "", CACHE_NOTE])
