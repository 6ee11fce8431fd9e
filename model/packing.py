"""Packed variable-length batches: sequences one after another, without padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class SharedPrompts:
    """What sequences of a batch begin with in common, so that it is computed once.

    owner [N]: the first sequence with the same prompt; length [N]: tokens of that prompt.
    """

    owner: np.ndarray
    length: np.ndarray

    @classmethod
    def find(cls, prompts: Sequence[np.ndarray]) -> SharedPrompts | None:
        """Compares the prompts of the sequences; None where no two are the same."""
        first: dict[tuple[int, ...], int] = {}
        owner = [first.setdefault(tuple(prompt.tolist()), i) for i, prompt in enumerate(prompts)]
        if len(first) == len(prompts):
            return None
        return cls(np.array(owner), np.array([len(prompt) for prompt in prompts]))


@dataclass(frozen=True)
class PackedBatch:
    """N sequences, T tokens in all.

    input_ids [T] int64; position_ids [T] int64, from 0 in each sequence; cu_seqlens [N + 1] int32, where
    sequence i holds the tokens `cu_seqlens[i]:cu_seqlens[i + 1]`; max_seqlen is the longest sequence; shared says
    what the model may compute once for several sequences, which changes no result.
    """

    input_ids: Tensor
    position_ids: Tensor
    cu_seqlens: Tensor
    max_seqlen: int
    shared: SharedPrompts | None = None

    @classmethod
    def from_sequences(cls, sequences: Sequence[Sequence[int] | np.ndarray | Tensor]) -> PackedBatch:
        """Packs token id sequences, each at least one token long."""
        if not sequences:
            raise ValueError("a packed batch needs at least one sequence")
        parts = [torch.as_tensor(sequence, dtype=torch.long) for sequence in sequences]
        empty = [i for i, part in enumerate(parts) if part.numel() == 0]
        if empty:
            raise ValueError(f"sequence {empty[0]} is empty; a packed sequence needs at least one token")
        return cls.from_lengths(torch.cat(parts), [len(part) for part in parts])

    @classmethod
    def from_lengths(cls, input_ids: Tensor, lengths: Sequence[int]) -> PackedBatch:
        """Packs ids [T] that already follow one another, given each sequence's length."""
        sizes = np.asarray(lengths, dtype=np.int64)
        ends = sizes.cumsum()
        if len(sizes) == 0 or ends[-1] != len(input_ids):
            raise ValueError(f"sequence lengths sum to {sizes.sum()}, but there are {len(input_ids)} tokens")
        positions = np.arange(ends[-1]) - np.repeat(ends - sizes, sizes)
        cu_seqlens = torch.from_numpy(np.concatenate([[0], ends]).astype(np.int32))
        device = input_ids.device
        return cls(input_ids, torch.from_numpy(positions).to(device), cu_seqlens.to(device), int(sizes.max()))

    @property
    def lengths(self) -> list[int]:
        """Tokens of each sequence."""
        return (self.cu_seqlens[1:] - self.cu_seqlens[:-1]).tolist()

    def to(self, device: torch.device | str) -> PackedBatch:
        """The same batch on another device."""
        return PackedBatch(
            self.input_ids.to(device),
            self.position_ids.to(device),
            self.cu_seqlens.to(device),
            self.max_seqlen,
            self.shared,
        )

    def unpack(self, values: Tensor) -> list[Tensor]:
        """Cuts per-token `values` [T, ...] into one tensor for each sequence."""
        if len(values) != len(self.input_ids):
            raise ValueError(f"the batch has {len(self.input_ids)} tokens, but {len(values)} values came")
        return list(values.split(self.lengths))
