"""Deterministic top-k over index scores: the lowest key position wins a tie, a hidden key is never selected.

Ties are structural: a sum of ReLUs is exactly 0 wherever all index heads are inactive, so the k-th score often lies
on a plateau. `torch.topk` promises no order there; two calls that pick different keys run two different policies.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.backend import use_triton

MAX_K = 4096
"""Keys that the GPU's body of `topk_rows` can keep; the reference has no such limit."""


def topk_indices(scores: Tensor, k: int) -> Tensor:
    """Positions of the k largest scores of each row.

    Args:
        scores: [..., S]; -inf marks a key that the query may not see. No NaN.
        k: number of keys to keep, > 0.

    Returns:
        [..., k] int64, ascending, padded with -1 at the end where fewer than k keys are visible.
    """
    _check(scores, k)
    keys = scores.shape[-1]
    order = torch.sort(scores, dim=-1, descending=True, stable=True).indices[..., :k]
    # A hidden key gets the position `keys`, which sorts behind every real one and becomes -1.
    order = order.where(scores.gather(-1, order) > -torch.inf, keys).sort(-1).values
    order = order.where(order < keys, -1)
    return torch.nn.functional.pad(order, (0, k - order.shape[-1]), value=-1)


def topk_mask(scores: Tensor, k: int) -> Tensor:
    """The same set as `topk_indices`, as a mask [..., S]; several times faster, as no row is sorted.

    Every key above the k-th score is in. Keys that equal it fill the free places from the lowest position on.
    """
    _check(scores, k)
    if k >= scores.shape[-1]:
        return scores > -torch.inf
    threshold = scores.topk(k, dim=-1, sorted=False).values.amin(-1, keepdim=True)
    # With fewer than k visible keys the threshold is -inf; the floor keeps the hidden ones out.
    mask = scores >= threshold.clamp_min(torch.finfo(scores.dtype).min)
    tied = (mask.sum(-1) > k).nonzero(as_tuple=True)
    if tied[0].numel():
        rows, kth = scores[tied], threshold[tied]
        above, equal = rows > kth, rows == kth
        free = k - above.sum(-1, keepdim=True)
        mask[tied] = above | (equal & (equal.cumsum(-1) <= free))
    return mask


def topk_rows(scores: Tensor, k: int, starts: Tensor, ends: Tensor) -> Tensor:
    """Columns of the k largest scores of each row among its own range of columns.

    Exact and deterministic; a row's answer depends on that row alone. -0.0 equals 0.0, and -inf is a score like any
    other: the range alone says what a query may see.

    Args:
        scores: [M, N], the columns of a row contiguous. No NaN inside a row's range; what lies outside it is not read.
        k: keys to keep, > 0; on CUDA at most `MAX_K`.
        starts, ends: [M] int32. Row m chooses among the columns `starts[m]` to `ends[m] - 1`, 0 <= start, end <= N; a
            row whose end is not above its start chooses none.

    Returns:
        [M, k] int32 columns, ascending, padded with -1 at the end. The lowest column wins a tie.
    """
    _check(scores, k)
    if scores.dim() != 2 or starts.shape != scores.shape[:1] or ends.shape != scores.shape[:1]:
        raise ValueError(
            f"expected scores [M, N] and one start and end for each row, but got scores {list(scores.shape)}, "
            f"starts {list(starts.shape)} and ends {list(ends.shape)}"
        )
    if use_triton(scores):
        if k > MAX_K:
            raise ValueError(f"the GPU's top-k keeps at most {MAX_K} keys, but k is {k}")
        from kernels.topk_triton import topk_rows as body

        return body(scores.float(), k, starts, ends)
    columns = torch.arange(scores.shape[1], device=scores.device)
    outside = (columns < starts[:, None]) | (columns >= ends[:, None])
    order = torch.sort(scores.masked_fill(outside, -torch.inf), dim=-1, descending=True, stable=True).indices
    # A column outside the range comes after every column inside, whatever their scores.
    order = order.gather(1, outside.gather(1, order).byte().sort(stable=True).indices)[:, :k]
    order = order.where(~outside.gather(1, order), scores.shape[1]).sort(-1).values
    order = order.where(order < scores.shape[1], -1)
    return torch.nn.functional.pad(order, (0, k - order.shape[1]), value=-1).int()


def _check(scores: Tensor, k: int) -> None:
    if k <= 0:
        raise ValueError(f"top-k selects at least one key, but k is {k}")
    if not scores.is_floating_point():
        raise TypeError(f"index scores must be floating point, not {scores.dtype}")
