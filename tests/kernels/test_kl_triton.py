"""The dense and sparse stage of the indexer's loss: Triton bodies in the interpreter, and the doors' references."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kernels import kl_rows, kl_selected, kl_sparse_triton, kl_triton
from kernels.kl_rows import (
    divergence_reference,
    head_summed_target_rows,
    indexer_kl_rows,
    sparse_indexer_kl_rows,
)


def ranges(pairs: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    table = torch.tensor(pairs, dtype=torch.int32)
    return table[:, 0].contiguous(), table[:, 1].contiguous()


def causal(lengths: list[int]) -> tuple[Tensor, Tensor]:
    """Ranges of packed causal sequences."""
    pairs, first = [], 0
    for length in lengths:
        pairs += [(first, first + i + 1) for i in range(length)]
        first += length
    return ranges(pairs)


def visible(starts: Tensor, ends: Tensor, keys: int) -> Tensor:
    s = torch.arange(keys)
    return (s >= starts[:, None]) & (s < ends[:, None])


def attention_problem(
    m: int, n: int, heads: int, nope: int, rope: int, starts: Tensor, ends: Tensor, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor, Tensor, float, Tensor]:
    """q, k_nope, k_rope, lse, scale and, in float64, the head-summed target."""
    torch.manual_seed(heads + m)
    q, k_nope, k_rope = torch.randn(m, heads, nope + rope), torch.randn(n, heads, nope), torch.randn(n, rope)
    q, k_nope, k_rope = (x.to(dtype) for x in (q, k_nope, k_rope))
    scale = (nope + rope) ** -0.5
    keys = torch.cat([k_nope.double(), k_rope.double().unsqueeze(1).expand(n, heads, rope)], -1)
    scores = torch.einsum("mhd,nhd->mhn", q.double(), keys) * scale
    scores = scores.masked_fill(~visible(starts, ends, n).unsqueeze(1), -torch.inf)
    lse = scores.logsumexp(-1)
    return q, k_nope, k_rope, lse, scale, scores.softmax(-1).nan_to_num().mean(1)


@pytest.mark.parametrize(("heads", "nope", "rope"), [(1, 16, 16), (4, 32, 16), (20, 24, 8)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_target_kernel(heads: int, nope: int, rope: int, dtype: torch.dtype) -> None:
    # Packed sequences that a tile straddles, an empty row in the middle, rows that see one key or begin late.
    starts, ends = ranges([(0, i + 1) for i in range(37)] + [(5, 5)] + [(37, 38 + i) for i in range(20)] + [(60, 71)])
    m, n = len(starts), 71
    q, k_nope, k_rope, lse, scale, want = attention_problem(m, n, heads, nope, rope, starts, ends, dtype)
    out = torch.full((m, n), torch.nan)
    kl_triton.head_summed_target(q, k_nope, k_rope, lse.float(), starts, ends, scale, out)
    got = out.where(visible(starts, ends, n), 0)
    torch.testing.assert_close(got.double(), want, atol=2e-6, rtol=2e-5)


def test_target_skips_hidden_tiles_and_takes_strided_rows() -> None:
    starts, ends = causal([48, 48])
    q, k_nope, k_rope, lse, scale, want = attention_problem(96, 96, 2, 16, 16, starts, ends, torch.float32)
    wide = torch.empty(96, 3, 32)
    wide[:, 1:] = q
    joined = torch.empty(96, 2, 20)
    joined[..., :16] = k_nope
    out = torch.full((96, 128), torch.nan)[:, :96]
    kl_triton.head_summed_target(wide[:, 1:], joined[..., :16], k_rope, lse.float(), starts, ends, scale, out)
    torch.testing.assert_close(out.where(visible(starts, ends, 96), 0).double(), want, atol=2e-6, rtol=2e-5)
    assert out[:32, 32:].isnan().all() and out[64:, :32].isnan().all()


@pytest.mark.parametrize("block", [16, 128])
def test_divergence_kernel(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(kl_triton, "DIVERGENCE_DEFAULT", {"block": block, "num_warps": 4})
    torch.manual_seed(0)
    starts, ends = ranges([(0, 70), (3, 3), (69, 70), (10, 43), (0, 17), (5, 60), (0, 70)])
    valid = torch.tensor([True, True, True, True, False, True, True])
    shown = visible(starts, ends, 70)
    logits = torch.randn(7, 70, dtype=torch.float64) * 3
    target = torch.randn(7, 70, dtype=torch.float64).masked_fill(~shown, -torch.inf).softmax(-1).nan_to_num()
    target[3, 20:30] = 0
    target[3] /= target[3].sum()
    logits[5] = target[5].log()  # the KL of this row is 0
    wanted_grad = torch.full((7, 70), torch.nan, dtype=torch.float64)
    want = divergence_reference(target, logits, shown, valid, wanted_grad)
    poisoned = logits.float().masked_fill(~shown, torch.nan)
    buffer = target.float().masked_fill(~shown, torch.nan)
    kl = kl_triton.divergence(buffer, poisoned, starts, ends, valid, buffer)
    torch.testing.assert_close(kl.double(), want, atol=1e-6, rtol=1e-6)
    grad = buffer.where(shown, 0).double()
    torch.testing.assert_close(grad, wanted_grad, atol=1e-6, rtol=1e-5)
    assert kl[1] == 0 and kl[4] == 0 and abs(kl[5]) < 1e-6
    assert grad.sum(-1).abs().max() < 1e-6
    again = kl_triton.divergence(target.float(), logits.float(), starts, ends, valid, None)
    assert torch.equal(again, kl)


def test_divergence_does_not_depend_on_where_a_row_lies() -> None:
    torch.manual_seed(1)
    logits, target = torch.randn(1, 50), torch.randn(1, 50).softmax(-1)
    shifted_logits, shifted_target = (torch.nn.functional.pad(x, (7, 13)) for x in (logits, target))
    one = kl_triton.divergence(target, logits, *ranges([(0, 50)]), None, target)
    two = kl_triton.divergence(shifted_target, shifted_logits, *ranges([(7, 57)]), None, shifted_target)
    assert torch.equal(one, two) and torch.equal(target, shifted_target[:, 7:57])


def dense_loss(index: list[Tensor], target: Tensor, shown: Tensor, valid: Tensor | None) -> Tensor:
    """The loss by autograd from its definition."""
    index_q, index_k, weights = index
    logits = (torch.einsum("mjd,nd->mjn", index_q, index_k).relu() * weights.unsqueeze(-1)).sum(1)
    log_probs = logits.masked_fill(~shown, -torch.inf).log_softmax(-1).where(shown, 0)
    kl = (torch.xlogy(target, target) - target * log_probs).sum(-1)
    return (kl if valid is None else kl[valid]).sum()


@pytest.mark.parametrize("chunk", [7, 512])
def test_dense_door_against_autograd(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(kl_rows, "CHUNK_ELEMENTS", chunk * 44)
    starts, ends = causal([30, 13, 1])
    ends[35] = starts[35]
    q, k_nope, k_rope, lse, scale, target = attention_problem(44, 44, 4, 8, 4, starts, ends)
    valid = torch.arange(44) % 9 != 0
    index = [torch.randn(44, 3, 8), torch.randn(44, 8), torch.randn(44, 3)]
    index = [x.double().requires_grad_() for x in index]
    want = dense_loss(index, target, visible(starts, ends, 44), valid)
    wanted = torch.autograd.grad(2 * want, index)
    got = indexer_kl_rows(*index, q, k_nope, k_rope, lse, starts, ends, scale, valid)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(torch.autograd.grad(2 * got, index), wanted)
    with torch.no_grad():
        assert torch.equal(indexer_kl_rows(*index, q, k_nope, k_rope, lse, starts, ends, scale, valid), got)


def test_target_door() -> None:
    starts, ends = causal([9, 5])
    q, k_nope, k_rope, lse, scale, target = attention_problem(14, 14, 3, 8, 4, starts, ends)
    got = head_summed_target_rows(q, k_nope, k_rope, lse, starts, ends, scale)
    torch.testing.assert_close(got, target)
    torch.testing.assert_close(got.sum(-1), torch.ones(14, dtype=torch.float64))


def sparse_problem(
    m: int, n: int, k: int, heads: int, dim: int, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, float, Tensor]:
    """q, kv, lse, indices, counts, the mask of selected keys, scale and, in float64, the target [M, N]."""
    torch.manual_seed(dim + heads)
    counts = torch.randint(1, k + 1, (m,), dtype=torch.int32)
    counts[0], counts[m // 2] = k, 0
    indices = torch.full((m, k), -1, dtype=torch.int32)
    for row, count in enumerate(counts.tolist()):
        indices[row, :count] = torch.randperm(n)[:count].sort().values
    shown = torch.zeros(m, n + 1, dtype=torch.bool).scatter_(1, indices.long() % (n + 1), True)[:, :n]
    q, kv = torch.randn(m, heads, dim).to(dtype), torch.randn(n, dim).to(dtype)
    scores = torch.einsum("mhd,nd->mhn", q.double(), kv.double()) * dim**-0.5
    scores = scores.masked_fill(~shown.unsqueeze(1), -torch.inf)
    return q, kv, scores.logsumexp(-1), indices, counts, shown, dim**-0.5, scores.softmax(-1).nan_to_num().mean(1)


@pytest.mark.parametrize(("heads", "dim"), [(1, 32), (4, 40), (20, 24)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_sparse_kernels(heads: int, dim: int, dtype: torch.dtype) -> None:
    q, kv, lse, indices, counts, _, scale, wanted = sparse_problem(7, 50, 37, heads, dim, dtype)
    slots = torch.arange(37) < counts.unsqueeze(1)
    at = indices.clamp_min(0).long()
    target = kl_sparse_triton.selected_target(q, kv, lse.float(), indices, counts, scale)
    torch.testing.assert_close(
        target.where(slots, 0).double(), wanted.gather(1, at).where(slots, 0), atol=2e-6, rtol=1e-5
    )

    index_q, index_k, weights = (
        torch.randn(7, heads, dim).to(dtype),
        torch.randn(50, dim).to(dtype),
        torch.randn(7, heads),
    )
    logits = kl_sparse_triton.selected_logits(index_q, index_k, weights, indices, counts)
    exact = index_q.double(), index_k.double(), weights.double(), indices, counts
    wanted_logits = kl_selected.selected_logits(*exact).where(slots, 0)
    torch.testing.assert_close(logits.where(slots, 0).double(), wanted_logits, atol=1e-4, rtol=1e-4)

    grad = torch.randn(7, 37)
    got = kl_sparse_triton.selected_backward(grad.where(slots, torch.nan), index_q, index_k, weights, indices, counts)
    want = kl_selected.selected_backward(grad.double(), *exact)
    tolerance = 1e-4 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(got[0].double(), want[0], atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(got[1].double(), want[1], atol=1e-4, rtol=1e-4)
    partials = got[2].view(7, 37, dim).where(slots.unsqueeze(-1), 0)
    torch.testing.assert_close(partials.flatten(0, 1).double(), want[2], atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("chunk", [3, 100])
def test_sparse_door_against_autograd(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(kl_rows, "PARTIAL_ELEMENTS", chunk * 12 * 8)
    q, kv, lse, indices, _, shown, scale, target = sparse_problem(9, 30, 12, 4, 12)
    valid = torch.arange(9) != 3
    index = [torch.randn(9, 3, 8), torch.randn(30, 8), torch.randn(9, 3)]
    index = [x.double().requires_grad_() for x in index]
    want = dense_loss(index, target, shown, valid)
    wanted = torch.autograd.grad(2 * want, index)
    got = sparse_indexer_kl_rows(*index, q, kv, lse, indices, scale, valid)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(torch.autograd.grad(2 * got, index), wanted)
