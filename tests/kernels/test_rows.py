"""Ranges of the row layout against the block layout they describe."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import rows
from kernels.rows import RowRanges
from kernels.tiles import tiles

GROUPS = st.lists(
    st.tuples(st.integers(1, 4), st.integers(1, 90), st.integers(0, 89)).filter(lambda g: g[2] < g[1]),
    min_size=1, max_size=4,
)  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(GROUPS, st.integers(1, 5000))
def test_ranges_are_what_a_tile_sees(groups: list[tuple[int, int, int]], elements: int) -> None:
    ranges = RowRanges.of_groups(groups, torch.device("cpu"), None)
    keys = torch.arange(sum(n * length for n, length, _ in groups))
    numbers = torch.arange(len(ranges.spans))
    for tile in tiles(groups):
        seen, queries = tile.keys(keys), tile.queries(numbers)
        for i in range(tile.group.n):
            for j, position in enumerate(range(tile.start, tile.stop)):
                row = int(queries[i, j])
                assert ranges.spans[row].tolist() == [int(seen[i, 0]), int(seen[i, 0]) + position + 1]
    assert ranges.longest == max(length for _, length, _ in groups)
    covered = []
    for part, low, high in ranges._runs(elements):
        spans = ranges.spans[part]
        covered.extend(range(part.start, part.stop))
        assert low <= spans[:, 0].min() and spans[:, 1].max() <= high
        assert len(spans) == 1 or len(spans) * (high - low) <= elements
    assert covered == list(range(len(ranges.spans)))


def test_padding_is_empty_and_visible_is_every_key() -> None:
    valid = torch.tensor([True, True, True, True, False, False])
    ranges = RowRanges.of_groups([(2, 3)], torch.device("cpu"), valid)
    assert ranges.spans.tolist() == [[0, 1], [0, 2], [0, 3], [3, 4], [3, 3], [3, 3]]
    assert ranges.visible.shape == (6, 32) and ranges.visible.dtype == torch.int32
    assert ranges.visible[2, :4].tolist() == [0, 1, 2, -1] and ranges.visible[3, :2].tolist() == [3, -1]
    assert (ranges.visible[4:] == -1).all()
    assert np.array_equal((ranges.visible >= 0).sum(1).numpy(), ranges.spans[:, 1] - ranges.spans[:, 0])


def test_parts_of_visible_are_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    ranges = RowRanges.of_groups([(3, 40), (1, 7)], torch.device("cpu"), None)
    monkeypatch.setattr(rows, "INDEX_BYTES", 4 * 64 * 10)
    parts = list(ranges.visible_parts())
    assert len(parts) == 13 and all(len(part) <= 10 for _, part in parts)
    assert torch.equal(torch.cat([part for _, part in parts]), ranges.visible)
