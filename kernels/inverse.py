"""Who selected a key: inverse lists of an index table, and gradients of keys summed along them.

A query's selected keys are a list; the gradient of a key is a sum over the queries whose lists hold it. Adding with
atomics makes that sum depend on the order in which programs finish. Here each pair (query, slot) writes its own row,
and a key's rows are added one after another in the order of the queries: the same bits every time.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.backend import use_triton


def inverse_lists(indices: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Pairs (query, slot) grouped by the key that they hold.

    Args:
        indices: [C, k] int32 key rows, -1 for no key; C * k < 2**31.
        rows: number of keys. It does not wait for the device, so it does not check that every index is below it.

    Returns:
        order [C * k] int32: pair numbers (query * k + slot) sorted by key, pairs of one key ascending, pairs without
        a key at the end. offsets [rows + 1] int32: key s owns order[offsets[s] : offsets[s + 1]].
    """
    flat = indices.reshape(-1)
    keys, order = torch.sort(torch.where(flat < 0, rows, flat), stable=True)
    bounds = torch.arange(rows + 1, dtype=keys.dtype, device=keys.device)
    return order.int(), torch.searchsorted(keys, bounds, out_int32=True)


def segment_sum(partials: Tensor, order: Tensor, offsets: Tensor, out: Tensor) -> None:
    """out[s] += sum of partials[order[i]] for offsets[s] <= i < offsets[s + 1], in place.

    The terms are added to what is in `out` one by one in list order. A call for all pairs therefore gives the same
    bits as calls for consecutive chunks of them: the chunk size is a matter of memory only.

    Args:
        partials: [C * k, D] one row per pair, fp32, bf16 or fp16. Rows of pairs without a key are not read.
        order, offsets: from `inverse_lists`.
        out: [rows, D] float32 (float64 for the reference).
    """
    if partials.shape != (len(order), out.shape[1]) or len(offsets) != len(out) + 1:
        raise ValueError(
            f"segment_sum got partials {tuple(partials.shape)}, {len(order)} pairs, {len(offsets)} offsets and out "
            f"{tuple(out.shape)}; expected partials [pairs, D], out [rows, D] and rows + 1 offsets"
        )
    if use_triton(out):
        from kernels.inverse_triton import segment_sum_triton

        segment_sum_triton(partials, order, offsets, out)
        return
    keyed = order[: int(offsets[-1])].long()
    counts = offsets.diff().long()
    owner = torch.repeat_interleave(torch.arange(len(out), device=out.device), counts, output_size=len(keyed))
    out.index_add_(0, owner, partials[keyed].to(out.dtype))
