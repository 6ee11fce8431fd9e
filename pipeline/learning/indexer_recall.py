"""How much of the dense attention the selection keeps when the indexer works in another precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from kernels.quantize import quantize_fp8
from model import DeepseekForCausalLM, PackedBatch
from pipeline.learning.watching import Rounding, Watched, watch_rows

QUERIES = 64
"""Queries of a sequence that are looked at, evenly among those with more keys than top-k."""


def _fp8(hadamard: bool) -> Rounding:
    """Rounds to what an FP8 indexer sees: e4m3 with one power-of-two scale a row, and back."""

    def rounded(x: Tensor) -> Tensor:
        quantised, scale = quantize_fp8(x, hadamard=hadamard, ue8m0=True)
        return quantised.float() * scale.unsqueeze(-1)

    return rounded


PRECISIONS: Mapping[str, Rounding] = {
    "unrounded": lambda x: x,
    "bf16": lambda x: x.bfloat16(),
    "fp8": _fp8(hadamard=False),
    "fp8_hadamard": _fp8(hadamard=True),
}


@torch.no_grad()
def recall_by_precision(
    model: DeepseekForCausalLM, sequences: Sequence[Tensor], precisions: Mapping[str, Rounding] = PRECISIONS
) -> dict[str, list[float]]:
    """Share of the dense attention mass on the selected keys, for each precision of the index queries and keys.

    Args:
        model: sparse; it runs on the selection of its own precision, only the measured scores are rounded.
        sequences: token ids [T] each; those that are not longer than index_topk have nothing to select and are skipped.
        precisions: by name; a Hadamard matrix is left out where the index heads' width is no power of two.

    Returns:
        for each precision one mean for each layer; empty lists where no sequence was long enough.
    """
    dim = model.config.index_head_dim
    precisions = {
        name: rounding for name, rounding in precisions.items() if "hadamard" not in name or not dim & (dim - 1)
    }
    sums: dict[str, dict[int, list[float]]] = {name: {} for name in precisions}

    def saw(watched: Watched) -> None:
        mass = watched.dense_mass()
        for name, rounding in precisions.items():
            kept = float((mass * watched.selected(rounding)).sum(-1).mean())
            sums[name].setdefault(watched.layer, []).append(kept)

    model.eval()
    first = model.config.index_topk
    for ids in sequences:
        if len(ids) > first:
            rows = torch.linspace(first, len(ids) - 1, min(QUERIES, len(ids) - first)).round().long()
            with watch_rows(model, rows, saw):
                model.hidden_states(PackedBatch.from_sequences([ids]).to(model.device))
    return {name: [sum(found[i]) / len(found[i]) for i in sorted(found)] for name, found in sums.items()}
