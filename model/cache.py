"""The latent cache: compressed kv, rope key and index key of each token, never expanded keys and values."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kernels import RowRanges
from model.layout import BlockLayout


@dataclass(frozen=True)
class SlotRows:
    """What one slot of a `LatentCache` holds of n tokens: kv [layers, n, w] and index_k [layers, n, d] or None."""

    kv: Tensor
    index_k: Tensor | None


class LatentCache:
    """Preallocated slots, one sequence each.

    kv: [layers, slots, max_length, kv_lora_rank + qk_rope_head_dim]; index_k: [layers, slots, max_length,
    index_head_dim], or None for a dense model; lengths: [slots] int64 on CPU, tokens held by each slot. What
    lies in a slot beyond its length is stale and never read by a real query.
    """

    def __init__(
        self, config: Any, num_slots: int, max_length: int, dtype: torch.dtype, device: torch.device | str
    ) -> None:
        shape = (config.num_hidden_layers, num_slots, max_length)
        width = config.kv_lora_rank + config.qk_rope_head_dim
        self.num_slots, self.max_length = num_slots, max_length
        self.kv = torch.zeros(*shape, width, dtype=dtype, device=device)
        index_dim = getattr(config, "index_head_dim", None)
        self.index_k = None if index_dim is None else torch.zeros(*shape, index_dim, dtype=dtype, device=device)
        self.lengths = torch.zeros(num_slots, dtype=torch.long)

    def reset(self, slots: Tensor | None = None) -> None:
        """Empties the given slots, or all."""
        if slots is None:
            self.lengths.zero_()
        else:
            self.lengths[slots.cpu()] = 0

    def keep(self, slots: Tensor) -> None:
        """Keeps the given slots, all different: slot i becomes the i-th of them, the others are emptied.

        Finished sequences leave this way, so that the ones that go on stay side by side and decode reads them in
        place. Only the slots that change their place are copied.
        """
        slots = slots.cpu()
        if len(slots.unique()) != len(slots):
            raise ValueError("slots to keep must be distinct")
        places = (slots != torch.arange(len(slots))).nonzero()[:, 0]
        lengths = self.lengths[slots]
        if len(places):
            longest = int(lengths[places].max())
            target, source = places.to(self.kv.device), slots[places].to(self.kv.device)
            for store in (self.kv, self.index_k):
                if store is not None:
                    for layer in store:
                        layer[target, :longest] = layer[source, :longest]
        self.lengths.zero_()
        self.lengths[: len(slots)] = lengths

    def read_slot(self, slot: int) -> SlotRows:
        """A copy of what a slot holds."""
        length = int(self.lengths[slot])
        index_k = None if self.index_k is None else self.index_k[:, slot, :length].clone()
        return SlotRows(self.kv[:, slot, :length].clone(), index_k)

    def write_slot(self, slot: int, rows: SlotRows) -> None:
        """Makes a slot hold what `read_slot` read, from this cache or another of the same model."""
        length = rows.kv.shape[1]
        if length > self.max_length:
            raise ValueError(f"{length} tokens do not fit in a cache with room for {self.max_length}")
        self.kv[:, slot, :length] = rows.kv
        if self.index_k is not None and rows.index_k is not None:
            self.index_k[:, slot, :length] = rows.index_k
        self.lengths[slot] = length

    def bytes_per_token(self) -> int:
        """Bytes that one token takes over all layers."""
        stores = [self.kv] if self.index_k is None else [self.kv, self.index_k]
        return sum(store.shape[0] * store.shape[-1] * store.element_size() for store in stores)


@dataclass(frozen=True)
class CacheStep:
    """Where one call's new rows go in the cache, and what its queries may see.

    rows: [V] valid rows of the call (None when all are); row_slot, row_position [V]: their place; places: slot and
    position [R] of all rows, on the host; groups: for each group of the layout its slots and its causal bias; fresh:
    whether all slots were empty.
    """

    cache: LatentCache
    rows: Tensor | None
    row_slot: Tensor
    row_position: Tensor
    places: tuple[Tensor, Tensor]
    groups: tuple[CacheGroup, ...]
    fresh: bool

    @classmethod
    def build(cls, cache: LatentCache, slots: Tensor, lengths: list[int], layout: BlockLayout) -> CacheStep:
        """Plans appending `lengths[i]` tokens to slot `slots[i]`."""
        slots = slots.cpu()
        if len(slots) != len(lengths):
            raise ValueError(f"{len(lengths)} sequences but {len(slots)} slots")
        if len(slots.unique()) != len(slots):
            raise ValueError("a slot was given twice in one call")
        if len(slots) and not 0 <= int(slots.min()) <= int(slots.max()) < cache.num_slots:
            raise ValueError(f"slots must lie in 0..{cache.num_slots - 1}, but they reach {int(slots.max())}")
        ends = cache.lengths[slots] + torch.tensor(lengths)
        if int(ends.max()) > cache.max_length:
            raise ValueError(
                f"slot {int(slots[ends.argmax()])} would hold {int(ends.max())} tokens, but "
                f"the cache has room for {cache.max_length}; "
                "make it with a larger max_length or stop the sequence"
            )
        device, fresh = cache.kv.device, not bool(cache.lengths[slots].any())
        row_slot, row_position, groups = [], [], []
        for (n, length, _), members in zip(layout.groups, layout.sequences, strict=True):
            group_slots = slots[members]
            positions = cache.lengths[group_slots].unsqueeze(1) + torch.arange(length)
            row_slot.append(group_slots.repeat_interleave(length))
            row_position.append(positions.flatten())
            groups.append(CacheGroup.build(n, group_slots, positions.to(device), int(ends[members].max())))
        places = torch.cat(row_slot), torch.cat(row_position)
        slot, position = (place.to(device) for place in places)
        if layout.valid is None:
            return cls(cache, None, slot, position, places, tuple(groups), fresh)
        rows = layout.valid.nonzero()[:, 0]
        return cls(cache, rows, slot[rows], position[rows], places, tuple(groups), fresh)

    @property
    def decoding(self) -> bool:
        """Whether each slot gets one token."""
        return all(group.positions.shape[1] == 1 for group in self.groups)

    @cached_property
    def ranges(self) -> RowRanges:
        """The keys that each row of the call sees, as rows of a layer's flattened store; padding sees none."""
        slot, position = (place.numpy() for place in self.places)
        starts = slot * self.cache.max_length
        spans = np.stack([starts, starts + position + 1], axis=-1)
        if self.rows is not None:
            padding = np.delete(np.arange(len(spans)), self.rows.cpu().numpy())
            spans[padding, 1] = spans[padding, 0]
        return RowRanges.build(spans, self.row_slot.device)

    def write(self, store: Tensor, values: Tensor) -> None:
        """Puts a layer's new rows `values` [R, w] into that layer's `store` [slots, max_length, w]."""
        store[self.row_slot, self.row_position] = (values if self.rows is None else values[self.rows]).to(store.dtype)


@dataclass(frozen=True)
class CacheGroup:
    """One group's keys: slots (a slice when they lie side by side, which reads the cache in place), positions
    [n, L] of its queries, and key_count S."""

    slots: slice | Tensor
    positions: Tensor
    key_count: int

    @classmethod
    def build(cls, n: int, slots: Tensor, positions: Tensor, key_count: int) -> CacheGroup:
        device = positions.device
        first = int(slots[0])
        side_by_side = bool((slots == torch.arange(first, first + n)).all())
        return cls(slice(first, first + n) if side_by_side else slots.to(device), positions, key_count)

    @cached_property
    def bias(self) -> Tensor:
        """[n, L, S]: 0 up to each query's own position and -inf behind it. Made once for all layers, and only where the
        attention reads it: at 128K it would be 64 GiB."""
        hidden = torch.arange(self.key_count, device=self.positions.device) > self.positions.unsqueeze(-1)
        return torch.zeros(hidden.shape, device=hidden.device).masked_fill_(hidden, -torch.inf)

    def read(self, store: Tensor) -> Tensor:
        """This group's keys [n, S, w] from a layer's store [slots, max_length, w]."""
        return store[self.slots, : self.key_count]
