"""What is measured of a model on held-out texts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from model import DeepseekForCausalLM, DsaStats
from pipeline.learning.text_batches import TextBatch, text_loss

LAYER_FIGURES = ("kl", "topk_mass", "tie_rate", "margin")
"""Fields of `LayerStats` that are logged."""


@torch.no_grad()
def measure(model: DeepseekForCausalLM, batches: Sequence[TextBatch], attention: str) -> dict[str, Any]:
    """LM loss (nats per token) and, for a sparse model, per layer what `LayerStats` says of it, means over batches."""
    model.eval()
    sparse = model.config.model_type == "deepseek_v32"
    loss, tokens, layers = 0.0, 0, []
    for batch in (b.to(model.device) for b in batches):
        stats = DsaStats() if sparse else None
        output = model.hidden_states(batch.packed, attention=attention, collect=stats)
        counted = int(batch.mask.sum())
        loss += float(text_loss(model, batch, output.hidden)) * counted
        tokens += counted
        if stats is not None:
            layers.append([vars(layer) for layer in stats.layers])
    result: dict[str, Any] = {"loss": loss / tokens, "tokens": tokens}
    if layers:
        result["layers"] = [
            {name: sum(run[i][name] for run in layers) / len(layers) for name in layers[0][i]}
            for i in range(len(layers[0]))
        ]
    return result


def as_metrics(measured: Mapping[str, Any]) -> dict[str, float]:
    """What `measure` gave as flat metrics; what could not be measured (no query with more keys than top-k) is left
    out."""
    metrics = {"heldout/loss": measured["loss"]}
    for layer, figures in enumerate(measured.get("layers", ())):
        for name in LAYER_FIGURES:
            if not math.isnan(figures[name]):
                metrics[f"heldout/{name}/layer_{layer:02}"] = figures[name]
    return metrics
