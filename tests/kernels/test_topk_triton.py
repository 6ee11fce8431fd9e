"""The GPU's top-k in Triton's interpreter: the exact set, whatever the row looks like."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import kernels.topk_triton as body
from kernels.topk import topk_rows

# Columns outside a row's range are NaN in the kernel, and numpy remarks on a group without any other.
pytestmark = pytest.mark.filterwarnings("ignore:All-NaN slice")

SMALL = {**body.DEFAULT, "programs": 2, "sample": 512, "parts": 1, "tile": 128}


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body.tuning, "config", lambda *_: SMALL)


def by_hand(row: list[float], k: int, start: int, end: int) -> list[int]:
    order = sorted(range(start, end), key=lambda i: (-row[i], i))[:k]
    return sorted(order) + [-1] * (k - len(order))


def normal(columns: int, generator: torch.Generator) -> Tensor:
    return torch.randn(3, columns, generator=generator)


def plateau(columns: int, generator: torch.Generator) -> Tensor:
    """97 % zeros of both signs: the k-th score is one of them."""
    scores = normal(columns, generator)
    zero = torch.where(normal(columns, generator) > 0, 0.0, -0.0)
    return torch.where(torch.rand(3, columns, generator=generator) < 0.97, zero, scores)


def equal(columns: int, generator: torch.Generator) -> Tensor:
    return torch.full((3, columns), -1.5)


def ascending(columns: int, generator: torch.Generator) -> Tensor:
    return normal(columns, generator).sort(-1).values


def missed(columns: int, generator: torch.Generator) -> Tensor:
    """High scores where the sample looks and nowhere else: the first guess keeps too few."""
    scores = normal(columns, generator)
    scores[:, torch.arange(32) * columns // 32 // 16 * 16] += 100
    return scores


def infinite(columns: int, generator: torch.Generator) -> Tensor:
    scores = normal(columns, generator)
    scores[:, 20:] = -torch.inf
    scores[:, 7] = torch.inf
    return scores


@pytest.mark.parametrize("make", [normal, plateau, equal, ascending, missed, infinite])
@pytest.mark.parametrize(("columns", "k"), [(3000, 33), (2049, 1), (300, 40)])
def test_equals_a_sort_by_hand(make: Callable[[int, torch.Generator], Tensor], columns: int, k: int) -> None:
    scores = make(columns, torch.Generator().manual_seed(columns))
    starts, ends = (
        torch.tensor([0, 13, 130], dtype=torch.int32),
        torch.tensor([columns, columns - 1, 100 + k // 2]).int(),
    )
    expected = [by_hand(row, k, *r) for row, *r in zip(scores.tolist(), starts.tolist(), ends.tolist(), strict=True)]
    column = torch.arange(columns)
    hidden = (column < starts[:, None]) | (column >= ends[:, None])
    scores = scores.masked_fill(hidden, torch.nan)
    assert body.topk_rows(scores, k, starts, ends).tolist() == expected
    assert topk_rows(scores, k, starts, ends).tolist() == expected


def test_rows_that_do_not_begin_at_16_bytes() -> None:
    scores = torch.randn(2, 1001, generator=torch.Generator().manual_seed(0))[:, 1:]
    starts, ends = torch.tensor([0, 3], dtype=torch.int32), torch.tensor([1000, 999], dtype=torch.int32)
    assert torch.equal(body.topk_rows(scores, 9, starts, ends), topk_rows(scores, 9, starts, ends))


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.sampled_from([-torch.inf, -1.0, -0.0, 0.0, 1e-45, 2.5]), min_size=1, max_size=60),
    st.integers(1, 70),
    st.data(),
)
def test_few_values_and_any_range(row: list[float], k: int, data: st.DataObject) -> None:
    start, end = data.draw(st.integers(0, len(row))), data.draw(st.integers(0, len(row)))
    got = body.topk_rows(torch.tensor([row]), k, torch.tensor([start]).int(), torch.tensor([end]).int())
    assert got.tolist() == [by_hand(row, k, start, end)]


def test_no_rows_and_companions() -> None:
    empty = torch.zeros(0, dtype=torch.int32)
    assert body.topk_rows(torch.zeros(0, 8), 4, empty, empty).shape == (0, 4)
    scores = torch.randint(0, 3, (5, 200), generator=torch.Generator().manual_seed(1)).float()
    starts, ends = torch.zeros(5, dtype=torch.int32), torch.full((5,), 200, dtype=torch.int32)
    together = body.topk_rows(scores, 30, starts, ends)
    torch.library.opcheck(body.topk_rows, (scores[:1], 30, starts[:1], ends[:1]))
    for i in (0, 3):
        assert torch.equal(body.topk_rows(scores[i : i + 1], 30, starts[:1], ends[:1])[0], together[i])


def test_a_row_of_nan_ends_and_chooses_none_of_them() -> None:
    scores = torch.full((1, 1500), torch.nan)
    scores[0, 40:44] = torch.tensor([3.0, -torch.inf, 1.0, 2.0])
    whole = torch.zeros(1, dtype=torch.int32), torch.full((1,), 1500, dtype=torch.int32)
    assert body.topk_rows(scores, 2, *whole).tolist() == [[40, 43]]
    assert body.topk_rows(scores, 5, *whole).tolist() == [[40, 41, 42, 43, -1]]


def test_refuses_ranges_of_another_length() -> None:
    with pytest.raises(ValueError, match=r"one start and end for each row, but got scores \[2, 4\]"):
        topk_rows(torch.zeros(2, 4), 1, torch.zeros(1).int(), torch.zeros(2).int())
