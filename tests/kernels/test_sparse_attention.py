"""Sparse and block attention and the indexer's loss, against float64 loops written from the formulas."""

import math

import pytest
import torch
from torch import Tensor

from kernels import (
    Selection,
    block_indexer_kl,
    block_mla_attention,
    cached_mla_attention,
    indexer_logits,
    sparse_mla_attention,
    tiles,
    topk_indices,
    topk_mask,
)

GROUPS = ((2, 9), (1, 5), (3, 1))
ROWS, HEADS, DIM, VALUE, INDEX_HEADS, INDEX_DIM, SCALE, K = 26, 3, 6, 4, 2, 3, 0.37, 3


def spans() -> list[tuple[int, int]]:
    out, row = [], 0
    for n, length in GROUPS:
        for _ in range(n):
            out.append((row, length))
            row += length
    return out


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def loop_probabilities(q: Tensor, kv: Tensor, row: int, keys: list[int]) -> list[list[float]]:
    """A[h][i] over the given key rows, one scalar at a time."""
    result = []
    for head in range(q.shape[1]):
        scores = [SCALE * sum(float(q[row, head, d]) * float(kv[s, d]) for d in range(q.shape[2])) for s in keys]
        total = sum(math.exp(score) for score in scores)
        result.append([math.exp(score) / total for score in scores])
    return result


def loop_scores(index_q: Tensor, index_k: Tensor, weights: Tensor, row: int, keys: list[int]) -> list[float]:
    scores = []
    for s in keys:
        dots = [float(index_q[row, j] @ index_k[s]) for j in range(index_q.shape[1])]
        scores.append(sum(float(weights[row, j]) * max(dot, 0.0) for j, dot in enumerate(dots)))
    return scores


def selected_keys(index_q: Tensor, index_k: Tensor, weights: Tensor, k: int | None) -> list[list[int]]:
    """Key rows of every query row: all visible ones, or the k best with the lowest first among equals."""
    out = []
    for first, length in spans():
        for t in range(length):
            keys = list(range(first, first + t + 1))
            if k is not None:
                scores = loop_scores(index_q, index_k, weights, first + t, keys)
                best = sorted(range(len(keys)), key=lambda i: (-scores[i], i))[:k]
                keys = [keys[i] for i in sorted(best)]
            out.append(keys)
    return out


def selection(index_q: Tensor, index_k: Tensor, weights: Tensor, k: int, form: str) -> list[Selection]:
    chosen = []
    for tile in tiles(GROUPS):
        scores = indexer_logits(tile.queries(index_q), tile.keys(index_k), tile.queries(weights))
        scores[..., tile.start :] += tile.causal_bias(scores)
        chosen.append(
            Selection(mask=topk_mask(scores, k)) if form == "mask" else Selection(indices=topk_indices(scores, k))
        )
    return chosen


@pytest.fixture
def index() -> tuple[Tensor, Tensor, Tensor]:
    return (
        draw(ROWS, INDEX_HEADS, INDEX_DIM, seed=3),
        draw(ROWS, INDEX_DIM, seed=4),
        draw(ROWS, INDEX_HEADS, seed=5),
    )


@pytest.fixture(params=[2, 64])
def tile_size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a test with many small tiles and with one large one."""
    monkeypatch.setattr(tiles, "__defaults__", (request.param,))


@pytest.mark.usefixtures("tile_size")
@pytest.mark.parametrize("form", ["dense", "mask", "indices"])
def test_block_attention_equals_loops(form: str, index: tuple[Tensor, Tensor, Tensor]) -> None:
    q, kv = draw(ROWS, HEADS, DIM, seed=1), draw(ROWS, DIM, seed=2)
    chosen = None if form == "dense" else selection(*index, K, form)
    out = block_mla_attention(q, kv, GROUPS, SCALE, VALUE, chosen)
    for row, keys in enumerate(selected_keys(*index, None if form == "dense" else K)):
        probs = loop_probabilities(q, kv, row, keys)
        for head in range(HEADS):
            want = sum((p * kv[s, :VALUE] for p, s in zip(probs[head], keys, strict=True)), torch.zeros(VALUE))
            torch.testing.assert_close(out[row, head], want, atol=1e-12, rtol=0)


@pytest.mark.usefixtures("tile_size")
@pytest.mark.parametrize("form", ["dense", "mask", "indices"])
def test_block_attention_gradcheck(form: str, index: tuple[Tensor, Tensor, Tensor]) -> None:
    q, kv = draw(ROWS, HEADS, DIM, seed=1).requires_grad_(), draw(ROWS, DIM, seed=2).requires_grad_()
    chosen = None if form == "dense" else selection(*index, K, form)
    assert torch.autograd.gradcheck(
        lambda a, b: block_mla_attention(a, b, GROUPS, SCALE, VALUE, chosen), (q, kv), fast_mode=True
    )


def test_sparse_attention_equals_block_attention_and_loops(index: tuple[Tensor, Tensor, Tensor]) -> None:
    q, kv = draw(ROWS, HEADS, DIM, seed=1), draw(ROWS, DIM, seed=2)
    keys = selected_keys(*index, K)
    indices = torch.tensor([row + [-1] * (K - len(row)) for row in keys])
    out, lse = sparse_mla_attention(q, kv, indices, SCALE, VALUE, chunk=7)
    block = block_mla_attention(q, kv, GROUPS, SCALE, VALUE, selection(*index, K, "mask"))
    torch.testing.assert_close(out, block, atol=1e-12, rtol=0)
    for row in range(ROWS):
        scores = SCALE * q[row] @ kv[keys[row]].t()
        torch.testing.assert_close(lse[row], scores.exp().sum(-1).log(), atol=1e-12, rtol=0)
    shuffled, _ = sparse_mla_attention(q, kv, indices.flip(-1), SCALE, VALUE)
    torch.testing.assert_close(shuffled, out, atol=1e-12, rtol=0)


def test_sparse_attention_gradcheck_and_empty_rows() -> None:
    q, kv = draw(3, HEADS, DIM, seed=1).requires_grad_(), draw(4, DIM, seed=2).requires_grad_()
    indices = torch.tensor([[0, 2, -1], [-1, -1, -1], [3, 1, 0]])
    out, lse = sparse_mla_attention(q, kv, indices, SCALE, VALUE)
    assert not out[1].any() and bool((lse[1] == -torch.inf).all())
    torch.autograd.gradcheck(lambda a, b: sparse_mla_attention(a, b, indices, SCALE, VALUE)[0], (q, kv))


def test_k_at_least_length_is_dense(index: tuple[Tensor, Tensor, Tensor]) -> None:
    q, kv = draw(ROWS, HEADS, DIM, seed=1), draw(ROWS, DIM, seed=2)
    dense = block_mla_attention(q, kv, GROUPS, SCALE, VALUE)
    for form in ("mask", "indices"):
        sparse = block_mla_attention(q, kv, GROUPS, SCALE, VALUE, selection(*index, 9, form))
        torch.testing.assert_close(sparse, dense, atol=1e-14, rtol=0)


def test_cached_attention_equals_block_attention() -> None:
    q, kv = draw(9, HEADS, DIM, seed=1), draw(9, DIM, seed=2)
    bias = torch.full((9, 9), -torch.inf, dtype=torch.float64).triu(1)
    out = cached_mla_attention(q.unsqueeze(0), kv.unsqueeze(0), bias.unsqueeze(0), SCALE, VALUE)[0]
    torch.testing.assert_close(out, block_mla_attention(q, kv, ((1, 9),), SCALE, VALUE), atol=1e-14, rtol=0)


@pytest.mark.usefixtures("tile_size")
@pytest.mark.parametrize("form", ["dense", "mask", "indices"])
def test_indexer_kl_equals_loops_and_gradcheck(form: str, index: tuple[Tensor, Tensor, Tensor]) -> None:
    q, kv = draw(ROWS, HEADS, DIM, seed=1), draw(ROWS, DIM, seed=2)
    valid = torch.ones(ROWS, dtype=torch.bool)
    valid[[4, 20]] = False
    chosen = None if form == "dense" else selection(*index, K, form)
    expected = 0.0
    for row, keys in enumerate(selected_keys(*index, None if form == "dense" else K)):
        if not valid[row]:
            continue
        probs = loop_probabilities(q, kv, row, keys)
        scores = loop_scores(*index, row, keys)
        normaliser = math.log(sum(math.exp(score) for score in scores))
        for i in range(len(keys)):
            p = sum(head[i] for head in probs) / HEADS
            expected += p * (math.log(p) - (scores[i] - normaliser))
    loss = block_indexer_kl(*index, q, kv, GROUPS, SCALE, valid, chosen)
    assert float(loss) == pytest.approx(expected, abs=1e-11)
    inputs = tuple(tensor.clone().requires_grad_() for tensor in index)
    assert torch.autograd.gradcheck(
        lambda *x: 1.7 * block_indexer_kl(*x, q, kv, GROUPS, SCALE, valid, chosen), inputs, fast_mode=True
    )


def test_kl_is_zero_with_zero_gradient_where_the_indexer_equals_the_target() -> None:
    """One index head with unit weight whose query and key reproduce a one-head attention's (positive)
    scores."""
    q, kv = draw(8, 1, DIM, seed=1).abs(), draw(8, DIM, seed=2).abs()
    inputs = [tensor.requires_grad_() for tensor in (q * SCALE, kv.clone(), torch.ones(8, 1, dtype=torch.float64))]
    loss = block_indexer_kl(*inputs, q, kv, ((1, 8),), SCALE)
    loss.backward()
    assert loss.detach().abs() < 1e-13
    assert all(tensor.grad.abs().max() < 1e-13 for tensor in inputs)


def test_kl_is_never_negative_and_its_score_gradient_sums_to_zero() -> None:
    for seed in range(10):
        q, kv = draw(8, 2, DIM, seed=seed), draw(8, DIM, seed=seed + 50)
        index_q, index_k = (
            draw(8, 1, INDEX_DIM, seed=seed + 99).abs(),
            draw(8, INDEX_DIM, seed=seed + 150).abs(),
        )
        # A constant key feature adds the same to every score of a row: its gradient is the row sum of dI.
        index_k = torch.cat([index_k[:, :-1], torch.ones(8, 1, dtype=torch.float64)], -1)
        index_q.requires_grad_()
        loss = block_indexer_kl(index_q, index_k, torch.ones(8, 1, dtype=torch.float64), q, kv, ((1, 8),), SCALE)
        loss.backward()
        assert loss >= 0
        assert index_q.grad[..., -1].abs().max() < 1e-12
