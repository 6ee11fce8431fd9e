"""The row layout that the GPU operators walk over: each query names the rows of one flat key tensor that it may see.

Causality and packing are both in the ranges: query m sees the keys `starts[m] <= s < ends[m]`. An empty range is a
row that attends to nothing (padding).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from kernels.indexer import indexer_logits_rows
from kernels.tiles import Group
from kernels.topk import topk_rows

# Index scores that exist at one time: 1024 queries of a 128K context in float32.
SCORE_BYTES = 512 * 2**20
# Lists of all visible keys that exist at one time where no gradient is needed.
INDEX_BYTES = 256 * 2**20
# A selection is as wide as a multiple of this, which the attention kernels step by.
INDEX_STEP = 32


@dataclass(frozen=True)
class RowRanges:
    """The keys of M queries: `starts`, `ends` [M] int32 on the device, and the same on the host as `spans` [M, 2]."""

    starts: Tensor
    ends: Tensor
    spans: np.ndarray

    @classmethod
    def build(cls, spans: np.ndarray, device: torch.device) -> RowRanges:
        """From `spans` [M, 2], first row and row behind the last."""
        both = torch.from_numpy(np.ascontiguousarray(spans.T, dtype=np.int32)).to(device)
        return cls(both[0], both[1], spans)

    @classmethod
    def of_groups(cls, groups: Sequence[tuple[int, ...]], device: torch.device, valid: Tensor | None) -> RowRanges:
        """Causal ranges of a packed batch in block layout (`kernels.tiles`); rows that are not `valid` [M] are
        empty."""
        parts, key_row = [], 0
        for n, length, first in (Group(*group) for group in groups):
            start = np.broadcast_to(key_row + length * np.arange(n)[:, None], (n, length - first))
            parts.append(np.stack([start, start + np.arange(first + 1, length + 1)], axis=-1).reshape(-1, 2))
            key_row += n * length
        spans = np.concatenate(parts)
        if valid is not None:
            padding = ~valid.cpu().numpy()
            spans[padding, 1] = spans[padding, 0]
        return cls.build(spans, device)

    @cached_property
    def longest(self) -> int:
        """Keys of the row that sees most."""
        return int((self.spans[:, 1] - self.spans[:, 0]).max(initial=0))

    @cached_property
    def visible(self) -> Tensor:
        """[M, w] int32 all keys of each row, ascending, padded with -1; w is `longest`, rounded up."""
        return self._visible(slice(None))

    def visible_parts(self) -> Iterator[tuple[slice, Tensor]]:
        """Runs of rows and their part of `visible`, never more than `INDEX_BYTES` of it at one time."""
        size = max(1, INDEX_BYTES // (4 * self._width))
        for first in range(0, len(self.spans), size):
            rows = slice(first, first + size)
            yield rows, self._visible(rows)

    def _visible(self, rows: slice) -> Tensor:
        offsets = torch.arange(self._width, dtype=torch.int32, device=self.starts.device)
        keys = self.starts[rows].unsqueeze(1) + offsets
        return keys.where(keys < self.ends[rows].unsqueeze(1), -1)

    @property
    def _width(self) -> int:
        return max(1, -(-self.longest // INDEX_STEP)) * INDEX_STEP

    @cached_property
    def score_chunks(self) -> list[tuple[slice, int, int]]:
        """Runs of rows whose scores fit into `SCORE_BYTES`: the rows, and the first key and the key behind the last
        that any of them sees. Made once for all layers."""
        return list(self._runs(SCORE_BYTES // 4))

    def _runs(self, elements: int) -> Iterator[tuple[slice, int, int]]:
        empty = self.spans[:, 0] >= self.spans[:, 1]
        lows = np.where(empty, np.iinfo(np.int64).max, self.spans[:, 0])
        highs = np.where(empty, 0, self.spans[:, 1])
        row, count = 0, len(self.spans)
        while row < count:
            low, high = np.minimum.accumulate(lows[row:]), np.maximum.accumulate(highs[row:])
            size = np.arange(1, count - row + 1) * np.maximum(high - low, 1)
            taken = max(1, int(np.searchsorted(np.maximum.accumulate(size), elements, side="right")))
            first, last = int(low[taken - 1]), int(high[taken - 1])
            yield slice(row, row + taken), min(first, last), last
            row += taken


@torch.no_grad()
def select_rows(index_q: Tensor, index_k: Tensor, weights: Tensor, ranges: RowRanges, k: int) -> Tensor:
    """The k keys of highest index score of each query.

    Args:
        index_q: [M, J, d], index_k: [N, d], weights: [M, J]: as for `indexer_logits_rows`.
        ranges: of the M queries.
        k: index_topk.

    Returns:
        [M, k'] int32 rows of `index_k`, ascending, -1 padded; k' is k rounded up to what attention steps by. Never
        more than `SCORE_BYTES` of scores exist at one time, and how rows are cut changes no bit.
    """
    width = -(-k // INDEX_STEP) * INDEX_STEP
    chosen = torch.full((len(index_q), width), -1, dtype=torch.int32, device=index_q.device)
    for rows, low, high in ranges.score_chunks:
        if high <= low:
            continue
        starts, ends = (ranges.starts[rows] - low).clamp_min(0), (ranges.ends[rows] - low).clamp_min(0)
        scores = indexer_logits_rows(index_q[rows], index_k[low:high], weights[rows], starts, ends)
        found = topk_rows(scores, k, starts, ends)
        chosen[rows, :k] = torch.where(found >= 0, found + low, -1)
    return chosen
