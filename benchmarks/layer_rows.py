"""A whole attention layer at 32K to 128K: indexer, top-k and sparse MLA against dense causal attention in its MHA form.

One sequence, 128 heads, everything from the queries and keys on: projections are left out on both sides, and so is the
indexer's own loss, which RL does not train. The index queries and keys are quantised inside the timed call.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import torch
from torch import Tensor

from benchmarks import inputs, oracles, rivals
from benchmarks.inputs import DIM, INDEX_DIM, INDEX_HEADS, LATENT, NOPE, ROPE, SCALE, VALUE, normal
from benchmarks.rivals import Call
from benchmarks.row import Goal, Row, Size
from benchmarks.timing import device, free_memory, take_turns

HEADS = 128
QUERY_CHUNK = 4096  # index scores that exist at one time: 2 GiB at 128K
HEAD_GROUP = 32  # heads of one dense call: more than 2^31 elements in one tensor break some kernels at 128K
DENSE_TRIAL = 8192  # tokens at which the dense contenders are compared
DENSE: dict[str, Callable[[Tensor, Tensor, Tensor, float], Call]] = {
    "FlashAttention-4": rivals.flash_attention_4,
    "cuDNN": rivals.cudnn_attention,
    "FlashAttention-2": rivals.torch_flash_attention,
}
"""Dense attention that has a backward pass, too."""


def select(q: Tensor, k: Tensor, weights: Tensor, count: int) -> Tensor:
    """[L, count] int32: the keys of every query of one causal sequence, by FP8 index scores."""
    from kernels.indexer import indexer_logits_fp8
    from kernels.quantize import quantize_fp8
    from kernels.topk import topk_rows

    (q8, q_scale), (k8, k_scale) = quantize_fp8(q), quantize_fp8(k)
    starts, ends = inputs.causal_ranges(len(q), len(k), q.device)
    weights = weights * q_scale
    chosen = torch.empty(len(q), count, dtype=torch.int32, device=q.device)
    for first in range(0, len(q), QUERY_CHUNK):
        rows, last = slice(first, first + QUERY_CHUNK), min(first + QUERY_CHUNK, len(k))
        scores = indexer_logits_fp8(q8[rows], k8[:last], k_scale[:last], weights[rows], starts[rows], ends[rows])
        chosen[rows] = topk_rows(scores, count, starts[rows], ends[rows])
    return chosen


def training(size: Size, length: int) -> Row:
    """Forward and backward."""
    from kernels.sparse_mla import sparse_mla_attention

    index = inputs.index_inputs(length, length, INDEX_HEADS, INDEX_DIM, device())
    q, kv = normal(length, HEADS, DIM, device=device()), normal(length, DIM, device=device())
    upstream = normal(length, HEADS, LATENT, device=device())
    q.requires_grad_()
    kv.requires_grad_()

    def ours() -> tuple[Tensor, ...]:
        out, _ = sparse_mla_attention(q, kv, select(*index, size.k), SCALE, LATENT)
        return out.detach(), *torch.autograd.grad(out, (q, kv), upstream)

    longest = length == max(size.layer_lengths)
    name, make = fastest_dense()
    return Row(
        f"layer, training, {length}",
        f"indexer FP8, top-k {size.k}, sparse MLA, {HEADS} heads, forward + backward",
        "TFLOPS",
        _sparse_flop(length, size.k) + 2.0 * length * size.k * HEADS * (3 * DIM + 2 * LATENT),
        "bf16",
        ours=ours,
        error=lambda results: _error(results[0], q.detach(), kv.detach(), index, size),
        rivals={name: partial(_dense_training, make, length)} if make else {},
        must=Goal("ratio", 3.0) if longest else None,
        aim=Goal("ratio", 6.0) if longest else None,
        same_output=False,
    )


def inference(size: Size, length: int) -> Row:
    """Forward alone: a prefill."""
    from kernels.sparse_mla import sparse_mla_attention

    index = inputs.index_inputs(length, length, INDEX_HEADS, INDEX_DIM, device())
    q, kv = normal(length, HEADS, DIM, device=device()), normal(length, DIM, device=device())

    @torch.no_grad()
    def ours() -> Tensor:
        return sparse_mla_attention(q, kv, select(*index, size.k), SCALE, LATENT)[0]

    def dense() -> Call:
        q, k, v = (normal(length, HEADS, width, device=device()) for width in (NOPE + ROPE, NOPE + ROPE, VALUE))
        return rivals.flash_attention_3(q, k, v, SCALE)

    return Row(
        f"layer, prefill, {length}",
        f"indexer FP8, top-k {size.k}, sparse MLA, {HEADS} heads, forward",
        "TFLOPS",
        _sparse_flop(length, size.k),
        "bf16",
        ours=ours,
        error=lambda out: _error(out, q, kv, index, size),
        rivals={"FlashAttention-3": dense},
        same_output=False,
    )


@cache
def dense_times() -> dict[str, float | str]:
    """Milliseconds of forward and backward of each dense contender at 8K tokens, or why it does not start."""
    found: dict[str, float | str] = {}
    calls = {}
    for name, make in DENSE.items():
        call, why = rivals.start(partial(_dense_training, make, DENSE_TRIAL if torch.cuda.is_available() else 64))
        if call is None:
            found[name] = why
        else:
            calls[name] = call
    found |= take_turns(calls) if calls else {}
    calls.clear()
    free_memory()
    return found


def fastest_dense() -> tuple[str, Callable[..., Call] | None]:
    """The dense contender that long sequences are compared with."""
    times = {name: ms for name, ms in dense_times().items() if isinstance(ms, float)}
    return (name := min(times, key=lambda n: times[n]), DENSE[name]) if times else ("none", None)


def _dense_training(make: Callable[..., Call], length: int) -> Call:
    """Forward and backward of causal MHA, 192 and 128 wide, in groups of heads."""
    widths = NOPE + ROPE, NOPE + ROPE, VALUE
    groups = []
    for _ in range(HEADS // HEAD_GROUP):
        qkv = [normal(length, HEAD_GROUP, width, device=device()).requires_grad_() for width in widths]
        groups.append((make(*qkv, SCALE), qkv, normal(length, HEAD_GROUP, VALUE, device=device())))

    def call() -> list[tuple[Tensor, ...]]:
        return [torch.autograd.grad(forward(), qkv, upstream) for forward, qkv, upstream in groups]

    return call


def _sparse_flop(length: int, k: int) -> float:
    return length * (length + 1) * INDEX_HEADS * INDEX_DIM + 2.0 * length * k * HEADS * (DIM + LATENT)


def _error(out: Tensor, q: Tensor, kv: Tensor, index: tuple[Tensor, Tensor, Tensor], size: Size) -> float:
    """Of the attention over the keys that were selected; which ones they are is the top-k's own row."""
    rows = torch.linspace(0, len(q) - 1, size.checked, device=q.device).long()
    chosen = select(*index, size.k)[rows]
    return oracles.relative_error(out[rows], oracles.sparse_attention(q[rows], kv, chosen, SCALE, LATENT))


def layer_rows(size: Size) -> dict[str, Callable[[Size], Row]]:
    """Rows at the size's lengths: the prefill at the longest, training at all."""
    rows: dict[str, Callable[[Size], Row]] = {
        f"layer_training_{length}": partial(training, length=length) for length in size.layer_lengths
    }
    longest = max(size.layer_lengths)
    return rows | {f"layer_prefill_{longest}": partial(inference, length=longest)}
