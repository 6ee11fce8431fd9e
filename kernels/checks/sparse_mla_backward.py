"""Backward of sparse MLA on the GPU: errors against float64, the same bits whatever the company, graphs and compile."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

import kernels.sparse_mla_backward_triton as body
from kernels.inverse import inverse_lists, segment_sum
from kernels.sparse_mla import sparse_mla_attention

Report = Callable[[str, bool, str], None]
# Relative Frobenius norm: the rounding of P and dS to the dtype, and of the result.
_BOUND = {torch.bfloat16: 5e-3, torch.float16: 8e-4, torch.float32: 5e-6}


def check_gradients(report: Report) -> None:
    shapes = {
        (24, 65536, 128, 2048, 512, 64): tuple(_BOUND),
        (12, 4096, 64, 512, 512, 64): (torch.bfloat16,),
        (12, 4096, 128, 32, 512, 64): (torch.bfloat16,),
        (9, 900, 20, 77, 512, 64): (torch.bfloat16, torch.float32),
        (5, 33, 1, 7, 32, 16): (torch.bfloat16, torch.float32),
    }
    for shape, dtype in ((shape, dtype) for shape, dtypes in shapes.items() for dtype in dtypes):
        q, kv, indices, grad = _case(*shape, dtype)
        scale, value_dim = shape[4] ** -0.5, shape[4]
        out, lse, expected_q, expected_kv = _float64(q, kv, indices, grad, scale, value_dim)
        _poison()
        dq, dkv = body.sparse_mla_backward(q, kv, indices, out.to(dtype), lse.float(), grad, scale, value_dim)
        errors = _error(dq, expected_q), _error(dkv, expected_kv)
        empty = (indices < 0).all(-1)
        clean = not dq[empty].any() and bool(torch.isfinite(dq).all() and torch.isfinite(dkv).all())
        name = f"gradients {str(dtype)[6:]} queries, keys, heads, k, dims {shape}"
        report(
            name,
            max(errors) < _BOUND[dtype] and clean,
            f"dq {errors[0]:.1e} dkv {errors[1]:.1e} bound {_BOUND[dtype]:.0e}",
        )


def check_bits(report: Report) -> None:
    for heads in (128, 64, 16):
        # Enough queries to fill the card: a race shows itself only there.
        q, kv, indices, grad = _case(1000, 32768, heads, 2048, 512, 64, torch.bfloat16)
        out, lse = sparse_mla_attention(q, kv, indices, 192**-0.5, 512)

        def run(rows: slice = slice(None)) -> tuple[Tensor, Tensor]:
            part = q[rows], kv, indices[rows], out[rows], lse[rows], grad[rows]  # noqa: B023
            return body.sparse_mla_backward(*part, 192**-0.5, 512)

        dq, dkv = run()
        same = sum(_equal(run(), (dq, dkv)) for _ in range(25))
        report(f"repeats bitwise, {heads} heads", same == 25, f"{same} of 25 equal")
        alone = all(torch.equal(run(rows)[0], dq[rows]) for rows in (slice(0, 1), slice(7, 8), slice(130, 257)))
        report(f"dq of a query does not depend on the others, {heads} heads", alone, "")
        kept = body._WORKSPACE_BYTES
        try:
            body._WORKSPACE_BYTES = kept // 10
            report(f"chunks of queries leave the bits, {heads} heads", _equal(run(), (dq, dkv)), "")
        finally:
            body._WORKSPACE_BYTES = kept


def check_graph_and_compile(report: Report) -> None:
    q, kv, indices, grad = _case(64, 16384, 128, 2048, 512, 64, torch.bfloat16)
    scale = 192**-0.5

    def gradients(q: Tensor, kv: Tensor) -> tuple[Tensor, ...]:
        q, kv = q.detach().requires_grad_(), kv.detach().requires_grad_()
        out, _ = sparse_mla_attention(q, kv, indices, scale, 512)
        return torch.autograd.grad(out, (q, kv), grad)

    expected = gradients(q, kv)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        gradients(q, kv)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = gradients(q, kv)
    for x in captured:
        x.fill_(torch.nan)
    graph.replay()
    report("CUDA graph of the door, forward and backward", _equal(captured, expected), "")

    q.requires_grad_(), kv.requires_grad_()
    compiled = torch.compile(lambda q, kv: sparse_mla_attention(q, kv, indices, scale, 512)[0], fullgraph=True)
    report("torch.compile of the door", _equal(torch.autograd.grad(compiled(q, kv), (q, kv), grad), expected), "")


def check_segment_sum(report: Report) -> None:
    generator = torch.Generator("cuda").manual_seed(0)
    indices = torch.randint(-1, 5000, (1024, 256), generator=generator, device="cuda").int()
    indices[:, 0] = 17  # a key that every query picks
    partials = torch.randn(1024 * 256, 128, generator=generator, device="cuda")
    expected = torch.zeros(5001, 128, dtype=torch.float64, device="cuda")
    expected.index_add_(0, indices.flatten().long().where(indices.flatten() >= 0, 5000), partials.double())

    def run(chunk: int) -> Tensor:
        out = torch.zeros(5000, 128, device="cuda")
        for i in range(0, 1024, chunk):
            segment_sum(partials[i * 256 : (i + chunk) * 256], *inverse_lists(indices[i : i + chunk], 5000), out)
        return out

    whole = run(1024)
    error = _error(whole, expected[:5000])
    report("segment sum against float64", error < 1e-6, f"{error:.1e}")
    report("segment sum: chunks leave the bits", all(torch.equal(run(c), whole) for c in (1024, 300, 64)), "")


def _case(
    queries: int, keys: int, heads: int, slots: int, value_dim: int, rope: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """q, kv, indices and the gradient of the output; rows of every length, one empty, two keys that all rows pick."""
    generator = torch.Generator("cuda").manual_seed(queries + slots)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device="cuda").to(dtype)

    order = torch.rand(queries, keys, generator=generator, device="cuda")
    order[:, : min(2, keys)] = -1
    indices = order.argsort(-1)[:, :slots].sort(-1).values.int()
    lengths = torch.randint(0, slots + 1, (queries, 1), generator=generator, device="cuda")
    lengths[0], lengths[-1] = 0, slots
    indices = indices.masked_fill(torch.arange(slots, device="cuda") >= lengths, -1)
    indices[1::2] = indices[1::2].flip(-1)  # padding in front and falling keys are right as well
    dim = value_dim + rope
    return normal(queries, heads, dim), normal(keys, dim), indices, normal(queries, heads, value_dim)


def _float64(
    q: Tensor, kv: Tensor, indices: Tensor, grad: Tensor, scale: float, value_dim: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """out, lse, dq and dkv by torch's autograd through plain softmax attention, one query at a time."""
    q64, kv64 = q.double().requires_grad_(), kv.double().requires_grad_()
    out = q64.new_zeros(*q.shape[:2], value_dim)
    lse = q64.new_full(q.shape[:2], -torch.inf)
    for t, picked in enumerate(indices):
        rows = kv64[picked[picked >= 0].long()]
        if len(rows):
            scores = q64[t] @ rows.T * scale
            attended = scores.softmax(-1) @ rows[:, :value_dim]
            attended.backward(grad[t].double())
            out[t], lse[t] = attended.detach(), scores.logsumexp(-1).detach()
    assert q64.grad is not None and kv64.grad is not None
    return out.detach(), lse.detach(), q64.grad, kv64.grad


def _poison() -> None:
    """Leaves NaN in the memory that the next allocations get."""
    for size in (1 << 20, 1 << 24, 1 << 27):
        blocks = [torch.full((size // 4,), torch.nan, device="cuda") for _ in range(4)]
        del blocks


def _error(found: Tensor, expected: Tensor) -> float:
    return float(((found.double() - expected).norm() / expected.norm()).nan_to_num(torch.inf))


def _equal(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
