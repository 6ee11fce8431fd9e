"""Sparse MLA attention forward and decode on the GPU: error, bits, padding, compilation and graphs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from kernels.decode import dense_mla_decode, sparse_mla_decode
from kernels.quantize import dequantize_latent, quantize_latent
from kernels.sparse_mla import sparse_mla_attention

Report = Callable[[str, bool, str], None]
Pair = tuple[Tensor, Tensor]

SCALE = 192**-0.5
# Relative Frobenius error of out against float64 on the same inputs, and largest difference of lse. Half precision
# rounds the probabilities and the result.
OUT_BOUND = {torch.float32: 2e-6, torch.float16: 5e-4, torch.bfloat16: 4e-3}
LSE_BOUND = 2e-5
# Heads, latent columns, rope columns, selected keys: the 671B shape, part of it, and shapes of tiny models.
SHAPES = [(128, 512, 64, 2048), (80, 512, 64, 320), (16, 512, 64, 96), (20, 64, 16, 100), (1, 32, 16, 33)]


def check_sparse_mla(report: Report) -> None:
    """Every check of this module."""
    for check in (_forward, _decode, _dense, _bits, _poison, _compiled, _graph):
        torch.manual_seed(0)
        check(report)


def _problem(
    heads: int, value: int, rope: int, k: int, dtype: torch.dtype = torch.bfloat16, rows: int = 12
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, cache and indices: full rows, an empty one, short ones, one with padding between its keys."""
    q = torch.randn(rows, heads, value + rope, device="cuda").to(dtype)
    kv = torch.randn(4 * k, value + rope, device="cuda").to(dtype)
    order = torch.rand(rows, 4 * k, device="cuda").argsort(-1)[:, :k]
    indices = order.sort(-1).values.int()
    indices[1] = -1
    indices[2, k // 3 :] = -1
    indices[3, 1:] = -1
    indices[4, 5 : 5 + k // 2] = -1
    return q, kv, indices


def _oracle(q: Tensor, kv: Tensor, indices: Tensor, value: int) -> Pair:
    return sparse_mla_attention(q.double(), kv.double(), indices, SCALE, value, chunk=2)


def _judge(report: Report, what: str, got: Pair, want: Pair, dtype: torch.dtype) -> None:
    error = ((got[0].double() - want[0]).norm() / want[0].norm()).item()
    # Equal infinities have no difference.
    far = (got[1].double() - want[1]).masked_fill(got[1] == want[1], 0).abs().max().item()
    report(what, error < OUT_BOUND[dtype], f"error {error:.1e} < {OUT_BOUND[dtype]:.0e}")
    report(f"{what}: lse", far < LSE_BOUND, f"difference {far:.1e} < {LSE_BOUND:.0e}")


def _same(first: Pair, second: Pair) -> bool:
    return torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])


def _forward(report: Report) -> None:
    for heads, value, rope, k in SHAPES:
        for dtype in OUT_BOUND:
            q, kv, indices = _problem(heads, value, rope, k, dtype)
            got = sparse_mla_attention(q, kv, indices, SCALE, value)
            name = f"forward {heads} x ({value} + {rope}), k {k}, {str(dtype).removeprefix('torch.')}"
            _judge(report, name, got, _oracle(q, kv, indices, value), dtype)
            empty = bool((got[0][1] == 0).all()) and bool((got[1][1] == -torch.inf).all())
            report(f"{name}: an empty row", empty, "0 and -inf")


def _decode(report: Report) -> None:
    for heads, value, rope, k in SHAPES:
        for dtype in OUT_BOUND:
            q, cache, indices = _problem(heads, value, rope, k, dtype)
            name = f"decode {heads} x ({value} + {rope}), k {k}, {str(dtype).removeprefix('torch.')}"
            got = sparse_mla_decode(q, cache, indices, SCALE, value, split=64)
            _judge(report, f"{name}, splits of 64", got, _oracle(q, cache, indices, value), dtype)
            whole = sparse_mla_decode(q, cache, indices, SCALE, value, split=k)
            report(f"{name}: one split", _same(whole, sparse_mla_attention(q, cache, indices, SCALE, value)), "bits")
    for heads, value, rope, k in [(128, 512, 64, 2048), (16, 512, 64, 96), (4, 128, 16, 100)]:
        for ue8m0 in (True, False):
            q, kv, indices = _problem(heads, value, rope, k)
            packed = quantize_latent(kv, value, ue8m0)
            exact = dequantize_latent(packed, value)
            name = f"decode {heads} x ({value} + {rope}), k {k}, FP8 rows, ue8m0={ue8m0}"
            for split in (None, 64):
                got = sparse_mla_decode(q, packed, indices, SCALE, value, split)
                _judge(report, f"{name}, split {split}", got, _oracle(q, exact, indices, value), torch.bfloat16)


def _dense(report: Report) -> None:
    q, kv, _ = _problem(128, 512, 64, 2048)
    starts = torch.randint(0, 4000, (len(q),), device="cuda", dtype=torch.int32)
    ends = starts + torch.randint(0, 3000, (len(q),), device="cuda", dtype=torch.int32)
    ends[3] = starts[3]
    rows = starts[:, None] + torch.arange(3000, device="cuda", dtype=torch.int32)
    indices = rows.where(rows < ends[:, None], -1)
    for dtype in OUT_BOUND:
        name = f"dense decode, {str(dtype).removeprefix('torch.')}"
        x, cache = q.to(dtype), kv.to(dtype)
        got = dense_mla_decode(x, cache, starts, ends, 3000, SCALE, 512, 1024)
        _judge(report, name, got, _oracle(x, cache, indices, 512), dtype)
        report(
            f"{name}: as the same indices", _same(got, sparse_mla_decode(x, cache, indices, SCALE, 512, 1024)), "bits"
        )
        longer = dense_mla_decode(x, cache, starts, ends, 9000, SCALE, 512, 1024)
        report(f"{name}: under a larger bound", _same(got, longer), "bits")


def _bits(report: Report) -> None:
    # Rows enough to fill the card many times: a race may need that.
    q, kv, indices = _problem(128, 512, 64, 2048, rows=1000)
    packed = quantize_latent(kv)
    doors: dict[str, Callable[..., Pair]] = {
        "forward": partial(sparse_mla_attention, kv=kv, scale=SCALE, value_dim=512),
        "forward float32": lambda q, indices: sparse_mla_attention(
            q[..., :48].float(), kv[:, :48].float(), indices[:, :256], SCALE, 32
        ),
        "decode": partial(sparse_mla_decode, cache=kv, scale=SCALE, value_dim=512, split=512),
        "decode FP8": partial(sparse_mla_decode, cache=packed, scale=SCALE, value_dim=512),
        "decode FP8, splits": partial(sparse_mla_decode, cache=packed, scale=SCALE, value_dim=512, split=512),
    }
    for name, door in doors.items():
        first = door(q=q, indices=indices)
        report(f"{name}: 25 repeats", all(_same(first, door(q=q, indices=indices)) for _ in range(25)), "bits")
        parts = [door(q=q[i : i + 277], indices=indices[i : i + 277]) for i in range(0, len(q), 277)]
        chunked = torch.cat([out for out, _ in parts]), torch.cat([lse for _, lse in parts])
        report(f"{name}: in chunks", _same(first, chunked), "bits")
        order = torch.randperm(len(q), device="cuda")
        shuffled = door(q=q[order], indices=indices[order])
        report(f"{name}: among other rows", _same((first[0][order], first[1][order]), shuffled), "bits")
    exact = dequantize_latent(packed)
    fp8 = sparse_mla_decode(q, packed, indices, SCALE, 512, split=2048)
    report("decode FP8: as bfloat16 rows", _same(fp8, sparse_mla_decode(q, exact, indices, SCALE, 512, 2048)), "bits")


def _poison(report: Report) -> None:
    """Rows that no index names hold NaN, freed memory holds NaN: neither may be seen."""
    for heads, value, rope, dtype in ((128, 512, 64, torch.bfloat16), (4, 64, 16, torch.float32)):
        q, kv, indices = _problem(heads, value, rope, 512, dtype)
        indices = torch.where(indices >= 0, indices.clamp_min(1), -1)
        named = torch.zeros(len(kv), dtype=torch.bool, device="cuda")
        named[indices[indices >= 0].long()] = True
        clean = sparse_mla_attention(q, kv, indices, SCALE, value)
        for split in (64, 512):
            split_clean = sparse_mla_decode(q, kv, indices, SCALE, value, split)
            poisoned = kv.masked_fill(~named[:, None], torch.nan)
            torch.full((64 << 20,), torch.nan, device="cuda")
            got = sparse_mla_decode(q, poisoned, indices, SCALE, value, split)
            report(f"{heads} heads, split {split}: NaN in other rows", _same(got, split_clean), "bits")
        report(
            f"{heads} heads: NaN in other rows",
            _same(sparse_mla_attention(q, poisoned, indices, SCALE, value), clean),
            "bits",
        )


def _compiled(report: Report) -> None:
    q, kv, indices = _problem(128, 512, 64, 512)
    packed = quantize_latent(kv)

    def both(q: Tensor, kv: Tensor, packed: Tensor, indices: Tensor) -> Tensor:
        out, _ = sparse_mla_attention(q, kv, indices, SCALE, 512)
        return out + sparse_mla_decode(q, packed, indices, SCALE, 512, 128)[0]

    compiled = torch.compile(both, fullgraph=True)(q, kv, packed, indices)
    report("torch.compile, one graph", torch.equal(compiled, both(q, kv, packed, indices)), "bits")


def _graph(report: Report) -> None:
    q, kv, indices = _problem(128, 512, 64, 512)
    packed = quantize_latent(kv)
    starts, ends = torch.zeros(len(q), device="cuda").int(), torch.full((len(q),), 300, device="cuda").int()

    def step() -> list[Tensor]:
        return [
            *sparse_mla_attention(q, kv, indices, SCALE, 512),
            *sparse_mla_decode(q, packed, indices, SCALE, 512, 128),
            *dense_mla_decode(q, kv, starts, ends, 1024, SCALE, 512, 256),
        ]

    step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    q.copy_(torch.randn_like(q))
    ends.fill_(777)
    graph.replay()
    same = all(torch.equal(a, b) for a, b in zip(captured, step(), strict=True))
    report("CUDA graph, replayed on new queries and lengths", same, "bits")
