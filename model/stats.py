"""Telemetry of sparse attention: how well the indexer's selection covers what dense attention would look
at."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from kernels import (
    block_indexer_kl,
    head_summed_target,
    head_summed_target_rows,
    indexer_kl_rows,
    indexer_logits,
    indexer_logits_rows,
    tiles,
    topk_mask,
    topk_rows,
)
from kernels.block_mla import tile_probabilities
from model.layout import BlockLayout


@dataclass(frozen=True)
class LayerStats:
    """One layer, over the valid queries that have more than index_topk visible keys (`rows` of them; nan if
    none).

    kl: mean KL (nats) from dense head-summed attention to the indexer's softmax, over *all* valid rows.
    topk_mass: mean share of the dense attention that falls on the selected keys, 1 is perfect.
    tie_rate: share of queries whose k-th score is shared by a key that was left out.
    margin: mean distance from the k-th score to the best score left out; near 0, rounding can change the set.
    """

    rows: int
    kl: float
    topk_mass: float
    tie_rate: float
    margin: float

    @classmethod
    def of_sums(cls, layout: BlockLayout, kl: float, rows: int, mass: float, ties: int, margins: float) -> LayerStats:
        """Means, from the sum of KL over the layout's tokens and the other sums over `rows` queries."""
        kl /= len(layout.token_row)
        if rows == 0:
            return cls(0, kl, float("nan"), float("nan"), float("nan"))
        return cls(rows, kl, mass / rows, ties / rows, margins / rows)


@dataclass
class DsaStats:
    """Pass to `hidden_states(collect=...)`; `layers` then holds one entry for each layer."""

    layers: list[LayerStats] = field(default_factory=list)


@torch.no_grad()
def measure_layer(
    index_q: Tensor, index_k: Tensor, weights: Tensor, q: Tensor, kv: Tensor,
    layout: BlockLayout, scale: float, topk: int,
) -> LayerStats:  # fmt: skip
    """Measures one layer; arguments as for `block_indexer_kl`."""
    kl = block_indexer_kl(index_q, index_k, weights, q, kv, layout.groups, scale, layout.valid)
    mass, ties, margins, rows = 0.0, 0, 0.0, 0
    for tile in tiles(layout.groups):
        if tile.stop <= topk:
            continue
        counted = (torch.arange(tile.start, tile.stop, device=q.device) >= topk).expand(tile.group.n, -1)
        if layout.valid is not None:
            counted = counted & tile.queries(layout.valid)
        dense = head_summed_target(tile_probabilities(tile, q, kv, scale, None))[counted]
        scores = indexer_logits(tile.queries(index_q), tile.keys(index_k), tile.queries(weights))
        scores[..., tile.start :] += tile.causal_bias(scores)
        scores = scores[counted]
        mass += float((dense * topk_mask(scores, topk)).sum())
        best = scores.topk(topk + 1, dim=-1).values
        gap = best[:, topk - 1] - best[:, topk]
        ties, margins, rows = ties + int((gap == 0).sum()), margins + float(gap.sum()), rows + len(gap)
    return LayerStats.of_sums(layout, float(kl), rows, mass, ties, margins)


@torch.no_grad()
def measure_rows(
    index: tuple[Tensor, Tensor, Tensor], main: tuple[Tensor, Tensor, Tensor, Tensor], layout: BlockLayout,
    scale: float, topk: int,
) -> LayerStats:  # fmt: skip
    """Measures one layer in row layout: `index` and `main` are the arguments of `kernels.kl_rows.indexer_kl_rows`, in
    its order, up to the ranges."""
    ranges = layout.ranges
    kl = indexer_kl_rows(*index, *main, ranges.starts, ranges.ends, scale)
    held = ranges.ends - ranges.starts
    mass, ties, margins, rows = 0.0, 0, 0.0, 0
    for part, low, high in ranges.score_chunks:
        counted = (held[part] > topk).nonzero()[:, 0] + part.start
        if not len(counted):
            continue
        starts, ends = ranges.starts[counted] - low, ranges.ends[counted] - low
        q, k_nope, k_rope, lse = main[0][counted], main[1][low:high], main[2][low:high], main[3][counted]
        dense = head_summed_target_rows(q, k_nope, k_rope, lse, starts, ends, scale)
        scores = indexer_logits_rows(index[0][counted], index[1][low:high], index[2][counted], starts, ends)
        chosen = topk_rows(scores, topk, starts, ends).long()
        mass += float(dense.gather(1, chosen).sum())
        column = torch.arange(high - low, device=scores.device)
        hidden = (column < starts.unsqueeze(1)) | (column >= ends.unsqueeze(1))
        kth = scores.gather(1, chosen).amin(-1)
        left = scores.masked_fill_(hidden, -torch.inf).scatter_(1, chosen, -torch.inf).amax(-1)
        ties, margins, rows = ties + int((kth == left).sum()), margins + float((kth - left).sum()), rows + len(kth)
    return LayerStats.of_sums(layout, float(kl), rows, mass, ties, margins)
