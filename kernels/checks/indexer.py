"""The indexer's kernels and the FP8 quantisation on the GPU: error, bits, masks, compilation and graphs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kernels.indexer import (
    indexer_logits_backward,
    indexer_logits_decode,
    indexer_logits_fp8,
    indexer_logits_rows,
)
from kernels.quantize import dequantize_latent, hadamard_transform, quantize_fp8, quantize_latent

Report = Callable[[str, bool, str], None]

REPEATS = 25
# Relative Frobenius error against float64 on the same inputs. The FP8 tensor cores add up in fewer bits than float32.
FORWARD_BOUND = {torch.float32: 1e-6, torch.float16: 1e-6, torch.bfloat16: 1e-6, torch.float8_e4m3fn: 5e-4}
# The gradient's factor g is rounded to bfloat16 before its product, and dq is returned in the input's dtype. In float32
# what counts are the few products so close to zero that rounding puts them on the other side of the ReLU's kink.
BACKWARD_BOUND = {torch.float32: 3e-4, torch.float16: 5e-3, torch.bfloat16: 5e-3}
# (queries, keys, heads, dim); the second list is what the Hopper body takes in bfloat16 and FP8.
SHAPES = [(70, 1500, 1, 32), (65, 900, 20, 48), (257, 3001, 64, 128)]
HOPPER_SHAPES = [(130, 1111, 16, 128), (33, 500, 32, 128), (20, 300, 128, 128)]


def check_indexer(report: Report) -> None:
    """Every check of this module."""
    for check in (_quantisation, _forward, _decode, _backward, _bits, _full_card, _poison, _compiled, _graph):
        torch.manual_seed(0)
        check(report)


def _problem(rows: int, keys: int, heads: int, dim: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Two packed sequences, causal, with an empty row; the queries are the last rows of each."""
    q = torch.randn(rows, heads, dim, device="cuda").to(dtype)
    k = torch.randn(keys, dim, device="cuda").to(dtype)
    weights = torch.randn(rows, heads, device="cuda")
    row = torch.arange(rows, device="cuda")
    second = row >= rows // 3
    cut = keys // 3
    starts = torch.where(second, cut, 0).int()
    ends = torch.where(second, keys - rows + row + 1, cut - rows // 3 + row + 1).clamp_min(0).int()
    ends[rows // 2] = starts[rows // 2]
    return q, k, weights, starts, ends


def _seen(starts: Tensor, ends: Tensor, keys: int) -> Tensor:
    column = torch.arange(keys, device="cuda")
    return (column >= starts[:, None]) & (column < ends[:, None])


def _scores64(q: Tensor, k: Tensor, weights: Tensor) -> Tensor:
    return torch.einsum("mj,mjs->ms", weights.double(), (q.double() @ k.double().t()).relu())


def _error(got: Tensor, want: Tensor | None) -> float:
    assert want is not None
    return ((got.double() - want.double()).norm() / want.double().norm()).item()


def _quantisation(report: Report) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.randn(777, 5, 128, device="cuda").to(dtype)
        for ue8m0 in (True, False):
            got, want = quantize_fp8(x, ue8m0=ue8m0), quantize_fp8(x.cpu(), ue8m0=ue8m0)
            same = all(torch.equal(a.cpu().float(), b.float()) for a, b in zip(got, want, strict=True))
            report(f"quantize_fp8 {dtype} ue8m0={ue8m0}: the reference's bits", same, "")
        values, scale = quantize_fp8(x, hadamard=True)
        error = _error(hadamard_transform(values.double() * scale.double().unsqueeze(-1)), x)
        report(f"quantize_fp8 {dtype} with Hadamard, undone", error < 0.03, f"error {error:.1e} < 3e-2")
    kv = torch.randn(1001, 576, device="cuda").bfloat16()
    packed = quantize_latent(kv)
    report("quantize_latent: the reference's bytes", torch.equal(packed.cpu(), quantize_latent(kv.cpu())), "")
    error = _error(dequantize_latent(packed), kv)
    report("dequantize_latent", error < 0.03, f"error {error:.1e} < 3e-2")


def _forward(report: Report) -> None:
    for dtype, bound in FORWARD_BOUND.items():
        worst = 0.0
        shapes = SHAPES + (HOPPER_SHAPES if dtype in (torch.bfloat16, torch.float8_e4m3fn) else [])
        for shape in shapes:
            if dtype == torch.float8_e4m3fn:
                q, k, weights, starts, ends = _problem(*shape, torch.float32)
                (q, q_scale), (k, k_scale) = quantize_fp8(q), quantize_fp8(k)
                got = indexer_logits_fp8(q, k, k_scale, weights * q_scale, starts, ends)
                want = _scores64(q.float(), k.float(), weights * q_scale) * k_scale
            else:
                q, k, weights, starts, ends = _problem(*shape, dtype)
                got, want = indexer_logits_rows(q, k, weights, starts, ends), _scores64(q, k, weights)
            seen = _seen(starts, ends, len(k))
            worst = max(worst, _error(got[seen], want[seen]))
        report(f"scores {dtype}, {len(shapes)} shapes", worst <= bound, f"error {worst:.1e} <= {bound:.0e}")


def _decode(report: Report) -> None:
    batch, slots, length, heads, dim = 9, 12, 3000, 64, 128
    for dtype, bound in FORWARD_BOUND.items():
        q = torch.randn(batch, heads, dim, device="cuda")
        cache = torch.randn(slots, length, dim, device="cuda")
        weights = torch.randn(batch, heads, device="cuda")
        chosen = torch.randperm(slots, device="cuda")[:batch].int()
        lengths = torch.randint(0, length + 1, (batch,), device="cuda").int()
        lengths[0], lengths[1] = 0, length
        scale = None
        if dtype == torch.float8_e4m3fn:
            (q, q_scale), (cache, scale) = quantize_fp8(q), quantize_fp8(cache)
            weights = weights * q_scale
        else:
            q, cache = q.to(dtype), cache.to(dtype)
        got = indexer_logits_decode(q, cache, weights, chosen, lengths, length, scale)
        worst, same = 0.0, True
        for b in range(1, batch):
            n, keys = int(lengths[b]), cache[chosen[b]]
            want = _scores64(q[b : b + 1].float(), keys.float(), weights[b : b + 1])[0]
            if scale is not None:
                want = want * scale[chosen[b]].double()
            worst = max(worst, _error(got[b, :n], want[:n]))
            if dtype == torch.float32:
                at = torch.tensor([0], dtype=torch.int32, device="cuda")
                row = indexer_logits_rows(q[b : b + 1], keys, weights[b : b + 1], at, lengths[b : b + 1])[0]
                same &= torch.equal(row[:n], got[b, :n])
        report(f"decode {dtype}", worst <= bound, f"error {worst:.1e} <= {bound:.0e}")
        if dtype == torch.float32:
            report("decode float32: the bits of the row layout", same, "")


def _backward(report: Report) -> None:
    for dtype, bound in BACKWARD_BOUND.items():
        worst = 0.0
        for shape in SHAPES[1:]:
            q, k, weights, starts, ends = _problem(*shape, dtype)
            seen = _seen(starts, ends, len(k))
            grad = torch.randn(len(q), len(k), device="cuda").masked_fill(~seen, torch.nan)
            dk = torch.ones(k.shape, device="cuda")
            dq, _, dw = indexer_logits_backward(grad, q, k, weights, starts, ends, dk)
            q64, k64, w64 = (x.double().requires_grad_() for x in (q, k, weights))
            (_scores64(q64, k64, w64) * grad.nan_to_num(0).double()).sum().backward()
            for got, want in ((dq, q64.grad), (dk - 1, k64.grad), (dw, w64.grad)):
                worst = max(worst, _error(got, want))
        report(f"gradient {dtype}, {len(SHAPES) - 1} shapes", worst <= bound, f"error {worst:.1e} <= {bound:.0e}")


def _bits(report: Report) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        q, k, weights, starts, ends = _problem(300, 2500, 64, 128, dtype)
        grad = torch.randn(300, 2500, device="cuda")
        seen = _seen(starts, ends, 2500)
        for fp8 in (False, True):
            name = f"{'fp8 of ' if fp8 else ''}{dtype}"
            whole = indexer_logits_rows(q, k, weights, starts, ends, fp8=fp8)[seen]
            repeats = all(
                torch.equal(indexer_logits_rows(q, k, weights, starts, ends, fp8=fp8)[seen], whole)
                for _ in range(REPEATS)
            )
            report(f"scores {name}: {REPEATS} repeats bitwise", repeats, "")
            same = True
            for size in (1, 7, 128):
                parts = [
                    indexer_logits_rows(
                        q[i : i + size], k, weights[i : i + size], starts[i : i + size], ends[i : i + size], fp8
                    )
                    for i in range(0, 300, size)
                ]
                same &= torch.equal(torch.cat(parts)[seen], whole)
            shifted = indexer_logits_rows(q, k[13:], weights, (starts - 13).clamp_min(0), (ends - 13).clamp_min(0), fp8)
            same &= torch.equal(
                shifted[seen[:, 13:]], indexer_logits_rows(q, k, weights, starts, ends, fp8)[:, 13:][seen[:, 13:]]
            )
            report(f"scores {name}: any chunk of rows or keys, bitwise", same, "")
        first = indexer_logits_backward(grad, q, k, weights, starts, ends)
        repeats = True
        for _ in range(REPEATS):
            again = indexer_logits_backward(grad, q, k, weights, starts, ends)
            repeats &= all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
        report(f"gradient {dtype}: {REPEATS} repeats bitwise", repeats, "")
        rows = slice(77, 200)
        dq, _, dw = indexer_logits_backward(grad[rows], q[rows], k, weights[rows], starts[rows], ends[rows])
        same = torch.equal(dq, first[0][rows]) and torch.equal(dw, first[2][rows])
        report(f"gradient of rows {dtype}: any chunk, bitwise", same, "")


def _full_card(report: Report) -> None:
    """A race between programs or stages shows when every multiprocessor is busy."""
    q = torch.randn(512, 64, 128, device="cuda").bfloat16()
    k = torch.randn(65536, 128, device="cuda").bfloat16()
    weights = torch.randn(512, 64, device="cuda")
    starts = torch.zeros(512, dtype=torch.int32, device="cuda")
    ends = torch.full_like(starts, len(k))
    for fp8 in (False, True):
        first = indexer_logits_rows(q, k, weights, starts, ends, fp8=fp8)
        same = all(
            torch.equal(indexer_logits_rows(q, k, weights, starts, ends, fp8=fp8), first) for _ in range(REPEATS)
        )
        report(f"scores {'fp8 of ' if fp8 else ''}bfloat16, 512 x 65536: {REPEATS} repeats bitwise", same, "")
    grad = first.bfloat16()
    made = indexer_logits_backward(grad, q, k, weights, starts, ends)
    same = True
    for _ in range(REPEATS):
        again = indexer_logits_backward(grad, q, k, weights, starts, ends)
        same &= all(torch.equal(a, b) for a, b in zip(made, again, strict=True))
    report(f"gradient bfloat16, 512 x 65536: {REPEATS} repeats bitwise", same, "")


def _poison(report: Report) -> None:
    """Memory that nobody wrote holds NaN: none may reach what a caller reads."""
    was = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        for dtype in (torch.float32, torch.bfloat16):
            q, k, weights, starts, ends = _problem(257, 3001, 64, 128, dtype)
            seen = _seen(starts, ends, 3001)
            clean = True
            for fp8 in (False, True):
                clean &= bool(indexer_logits_rows(q, k, weights, starts, ends, fp8=fp8)[seen].isfinite().all())
            grad = torch.randn(257, 3001, device="cuda").masked_fill(~seen, torch.nan)
            clean &= all(bool(x.isfinite().all()) for x in indexer_logits_backward(grad, q, k, weights, starts, ends))
            report(f"poisoned memory {dtype}", clean, "")
    finally:
        torch.use_deterministic_algorithms(was)


def _compiled(report: Report) -> None:
    q, k, weights, starts, ends = _problem(100, 1000, 64, 128, torch.bfloat16)
    seen = _seen(starts, ends, 1000)

    def loss(q: Tensor, k: Tensor, weights: Tensor) -> Tensor:
        return indexer_logits_rows(q, k, weights, starts, ends, fp8=True).masked_fill(~seen, 0).square().mean()

    results = []
    for function in (loss, torch.compile(loss, fullgraph=True)):
        inputs = [x.clone().requires_grad_() for x in (q, k, weights)]
        value = function(*inputs)
        results.append((value.detach(), *torch.autograd.grad(value, inputs)))
    worst = max(_error(a, b) for a, b in zip(*results, strict=True))
    report("torch.compile, forward and gradient", worst < 1e-2, f"difference {worst:.1e}")


def _graph(report: Report) -> None:
    q, k, weights, starts, ends = _problem(100, 1000, 64, 128, torch.bfloat16)
    cache, scale = quantize_fp8(torch.randn(4, 500, 128, device="cuda"))
    slots = torch.arange(4, device="cuda").int()
    lengths = torch.full((4,), 500, device="cuda").int()

    def work() -> list[Tensor]:
        scores = indexer_logits_rows(q, k, weights, starts, ends)
        q8, q_scale = quantize_fp8(q[:4])
        decoded = indexer_logits_decode(q8, cache, weights[:4] * q_scale, slots, lengths, 500, scale)
        return [scores, decoded, *indexer_logits_backward(scores, q, k, weights, starts, ends)]

    seen = _seen(starts, ends, 1000)
    work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = work()
    q.copy_(torch.randn_like(q))
    graph.replay()
    got = [x.clone() for x in captured]
    want = work()
    same = torch.equal(got[0][seen], want[0][seen])
    same &= all(torch.equal(a, b) for a, b in zip(got[1:], want[1:], strict=True))
    report("CUDA graph replayed on new queries, bitwise", same, "")
