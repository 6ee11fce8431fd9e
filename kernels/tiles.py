"""The block layout that the CPU operators walk over, one tile of queries at a time.

A *group* is `n` sequences right-padded to one length `L`; its `n * L` rows follow one another. A packed batch
is a list of groups `[(n, L), ...]` whose rows follow one another as well. A *tile* is the same slice of
queries of every sequence in a group; its keys are the rows up to the last query, so a score above the
diagonal is computed only inside a tile. A right-padded row never shows up as a key of a real query
(causality), so no padding mask is needed.

A group `(n, L, s)` has queries from position `s` on only: `n * (L - s)` rows of queries, `n * L` rows of keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

# Queries in a tile. Small tiles waste less above the diagonal, large ones make larger matrix products; at
# lengths of 100 to 350 a training step with 32 is not faster than with 64.
QUERY_TILE = 64


class Group(NamedTuple):
    """`n` sequences padded to `length` keys each, whose queries begin at position `first`."""

    n: int
    length: int
    first: int = 0

    @property
    def query_rows(self) -> int:
        return self.n * (self.length - self.first)

    @property
    def key_rows(self) -> int:
        return self.n * self.length


@dataclass(frozen=True)
class Tile:
    """Queries at the positions `start:stop` of a group whose rows begin at `query_row` and `key_row`."""

    group: Group
    query_row: int
    key_row: int
    start: int
    stop: int

    def queries(self, x: Tensor) -> Tensor:
        """View of query rows `x` [T, ...] as this tile's queries [n, stop - start, ...]."""
        n, length, first = self.group
        rows = x[self.query_row : self.query_row + self.group.query_rows].view(n, length - first, *x.shape[1:])
        return rows[:, self.start - first : self.stop - first]

    def keys(self, x: Tensor) -> Tensor:
        """View of key rows `x` [S, ...] as this tile's keys [n, stop, ...]."""
        n, length, _ = self.group
        return x[self.key_row : self.key_row + self.group.key_rows].view(n, length, *x.shape[1:])[:, : self.stop]

    def causal_bias(self, like: Tensor) -> Tensor:
        """0 where the tile's query may see a key of the tile's own columns, -inf above the diagonal: [c,
        c]."""
        size = self.stop - self.start
        return torch.full((size, size), -torch.inf, dtype=like.dtype, device=like.device).triu_(1)


@dataclass(frozen=True)
class Selection:
    """What the indexer selected for one tile, in the cheaper of two forms.

    `mask` [n, c, S] bool, or `indices` [n, c, k] int64 (ascending, -1 padded, positions inside the sequence).
    Exactly one of the two is set.
    """

    mask: Tensor | None = None
    indices: Tensor | None = None

    def as_mask(self, keys: int) -> Tensor:
        """The selection as a mask [n, c, keys]."""
        if self.mask is not None:
            return self.mask
        assert self.indices is not None
        mask = torch.zeros(*self.indices.shape[:2], keys + 1, dtype=torch.bool, device=self.indices.device)
        # The padding index -1 lands in a column of its own, which is cut off.
        return mask.scatter_(-1, self.indices.where(self.indices >= 0, keys), True)[..., :keys]


def tiles(groups: Sequence[tuple[int, ...]], size: int = QUERY_TILE) -> Iterator[Tile]:
    """All tiles of consecutive groups `(n, length)` or `(n, length, first)`, in a fixed order."""
    query_row = key_row = 0
    for group in (Group(*entry) for entry in groups):
        for start in range(group.first, group.length, size):
            yield Tile(group, query_row, key_row, start, min(start + size, group.length))
        query_row += group.query_rows
        key_row += group.key_rows


def visible_keys(starts: Tensor, ends: Tensor, keys: int) -> Tensor:
    """[M, keys] bool: whether key s lies in row m's range, `starts[m] <= s < ends[m]`."""
    columns = torch.arange(keys, device=starts.device)
    return (columns >= starts.unsqueeze(1)) & (columns < ends.unsqueeze(1))


def mask_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where `mask` is True and -inf elsewhere: adding it is many times faster on CPU than
    `masked_fill_`."""
    zero = torch.zeros((), dtype=dtype, device=mask.device)
    return torch.where(mask, zero, zero.new_full((), -torch.inf))


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which scores and softmax live: float32 for half precision, the input's own otherwise."""
    return torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype
