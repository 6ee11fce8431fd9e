"""The order in which the model computes a packed batch: groups of sequences of similar length, padded within
a group.

Attention over ragged sequences wants few large batched products. The whole model runs on the padded rows, so
that tokens move only at its entry (as ids) and at its exit (as final hidden states), not in each layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

# Share of padding rows that a group may reach before the next shorter sequence opens a new one. More padding
# is wasted arithmetic in every layer; less means more and smaller products.
MAX_PADDING = 0.06


@dataclass(frozen=True)
class BlockLayout:
    """How T packed tokens lie in R >= T padded rows.

    groups: `(n, L)` of consecutive groups, longest first; sequences: for each group the indices [n] of its
        sequences in
    the packed batch; row_token [R]: the token of each row (padding repeats token 0); token_row [T]: the row
    of each token; positions [R]: position inside the sequence; valid [R] bool, or None when no row is
    padding.
    """

    groups: tuple[tuple[int, int], ...]
    sequences: tuple[Tensor, ...]
    row_token: Tensor
    token_row: Tensor
    positions: Tensor
    valid: Tensor | None

    @classmethod
    def build(cls, lengths: Sequence[int], device: torch.device) -> BlockLayout:
        """Groups sequences of the given lengths."""
        sizes = np.asarray(lengths, dtype=np.int64)
        order = np.argsort(-sizes, kind="stable")
        starts = sizes.cumsum() - sizes
        token, position, valid, groups, sequences = [], [], [], [], []
        for members in _group(sizes, order):
            length = int(sizes[members[0]])
            columns = np.arange(length)
            inside = columns < sizes[members, None]
            token.append(np.where(inside, starts[members, None] + columns, 0).ravel())
            position.append(np.broadcast_to(columns, inside.shape).ravel())
            valid.append(inside.ravel())
            groups.append((len(members), length))
            sequences.append(torch.from_numpy(members))
        row_token, mask = np.concatenate(token), np.concatenate(valid)
        token_row = np.empty(int(sizes.sum()), dtype=np.int64)
        token_row[row_token[mask]] = mask.nonzero()[0]

        def tensor(array: np.ndarray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(device)

        return cls(
            tuple(groups),
            tuple(sequences),
            tensor(row_token),
            tensor(token_row),
            tensor(np.concatenate(position)),
            None if mask.all() else tensor(mask),
        )


def _group(sizes: np.ndarray, order: np.ndarray) -> list[np.ndarray]:
    """Cuts sequences, longest first, into groups whose padding stays below `MAX_PADDING`."""
    groups, first, tokens = [], 0, 0
    for i, sequence in enumerate(order):
        tokens += sizes[sequence]
        if tokens < (1 - MAX_PADDING) * (i + 1 - first) * sizes[order[first]]:
            groups.append(order[first:i])
            first, tokens = i, sizes[sequence]
    groups.append(order[first:])
    return groups
