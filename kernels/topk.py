"""Deterministic top-k over index scores: the lowest key position wins a tie, a hidden key is never selected.

Ties are structural: a sum of ReLUs is exactly 0 wherever all index heads are inactive, so the k-th score often lies
on a plateau. `torch.topk` promises no order there; two calls that pick different keys run two different policies.
"""

from __future__ import annotations

import torch
from torch import Tensor


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


def _check(scores: Tensor, k: int) -> None:
    if k <= 0:
        raise ValueError(f"top-k selects at least one key, but k is {k}")
    if not scores.is_floating_point():
        raise TypeError(f"index scores must be floating point, not {scores.dtype}")
