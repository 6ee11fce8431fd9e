"""The Triton forward of sparse MLA attention in Triton's interpreter, against a float64 loop."""

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from kernels.sparse_mla import sparse_mla_attention
from kernels.sparse_mla_triton import sparse_mla_forward

SCALE = 0.31


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def pick(rows: int, cache: int, counts: list[int], k: int, seed: int = 0) -> Tensor:
    """Indices [rows, k], ascending, of which row i has counts[i % len(counts)] keys."""
    generator = torch.Generator().manual_seed(seed)
    out = torch.full((rows, k), -1, dtype=torch.int32)
    for row in range(rows):
        n = counts[row % len(counts)]
        out[row, :n] = torch.randperm(cache, generator=generator)[:n].sort().values
    return out


def by_loop(q: Tensor, kv: Tensor, indices: Tensor, value_dim: int) -> tuple[Tensor, Tensor]:
    """One query and one head at a time, in float64."""
    out = torch.zeros(*q.shape[:2], value_dim, dtype=torch.float64)
    lse = torch.full(q.shape[:2], -torch.inf, dtype=torch.float64)
    for row, picks in enumerate(indices.tolist()):
        keys = [key for key in picks if key >= 0]
        for head in range(q.shape[1] if keys else 0):
            scores = kv[keys].double() @ q[row, head].double() * SCALE
            lse[row, head] = scores.logsumexp(0)
            out[row, head] = scores.softmax(0) @ kv[keys, :value_dim].double()
    return out, lse


@pytest.mark.parametrize(
    ("heads", "value", "rope", "k", "dtype"),
    [
        (1, 32, 16, 7, torch.float32),
        (4, 64, 16, 33, torch.float32),
        (16, 32, 16, 40, torch.float16),
        (20, 24, 6, 40, torch.float32),
    ],
)
def test_forward_equals_the_loop(heads: int, value: int, rope: int, k: int, dtype: torch.dtype) -> None:
    q = draw(5, heads, value + rope, dtype=dtype)
    kv = draw(47, value + rope, seed=1, dtype=dtype)
    indices = pick(5, 47, [k, k // 2, 0, 1], k)
    out, lse = sparse_mla_forward(q, kv, indices, SCALE, value)
    expected, expected_lse = by_loop(q, kv, indices, value)
    tolerance = 2e-6 if dtype == torch.float32 else 2e-3
    torch.testing.assert_close(out.double(), expected, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(lse.double(), expected_lse, rtol=tolerance, atol=tolerance)


def test_what_a_padding_slot_points_at_is_never_read() -> None:
    q, kv = draw(3, 4, 48), draw(30, 48, seed=1)
    kv[0] = torch.nan
    indices = pick(3, 29, [20, 3, 0], 24) + 1
    indices[indices == 0] = -1
    out, lse = sparse_mla_forward(q, kv, indices, SCALE, 32)
    assert not out.isnan().any()
    assert torch.equal(out[2], torch.zeros(4, 32))
    assert torch.equal(lse[2], torch.full((4,), -torch.inf))


def test_a_row_with_padding_between_keys() -> None:
    q, kv = draw(2, 4, 48), draw(60, 48, seed=1)
    indices = pick(2, 60, [50], 50)
    indices[:, 10:37] = -1
    out, lse = sparse_mla_forward(q, kv, indices.long(), SCALE, 32)
    expected, expected_lse = by_loop(q, kv, indices, 32)
    torch.testing.assert_close(out.double(), expected, rtol=2e-6, atol=2e-6)
    torch.testing.assert_close(lse.double(), expected_lse, rtol=2e-6, atol=2e-6)


def test_rows_do_not_depend_on_companions() -> None:
    q, kv = draw(6, 20, 48), draw(40, 48, seed=1)
    indices = pick(6, 40, [40, 3, 0, 17], 40)
    out, lse = sparse_mla_forward(q, kv, indices, SCALE, 32)
    for rows in (slice(0, 1), slice(2, 6)):
        part, part_lse = sparse_mla_forward(q[rows], kv, indices[rows], SCALE, 32)
        assert torch.equal(part, out[rows])
        assert torch.equal(part_lse, lse[rows])


def test_agrees_with_the_torch_body() -> None:
    q, kv = draw(4, 3, 48), draw(40, 48, seed=1)
    indices = pick(4, 40, [35, 0], 36)
    for ours, reference in zip(
        sparse_mla_forward(q, kv, indices, SCALE, 32), sparse_mla_attention(q, kv, indices, SCALE, 32), strict=True
    ):
        torch.testing.assert_close(ours, reference, rtol=1e-5, atol=1e-5)


def test_the_operator_is_differentiable() -> None:
    """The operator that CUDA tensors take, on the CPU: both Triton bodies, tied together by autograd."""
    indices = pick(5, 40, [30, 0, 7], 32)
    weights = draw(5, 4, 32, seed=2)
    gradients = []
    for door in (torch.ops.polymath.sparse_mla, sparse_mla_attention):
        q, kv = draw(5, 4, 48).requires_grad_(), draw(40, 48, seed=1).requires_grad_()
        out, _ = door(q, kv, indices, SCALE, 32)
        (out * weights).sum().backward()
        gradients.append((q.grad, kv.grad))
    assert not torch.ops.polymath.sparse_mla(q, kv, indices, SCALE, 32)[1].requires_grad
    for ours, reference in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-5, atol=1e-5)
