"""The order in which the model computes a packed batch: groups of sequences of similar length, padded within
a group.

Attention over ragged sequences wants few large batched products. The whole model runs on the padded rows, so
that tokens move only at its entry (as ids) and at its exit (as final hidden states), not in each layer. Where
sequences share a prompt, as the samples of a GRPO group do, its rows are computed once, and each layer gathers the
latent rows of its keys, which are small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from kernels import Group, RowRanges
from model.packing import SharedPrompts

# Share of padding rows that a group may reach before the next shorter sequence opens a new one. More padding
# is wasted arithmetic in every layer; less means more and smaller products.
MAX_PADDING = 0.06


@dataclass(frozen=True)
class BlockLayout:
    """How T packed tokens lie in R padded rows.

    groups: consecutive groups, shared prompts first and then the sequences, each longest first; sequences: for
    each group the indices [n] of its sequences in the packed batch; row_token [R]: the token of each row (padding
    repeats token 0); token_row [T]: the row of each token; positions [R]: position inside the sequence; valid [R]
    bool, or None when no row is padding; key_row [S]: the row of each key, or None when keys are the rows.

    A prompt that several sequences share has rows once, in a group of its own. Groups of its sequences begin at
    `first`, behind what all of them share, and find the keys before it among the prompt's rows.
    """

    groups: tuple[Group, ...]
    sequences: tuple[Tensor, ...]
    row_token: Tensor
    token_row: Tensor
    positions: Tensor
    valid: Tensor | None
    key_row: Tensor | None = None

    @classmethod
    def build(cls, lengths: Sequence[int], device: torch.device, shared: SharedPrompts | None = None) -> BlockLayout:
        """Groups sequences of the given lengths, and the prompts that they share."""
        sizes = np.asarray(lengths, dtype=np.int64)
        starts = sizes.cumsum() - sizes
        members = _group(sizes)
        # The sequences of a group have rows from `first` on; the prompts' rows reach as far as any group needs.
        first, prompts, owner = np.zeros_like(sizes), np.zeros_like(sizes), np.arange(len(sizes))
        if shared is not None:
            owner = shared.owner
            for group in members:
                first[group] = shared.length[group].min()
        np.maximum.at(prompts, owner, first)
        owners = prompts.nonzero()[0]
        blocks = [(owners[group], prompts[owners[group]], 0) for group in _group(prompts[owners])]
        blocks += [(group, sizes[group], int(first[group[0]])) for group in members]

        padded = [_padded(starts[group], held, begin) for group, held, begin in blocks]
        row_token, position, mask = (np.concatenate([part[i].ravel() for part in padded]) for i in range(3))
        token_row = np.empty(int(sizes.sum()), dtype=np.int64)
        token_row[row_token[mask]] = mask.nonzero()[0]
        key_row = None
        if shared is not None:
            # A token before `first` has the row of the same token in its prompt's owner.
            sequence, token = np.arange(len(sizes)).repeat(sizes), np.arange(len(token_row))
            column = token - starts[sequence]
            token_row = token_row[np.where(column < first[sequence], starts[owner[sequence]] + column, token)]
            key_tokens = [_padded(starts[group], held, 0)[0].ravel() for group, held, _ in blocks]
            key_row = _tensor(token_row[np.concatenate(key_tokens)], device)
        return cls(
            tuple(Group(len(group), int(held[0]), begin) for group, held, begin in blocks),
            tuple(torch.from_numpy(group) for group, _, _ in blocks),
            _tensor(row_token, device),
            _tensor(token_row, device),
            _tensor(position, device),
            None if mask.all() else _tensor(mask, device),
            key_row,
        )

    @cached_property
    def ranges(self) -> RowRanges:
        """The keys that each row sees, for the operators in row layout. Padding sees none."""
        return RowRanges.of_groups(self.groups, self.row_token.device, self.valid)

    def keys(self, rows: Tensor) -> Tensor:
        """Rows [R, ...] as the groups' keys [S, ...]."""
        return rows if self.key_row is None else rows.index_select(0, self.key_row)


def _padded(starts: np.ndarray, sizes: np.ndarray, begin: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens (0 at padding), positions and validity [n, L - begin] of a group's rows from position `begin` on."""
    columns = np.arange(begin, sizes[0])
    inside = columns < sizes[:, None]
    return np.where(inside, starts[:, None] + columns, 0), np.broadcast_to(columns, inside.shape), inside


def _tensor(array: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)


def _group(sizes: np.ndarray) -> list[np.ndarray]:
    """Cuts sequences, longest first, into groups whose padding stays below `MAX_PADDING`."""
    order = np.argsort(-sizes, kind="stable")
    groups: list[np.ndarray] = []
    first, tokens = 0, 0
    for i, sequence in enumerate(order):
        tokens += sizes[sequence]
        if tokens < (1 - MAX_PADDING) * (i + 1 - first) * sizes[order[first]]:
            groups.append(order[first:i])
            first, tokens = i, sizes[sequence]
    return [*groups, order[first:]] if len(order) else []
