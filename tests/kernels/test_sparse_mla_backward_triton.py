"""The Triton backward of sparse MLA, interpreted, against float64 autograd through plain softmax attention."""

import pytest
import torch
from torch import Tensor

import kernels.sparse_mla_backward_triton as body
from kernels.sparse_mla_backward_triton import sparse_mla_backward


def _case(queries: int, rows: int, heads: int, slots: int, value_dim: int, rope: int, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(queries, heads, value_dim + rope, generator=generator)
    kv = torch.randn(rows, value_dim + rope, generator=generator)
    grad_out = torch.randn(queries, heads, value_dim, generator=generator)
    picks = torch.rand(queries, rows, generator=generator).argsort(-1)[:, :slots].sort(-1).values
    lengths = torch.randint(0, slots + 1, (queries, 1), generator=generator)
    lengths[0], lengths[-1] = 0, slots
    indices = picks.masked_fill(torch.arange(slots) >= lengths, -1).int()
    return q, kv, indices, grad_out


def _attention(q: Tensor, kv: Tensor, indices: Tensor, scale: float, value_dim: int) -> tuple[Tensor, Tensor]:
    """Dense masked attention, one query at a time: shares nothing with the gathered reference."""
    outs, sums = [], []
    for t in range(len(q)):
        picked = indices[t][indices[t] >= 0].long()
        if len(picked) == 0:
            outs.append(torch.zeros(q.shape[1], value_dim, dtype=q.dtype) + 0 * q[t].sum())
            sums.append(torch.full((q.shape[1],), -torch.inf, dtype=q.dtype))
            continue
        scores = (q[t] @ kv.T)[:, picked] * scale
        outs.append(scores.softmax(-1) @ kv[picked, :value_dim])
        sums.append(scores.logsumexp(-1))
    return torch.stack(outs), torch.stack(sums)


def _expected(q, kv, indices, grad_out, scale, value_dim):
    q, kv = q.double().requires_grad_(), kv.double().requires_grad_()
    out, lse = _attention(q, kv, indices, scale, value_dim)
    out.backward(grad_out.double())
    return out.detach(), lse.detach(), q.grad, kv.grad


def _error(got: Tensor, expected: Tensor) -> float:
    return float((got.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize(
    ("heads", "slots", "value_dim", "rope"),
    [(4, 7, 32, 16), (1, 2, 32, 16), (16, 33, 64, 16), (20, 40, 48, 24), (130, 16, 32, 16)],
)
def test_gradients_against_float64(heads: int, slots: int, value_dim: int, rope: int) -> None:
    q, kv, indices, grad_out = _case(3, 45, heads, slots, value_dim, rope)
    out, lse, dq, dkv = _expected(q, kv, indices, grad_out, 0.2, value_dim)
    got_dq, got_dkv = sparse_mla_backward(q, kv, indices, out.float(), lse.float(), grad_out, 0.2, value_dim)
    assert _error(got_dq, dq) < 2e-6 and _error(got_dkv, dkv) < 2e-6
    assert (got_dq[0] == 0).all() and torch.isfinite(got_dq).all() and torch.isfinite(got_dkv).all()


def test_half_precision_stays_within_its_rounding() -> None:  # fp16: the interpreter has no bf16 product
    q, kv, indices, grad_out = (x.half() if x.is_floating_point() else x for x in _case(3, 40, 4, 24, 32, 16))
    out, lse, dq, dkv = _expected(q, kv, indices, grad_out, 0.2, 32)
    got_dq, got_dkv = sparse_mla_backward(q, kv, indices, out.half(), lse.float(), grad_out, 0.2, 32)
    assert got_dq.dtype == got_dkv.dtype == torch.float16
    assert _error(got_dq, dq) < 2e-3 and _error(got_dkv, dkv) < 2e-3


def test_wide_latent_and_column_shares() -> None:
    q, kv, indices, grad_out = _case(2, 40, 4, 20, 128, 64)
    out, lse, dq, dkv = _expected(q, kv, indices, grad_out, 0.05, 128)
    got_dq, got_dkv = sparse_mla_backward(q, kv, indices, out.float(), lse.float(), grad_out, 0.05, 128)
    assert _error(got_dq, dq) < 2e-6 and _error(got_dkv, dkv) < 2e-6


def test_chunks_and_companions_leave_the_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    q, kv, indices, grad_out = _case(5, 30, 4, 12, 32, 16)
    out, lse, _, _ = _expected(q, kv, indices, grad_out, 0.2, 32)
    args = [q, indices, out.float(), lse.float(), grad_out]

    def run(rows: slice) -> tuple[Tensor, Tensor]:
        x, picks, o, sums, grad = (a[rows] for a in args)
        return sparse_mla_backward(x, kv, picks, o, sums, grad, 0.2, 32)

    dq, dkv = run(slice(None))
    assert torch.equal(run(slice(2, 4))[0], dq[2:4])
    monkeypatch.setattr(body, "_WORKSPACE_BYTES", 2 * 12 * (2 * 4 + 48) * 4)
    chunked_dq, chunked_dkv = run(slice(None))
    assert torch.equal(chunked_dq, dq) and torch.equal(chunked_dkv, dkv)


def test_padding_may_stand_anywhere_and_no_queries_or_slots_are_zeros() -> None:
    q, kv, indices, grad_out = _case(2, 20, 2, 10, 32, 16)
    indices[1, ::3] = -1
    out, lse, dq, dkv = _expected(q, kv, indices, grad_out, 0.2, 32)
    got_dq, got_dkv = sparse_mla_backward(q, kv, indices, out.float(), lse.float(), grad_out, 0.2, 32)
    assert _error(got_dq, dq) < 2e-6 and _error(got_dkv, dkv) < 2e-6
    for rows, slots in ((0, 10), (2, 0)):
        dq, dkv = sparse_mla_backward(
            q[:rows], kv, indices[:rows, :slots], out[:rows].float(), lse[:rows].float(), grad_out[:rows], 0.2, 32
        )
        assert dq.shape == q[:rows].shape and not dq.any() and not dkv.any()
