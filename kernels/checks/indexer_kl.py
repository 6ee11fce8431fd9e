"""The indexer's loss, dense and sparse, and the dense attention whose lse it takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from kernels import kl_rows
from kernels.dense_mla import dense_mla_attention
from kernels.kl_rows import head_summed_target_rows, indexer_kl_rows, sparse_indexer_kl_rows

Report = Callable[[str, bool, str], None]
# Relative Frobenius error against float64. Gradients leave in the dtype of what they belong to, and half precision
# multiplies dI in bfloat16.
BOUNDS = {torch.float32: 2e-5, torch.float16: 5e-3, torch.bfloat16: 5e-3}
REPEATS = 25


def check_dense(report: Report) -> None:
    for dtype, heads, nope, rope, index in (
        (torch.bfloat16, 128, 128, 64, (64, 128)),
        (torch.float16, 20, 128, 64, (64, 128)),
        (torch.bfloat16, 4, 48, 16, (4, 32)),
        (torch.float32, 16, 64, 32, (8, 64)),
    ):
        name = f"dense KL {_name(dtype)} {heads} heads {nope}+{rope}"
        inputs, main, valid = _dense_problem(dtype, heads, nope, rope, *index, lengths=(300, 1, 130, 181))
        ours = _loss(indexer_kl_rows, inputs, main, valid)
        _compare(report, name, dtype, ours, _exact(indexer_kl_rows, inputs, main, valid))
        target = head_summed_target_rows(*main)
        sums = target.sum(-1)
        off = (sums - (main[5] > main[4]).float()).abs().max().item()
        report(f"{name}: a row of the target sums to 1", off < 1e-4, f"off by {off:.1e}")
        q, k_nope, k_rope, lse, starts, ends, scale = main
        rows = slice(500, 501)
        one = head_summed_target_rows(q[rows], k_nope, k_rope, lse[rows], starts[rows], ends[rows], scale)
        report(f"{name}: a row alone has the same bits", torch.equal(one[0], target[500]), "")
        _invariances(report, name, indexer_kl_rows, inputs, main, valid, "CHUNK_ELEMENTS", 100 * len(main[1]))
    _check_compiled(report, name, indexer_kl_rows, inputs, main)


def check_sparse(report: Report) -> None:
    for dtype, heads, dim, index, k in (
        (torch.bfloat16, 128, 576, (64, 128), 512),
        (torch.float16, 20, 576, (64, 128), 96),
        (torch.bfloat16, 64, 576, (32, 128), 256),
        (torch.bfloat16, 4, 48, (4, 32), 32),
        (torch.float32, 16, 80, (8, 64), 64),
    ):
        name = f"sparse KL {_name(dtype)} {heads} heads of {dim}, k {k}"
        inputs, main, valid = _sparse_problem(dtype, heads, dim, *index, k, rows=300, keys=2000)
        ours = _loss(sparse_indexer_kl_rows, inputs, main, valid)
        _compare(report, name, dtype, ours, _exact(sparse_indexer_kl_rows, inputs, main, valid))
        elements = 100 * k * index[1]
        _invariances(report, name, sparse_indexer_kl_rows, inputs, main, valid, "PARTIAL_ELEMENTS", elements)
    _check_compiled(report, name, sparse_indexer_kl_rows, inputs, main)
    _check_all_selected(report)


def check_dense_attention(report: Report) -> None:
    for dtype, heads, dims, groups in (
        (torch.bfloat16, 16, (128, 64, 128), [(1, 4096), (2, 130)]),
        (torch.bfloat16, 4, (32, 16, 32), [(3, 130, 33), (1, 7, 7), (2, 65)]),
        (torch.float32, 4, (32, 16, 32), [(3, 130, 33), (1, 1), (2, 65)]),
    ):
        name = f"dense attention {_name(dtype)} {heads} heads {dims} groups {groups}"
        torch.manual_seed(0)
        queries = sum(n * (length - sum(rest)) for n, length, *rest in groups)
        keys = sum(n * length for n, length, *_ in groups)
        nope, rope, value = dims
        shapes = (queries, heads, nope + rope), (keys, heads, nope), (keys, rope), (keys, heads, value)
        inputs = _randn(dtype, *shapes)
        weights, scale = torch.randn(queries, heads, value, device="cuda", dtype=dtype), (nope + rope) ** -0.5
        ours = _attention(inputs, weights, groups, scale)
        exact = _attention([x.double() for x in inputs], weights.double(), groups, scale)
        errors = _errors(ours, exact)
        report(name, max(errors) < BOUNDS[dtype], f"out, lse, gradients off by {_show(errors)}")
        torch.use_deterministic_algorithms(True, warn_only=True)
        first = _attention(inputs, weights, groups, scale)
        same = all(_same(first, _attention(inputs, weights, groups, scale)) for _ in range(REPEATS))
        torch.use_deterministic_algorithms(False)
        errors = _errors(first, exact)
        ok = same and max(errors) < BOUNDS[dtype]
        report(f"{name}: {REPEATS} deterministic repeats", ok, f"off by {_show(errors)}")


def _dense_problem(
    dtype: torch.dtype, heads: int, nope: int, rope: int, index_heads: int, index_dim: int, lengths: Sequence[int]
) -> tuple[list[Tensor], tuple, Tensor]:
    """Index inputs, then the arguments of the door behind them: packed sequences, one row of them empty; and valid."""
    torch.manual_seed(heads)
    count = sum(lengths)
    firsts = torch.repeat_interleave(torch.tensor([0, *lengths[:-1]]).cumsum(0), torch.tensor(lengths))
    starts, ends = firsts.int().cuda(), torch.arange(1, count + 1, dtype=torch.int32).cuda()
    ends[33] = starts[33]
    q, k_nope, k_rope = _randn(dtype, (count, heads, nope + rope), (count, heads, nope), (count, rope))
    scale = (nope + rope) ** -0.5
    s = torch.arange(count, device="cuda")
    hidden = (s < starts.unsqueeze(1)) | (s >= ends.unsqueeze(1))
    lse = torch.empty(count, heads, device="cuda")
    for head in range(heads):
        keys = torch.cat([k_nope[:, head], k_rope], -1).double()
        lse[:, head] = (q[:, head].double() @ keys.T * scale).masked_fill(hidden, -torch.inf).logsumexp(-1).float()
    main = (q, k_nope, k_rope, lse, starts, ends, scale)
    return _index_inputs(dtype, count, count, index_heads, index_dim), main, s % 11 != 3


def _sparse_problem(
    dtype: torch.dtype, heads: int, dim: int, index_heads: int, index_dim: int, k: int, rows: int, keys: int
) -> tuple[list[Tensor], tuple, Tensor]:
    torch.manual_seed(heads)
    indices = torch.rand(rows, keys, device="cuda").topk(k).indices.sort().values.int()
    counts = torch.randint(1, k + 1, (rows,), device="cuda")
    counts[0], counts[1] = k, 0
    indices[torch.arange(k, device="cuda") >= counts.unsqueeze(1)] = -1
    q, kv = _randn(dtype, (rows, heads, dim), (keys, dim))
    scale = dim**-0.5
    scores = torch.einsum("mhd,mkd->mhk", q.double(), kv.double()[indices.clamp_min(0).long()]) * scale
    lse = scores.masked_fill((indices < 0).unsqueeze(1), -torch.inf).logsumexp(-1).float()
    valid = torch.arange(rows, device="cuda") % 11 != 3
    return _index_inputs(dtype, rows, keys, index_heads, index_dim), (q, kv, lse, indices, scale), valid


def _check_all_selected(report: Report) -> None:
    """With every visible key selected both stages are one loss."""
    heads, nope, rope, latent = 4, 32, 16, 64
    inputs, main, _ = _dense_problem(torch.float32, heads, nope, rope, 4, 32, lengths=(200,))
    q, _, k_rope, _, starts, ends, scale = main
    latents, up = _randn(torch.float32, (200, latent), (heads, nope, latent))
    k_nope = torch.einsum("sl,hdl->shd", latents.double(), up.double() / latent**0.5)
    absorbed = torch.einsum("mhd,hdl->mhl", q[..., :nope].double(), up.double() / latent**0.5)
    lse = dense_mla_attention(q.double(), k_nope, k_rope.double(), k_nope, [(1, 200)], scale)[1]
    lse[33] = -torch.inf  # the empty row
    dense = _loss(indexer_kl_rows, inputs, (q, k_nope.float(), k_rope, lse.float(), starts, ends, scale), None)
    s = torch.arange(200, device="cuda", dtype=torch.int32)
    indices = s.where(s < ends.unsqueeze(1), -1)
    indices[33] = -1
    query = torch.cat([absorbed.float(), q[..., nope:]], -1)
    main = (query, torch.cat([latents, k_rope], -1), lse.float(), indices, scale)
    errors = _errors(_loss(sparse_indexer_kl_rows, inputs, main, None), dense)
    report("all keys selected: the sparse loss is the dense one", max(errors) < 1e-4, f"off by {_show(errors)}")


def _invariances(
    report: Report, name: str, door: Callable, inputs: list[Tensor], main: tuple, valid: Tensor, chunk: str, small: int
) -> None:
    ours = _loss(door, inputs, main, valid)
    same = all(_same(ours, _loss(door, inputs, main, valid)) for _ in range(REPEATS))
    report(f"{name}: {REPEATS} repeats", same, "")

    torch.use_deterministic_algorithms(True, warn_only=True)  # fills what is allocated with NaN
    poisoned = _same(ours, _loss(door, inputs, main, valid))
    torch.use_deterministic_algorithms(False)
    report(f"{name}: nothing read that was not written", poisoned, "")

    usual = getattr(kl_rows, chunk)
    setattr(kl_rows, chunk, small)
    cut = _loss(door, inputs, main, valid)
    setattr(kl_rows, chunk, usual)
    same = _same([ours[0], ours[1], ours[3]], [cut[0], cut[1], cut[3]])
    keys = _errors(cut[2:3], ours[2:3])
    report(f"{name}: chunks of 100 rows", same and keys[0] < BOUNDS[inputs[1].dtype], f"dk off by {_show(keys)}")

    with torch.no_grad():
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
        with torch.cuda.graph(graph, stream=stream):
            captured = door(*inputs, *main, valid)
        graph.replay()
    report(f"{name}: in a CUDA graph", torch.equal(captured, ours[0]), "")


def _check_compiled(report: Report, name: str, door: Callable, inputs: list[Tensor], main: tuple) -> None:
    compiled = _loss(torch.compile(door, fullgraph=True), inputs, main, None)
    report(f"{name}: compiled by torch", _same(compiled, _loss(door, inputs, main, None)), "")


def _loss(door: Callable, inputs: Sequence[Tensor], main: tuple, valid: Tensor | None) -> list[Tensor]:
    """The loss and its gradients."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    loss = door(*leaves, *main, valid)
    return [loss.detach(), *torch.autograd.grad(loss, leaves)]


def _exact(door: Callable, inputs: Sequence[Tensor], main: tuple, valid: Tensor) -> list[Tensor]:
    """`_loss` by the reference in float64."""
    wide = [x.double() if x.is_floating_point() else x for x in main[:-1]]
    return _loss(door, [x.double() for x in inputs], (*wide, main[-1]), valid)


def _attention(
    inputs: Sequence[Tensor], weights: Tensor, groups: Sequence[tuple[int, ...]], scale: float
) -> list[Tensor]:
    """Output and lse of dense attention, and the gradients of the weighted sum of the output."""
    q, k_nope, k_rope, v = leaves = [x.detach().requires_grad_() for x in inputs]
    out, lse = dense_mla_attention(q, k_nope, k_rope, v, groups, scale)
    return [out.detach(), lse, *torch.autograd.grad(out, leaves, weights)]


def _compare(report: Report, name: str, dtype: torch.dtype, ours: list[Tensor], exact: list[Tensor]) -> None:
    errors = _errors(ours, exact)
    ok = errors[0] < 1e-5 and max(errors) < BOUNDS[dtype] and exact[0].item() >= 0
    report(name, ok, f"loss, dq, dk, dw off by {_show(errors)}")


def _index_inputs(dtype: torch.dtype, rows: int, keys: int, heads: int, dim: int) -> list[Tensor]:
    q, k = _randn(dtype, (rows, heads, dim), (keys, dim))
    return [q, k, torch.randn(rows, heads, device="cuda") * heads**-0.5 * dim**-0.5]


def _randn(dtype: torch.dtype, *shapes: tuple[int, ...]) -> list[Tensor]:
    return [torch.randn(shape, device="cuda", dtype=dtype) for shape in shapes]


def _errors(ours: Sequence[Tensor], exact: Sequence[Tensor]) -> list[float]:
    """Relative Frobenius errors; infinite where a value is not finite."""
    errors = [((a.double() - b.double()).norm() / b.double().norm()).item() for a, b in zip(ours, exact, strict=True)]
    return [error if error == error else float("inf") for error in errors]


def _same(ours: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ours, others, strict=True))


def _show(errors: Sequence[float]) -> str:
    return ", ".join(f"{error:.1e}" for error in errors)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
