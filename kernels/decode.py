"""MLA attention of one new token per sequence over a flat cache of latent rows, in the absorbed (MQA) form."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.backend import use_triton
from kernels.quantize import LATENT_BLOCK, dequantize_latent
from kernels.sparse_mla import check_rows, sparse_mla_attention


def sparse_mla_decode(
    q: Tensor, cache: Tensor, indices: Tensor, scale: float, value_dim: int, split: int | None = None
) -> tuple[Tensor, Tensor]:
    """Attention over the selected rows of a cache. No gradient.

    Args:
        q: [B, H, D] absorbed queries, D = kv_lora_rank + qk_rope_head_dim.
        cache: [rows, D] in q's dtype, or FP8 rows as `kernels.quantize.quantize_latent` packs them (uint8; 656 bytes
            for 512 + 64). Rows must be 16-byte aligned.
        indices: [B, k] int32 or int64 rows of the cache, -1 for no key.
        scale: softmax scale of the unabsorbed head size.
        value_dim: kv_lora_rank.
        split: keys of one program on the GPU, a power of two; the partial results of a row are added in a fixed order.
            A row's bits depend on it, but not on the other rows. None takes the fastest; k or more gives, over a cache
            in q's dtype, bit for bit what `sparse_mla_attention` gives, so that sampler and learner agree.

    Returns:
        out [B, H, value_dim] in q's dtype and lse [B, H], natural log; 0 and -inf for a row without a key.

    Raises:
        ValueError: shapes or dtypes that do not belong together.
    """
    _check(q, cache, value_dim)
    if indices.ndim != 2 or len(indices) != len(q):
        raise ValueError(f"indices must be [{len(q)}, k], one row for each query; they are {list(indices.shape)}")
    keys = indices.shape[1]
    packed = cache.dtype == torch.uint8
    if not packed and split is not None and split >= keys:
        return sparse_mla_attention(q, cache, indices, scale, value_dim)
    if use_triton(q):
        return _sparse_decode(q, cache, indices, scale, value_dim, split)
    rows = dequantize_latent(cache, value_dim, q.dtype) if packed else cache
    return sparse_mla_attention(q, rows, indices, scale, value_dim)


def dense_mla_decode(
    q: Tensor,
    cache: Tensor,
    starts: Tensor,
    ends: Tensor,
    longest: int,
    scale: float,
    value_dim: int,
    split: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Attention over the rows `starts[b] <= row < ends[b]` of a cache: dense models, and sparse ones while a sequence
    is no longer than k, where the selection takes every key. No gradient.

    Args:
        starts, ends: [B] int32 rows; equal for a sequence without a key.
        longest: a bound on ends - starts, on the host: it sizes the grid and the partial results ([B, longest / split,
            H, value_dim] float32), and changes no bit.
        q, cache, scale, value_dim, split: as for `sparse_mla_decode`; `split` >= `longest` gives its bits for the
            same keys.

    Returns:
        As `sparse_mla_decode`.
    """
    _check(q, cache, value_dim)
    if use_triton(q):
        return _dense_decode(q, cache, starts, ends, longest, scale, value_dim, split)
    offsets = torch.arange(longest, device=q.device)
    rows = starts.unsqueeze(1) + offsets
    indices = rows.where(rows < ends.unsqueeze(1), -1)
    return sparse_mla_decode(q, cache, indices, scale, value_dim)


def _check(q: Tensor, cache: Tensor, value_dim: int) -> None:
    if cache.dtype != torch.uint8:
        return check_rows(q, cache, value_dim)
    row = value_dim + 4 * (value_dim // LATENT_BLOCK) + 2 * (q.shape[2] - value_dim)
    if value_dim % LATENT_BLOCK or cache.ndim != 2 or cache.shape[1] != row:
        raise ValueError(
            f"an FP8 cache for {value_dim} latent (a multiple of {LATENT_BLOCK}) and {q.shape[2] - value_dim} rope "
            f"columns has rows of {row} bytes; this one is {list(cache.shape)}"
        )


@torch.library.custom_op("polymath::sparse_mla_decode", mutates_args=())
def _sparse_decode(
    q: Tensor, cache: Tensor, indices: Tensor, scale: float, value_dim: int, split: int | None
) -> tuple[Tensor, Tensor]:
    from kernels.decode_triton import decode

    return decode(q, cache, scale, value_dim, split, indices.shape[1], indices=indices.contiguous())


@_sparse_decode.register_fake
def _(
    q: Tensor, cache: Tensor, indices: Tensor, scale: float, value_dim: int, split: int | None
) -> tuple[Tensor, Tensor]:
    return q.new_empty(*q.shape[:2], value_dim), q.new_empty(q.shape[:2], dtype=torch.float32)


@torch.library.custom_op("polymath::dense_mla_decode", mutates_args=())
def _dense_decode(
    q: Tensor,
    cache: Tensor,
    starts: Tensor,
    ends: Tensor,
    longest: int,
    scale: float,
    value_dim: int,
    split: int | None,
) -> tuple[Tensor, Tensor]:
    from kernels.decode_triton import decode

    return decode(q, cache, scale, value_dim, split, longest, bounds=(starts, ends))


@_dense_decode.register_fake
def _(
    q: Tensor,
    cache: Tensor,
    starts: Tensor,
    ends: Tensor,
    longest: int,
    scale: float,
    value_dim: int,
    split: int | None,
) -> tuple[Tensor, Tensor]:
    return q.new_empty(*q.shape[:2], value_dim), q.new_empty(q.shape[:2], dtype=torch.float32)
