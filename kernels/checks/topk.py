"""The top-k kernel on the GPU: the exact set of nasty rows, bits, ranges, compilation and graphs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kernels.topk import topk_rows

Report = Callable[[str, bool, str], None]


def check_topk(report: Report) -> None:
    """Every check of this module."""
    for check in (_sets, _long_rows, _bits, _compiled, _graph):
        torch.manual_seed(0)
        check(report)


def _missed(rows: int, columns: int) -> Tensor:
    """High scores where the kernel's sample looks (16 neighbours at 256 even places) and nowhere else."""
    scores = torch.randn(rows, columns, device="cuda")
    scores[:, torch.arange(256, device="cuda") * columns // 256 // 16 * 16] += 100
    return scores


ROWS: dict[str, Callable[[int, int], Tensor]] = {
    "normal": lambda m, n: torch.randn(m, n, device="cuda"),
    "60 % zeros of both signs": lambda m, n: torch.where(
        torch.rand(m, n, device="cuda") < 0.6,
        torch.randn(m, n, device="cuda").sign() * 0.0,
        torch.rand(m, n, device="cuda"),
    ),
    "99 % zeros": lambda m, n: (torch.randn(m, n, device="cuda") - 2.33).relu(),
    "all equal": lambda m, n: torch.full((m, n), -1.5, device="cuda"),
    "two values": lambda m, n: (torch.randn(m, n, device="cuda") > 2.3).float(),
    "small integers": lambda m, n: torch.randint(-30, 30, (m, n), device="cuda").float(),
    "ascending": lambda m, n: torch.randn(m, n, device="cuda").sort(-1).values,
    "descending": lambda m, n: torch.randn(m, n, device="cuda").sort(-1, descending=True).values,
    "high at the sampled places only": _missed,
    "mostly -inf": lambda m, n: torch.randn(m, n, device="cuda").masked_fill(
        torch.rand(m, n, device="cuda") < 0.99, -torch.inf
    ),
    "smallest numbers": lambda m, n: torch.randint(-3, 4, (m, n), device="cuda") * 1.4e-45,
}


def _ranges(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Whole rows, ragged ones, short ones and an empty one."""
    starts = torch.randint(0, columns // 3, (rows,), device="cuda").int()
    ends = torch.randint(2 * columns // 3, columns + 1, (rows,), device="cuda").int()
    starts[0], ends[0] = 0, columns
    starts[1], ends[1] = columns, columns
    ends[2] = starts[2] + 100
    return starts, ends


def _poisoned(scores: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
    column = torch.arange(scores.shape[1], device="cuda")
    return scores.masked_fill((column < starts[:, None]) | (column >= ends[:, None]), torch.nan)


def _same_as_reference(scores: Tensor, k: int, starts: Tensor, ends: Tensor) -> bool:
    scores = _poisoned(scores, starts, ends)
    # float64 goes to the reference: a stable sort.
    return torch.equal(topk_rows(scores, k, starts, ends), topk_rows(scores.double(), k, starts, ends))


def _sets(report: Report) -> None:
    for name, make in ROWS.items():
        same = True
        for columns, k in ((40_000, 2048), (40_001, 2048), (9_000, 2048), (70_000, 64), (30_000, 1), (30_000, 4096)):
            same &= _same_as_reference(make(12, columns), k, *_ranges(12, columns))
        report(f"top-k of rows: {name}", same, "6 shapes against a stable sort in float64")


def _long_rows(report: Report) -> None:
    scores = torch.randn(3, 2**20, device="cuda")
    report("top-k of a million columns", _same_as_reference(scores, 2048, *_ranges(3, 2**20)), "")
    # Beyond 2^31 elements, where offsets of 32 bits wrap around.
    scores = torch.randn(17_000, 131_072, device="cuda")
    starts = torch.zeros(17_000, dtype=torch.int32, device="cuda")
    ends = torch.full_like(starts, 131_072)
    got = topk_rows(scores, 2048, starts, ends)[-3:]
    want = topk_rows(scores[-3:].double(), 2048, starts[-3:], ends[-3:])
    report("top-k beyond 2^31 scores", torch.equal(got, want), "")


def _bits(report: Report) -> None:
    scores = torch.randn(700, 50_000, device="cuda").sub_(1).relu_()
    starts, ends = _ranges(700, 50_000)
    first = topk_rows(scores, 2048, starts, ends)
    report("top-k: 25 repeats", all(torch.equal(topk_rows(scores, 2048, starts, ends), first) for _ in range(25)), "")
    same = True
    for size in (1, 7, 256):
        parts = [
            topk_rows(scores[i : i + size], 2048, starts[i : i + size], ends[i : i + size]) for i in range(0, 700, size)
        ]
        same &= torch.equal(torch.cat(parts), first)
    shifted = topk_rows(scores[:, 3:], 2048, (starts - 3).clamp_min(0), ends - 3)
    same &= torch.equal(shifted[starts >= 3] + 3 * (shifted[starts >= 3] >= 0), first[starts >= 3])
    report("top-k: any chunk of rows, any alignment", same, "")


def _compiled(report: Report) -> None:
    scores = torch.randn(64, 20_000, device="cuda")
    starts, ends = _ranges(64, 20_000)
    compiled = torch.compile(lambda s: topk_rows(s, 512, starts, ends) + 1, fullgraph=True)
    report("top-k under torch.compile", torch.equal(compiled(scores), topk_rows(scores, 512, starts, ends) + 1), "")


def _graph(report: Report) -> None:
    scores = torch.randn(64, 20_000, device="cuda")
    starts, ends = _ranges(64, 20_000)
    topk_rows(scores, 512, starts, ends)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = topk_rows(scores, 512, starts, ends)
    scores.normal_()
    graph.replay()
    report("top-k in a CUDA graph", torch.equal(out, topk_rows(scores, 512, starts, ends)), "")
