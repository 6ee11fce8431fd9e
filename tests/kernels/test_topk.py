"""Deterministic top-k: exact set, lowest index wins, never a hidden key."""

import pytest
import torch

from kernels import topk_indices, topk_mask


def by_hand(row: list[float], k: int) -> list[int]:
    order = sorted((i for i in range(len(row)) if row[i] > -float("inf")), key=lambda i: (-row[i], i))[:k]
    return sorted(order) + [-1] * (k - len(order))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("k", [1, 5, 16, 40, 50])
def test_equals_a_sort_by_hand_with_many_ties(k: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(k)
    scores = torch.randint(-2, 3, (3, 40, 40), generator=generator).to(dtype)
    scores[0] = torch.randn(40, 40, generator=generator)
    scores[1] = 0
    scores += torch.full((40, 40), -torch.inf, dtype=dtype).triu(1)
    expected = torch.tensor([[by_hand(row, k) for row in block] for block in scores.tolist()])
    assert torch.equal(topk_indices(scores, k), expected)
    mask = torch.zeros(3, 40, 41, dtype=torch.bool).scatter_(-1, expected.where(expected >= 0, 40), True)[..., :40]
    assert torch.equal(topk_mask(scores, k), mask)


def test_minus_zero_ties_with_zero_and_companions_do_not_matter() -> None:
    row = torch.tensor([[0.0, -0.0, 0.0, -0.0, 1.0]])
    assert topk_indices(row, 3).tolist() == [[0, 1, 4]]
    many = torch.randint(0, 3, (64, 100), generator=torch.Generator().manual_seed(0)).float()
    together = topk_mask(many, 10)
    assert all(torch.equal(topk_mask(many[i : i + 1], 10)[0], together[i]) for i in range(64))


def test_refuses_nonsense() -> None:
    with pytest.raises(ValueError, match="at least one key"):
        topk_mask(torch.zeros(1, 4), 0)
    with pytest.raises(TypeError, match="floating point"):
        topk_indices(torch.zeros(1, 4, dtype=torch.long), 2)
