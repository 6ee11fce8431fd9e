"""Random inputs of the shapes of DeepSeek-V3.2 (671B), made on the device."""

from __future__ import annotations

import torch
from torch import Tensor

LATENT, ROPE, NOPE, VALUE = 512, 64, 128, 128
"""Columns of a latent row, of its rope part, and of an unabsorbed head's key (without rope) and value."""
DIM = LATENT + ROPE
SCALE = (NOPE + ROPE) ** -0.5
INDEX_HEADS, INDEX_DIM = 64, 128
CACHE_BYTES = {"bf16": 2 * DIM, "fp8": LATENT + 4 * 4 + 2 * ROPE}
"""Bytes of one token in the latent cache."""


def normal(*shape: int, device: torch.device, dtype: torch.dtype = torch.bfloat16, scale: float = 1.0) -> Tensor:
    """Normal values of standard deviation `scale`, filled in place: no float32 copy of a large tensor."""
    return torch.empty(*shape, dtype=dtype, device=device).normal_(0, scale)


def index_inputs(queries: int, keys: int, heads: int, dim: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """q [M, J, d], k [N, d] in bf16, and weights [M, J] in float32 of both signs with the two scales folded in."""
    weights = normal(queries, heads, device=device, dtype=torch.float32, scale=(heads * dim) ** -0.5)
    return normal(queries, heads, dim, device=device), normal(keys, dim, device=device), weights


def selection(queries: int, keys: int, k: int, device: torch.device) -> Tensor:
    """[M, k] int32: for each of the last M queries over `keys` keys, k random keys that it may see, ascending."""
    ends = torch.arange(keys - queries + 1, keys + 1, device=device)
    chosen = torch.full((queries, k), -1, dtype=torch.int32, device=device)
    step = max(1, 2**28 // keys)
    for first in range(0, queries, step):
        rows = slice(first, min(first + step, queries))
        luck = torch.rand(rows.stop - first, keys, device=device)
        luck.masked_fill_(torch.arange(keys, device=device) >= ends[rows, None], -1)
        best = luck.topk(min(k, keys), dim=-1)
        # A key that is not visible sorts behind every real one.
        found = best.indices.masked_fill(best.values < 0, keys).sort(-1).values
        chosen[rows, : found.shape[1]] = found.masked_fill(found == keys, -1).int()
    return chosen


def causal_ranges(queries: int, keys: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """starts and ends [M] int32 of the last M queries of one sequence of `keys` tokens."""
    ends = torch.arange(keys - queries + 1, keys + 1, dtype=torch.int32, device=device)
    return torch.zeros_like(ends), ends


def full_ranges(queries: int, keys: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """starts and ends [M] int32 of queries that see every key."""
    starts = torch.zeros(queries, dtype=torch.int32, device=device)
    return starts, torch.full_like(starts, keys)
