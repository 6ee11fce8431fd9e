"""A look into the indexers while the model runs, under either body of the attention: the loss of each layer, and what
a few chosen queries select."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from model import DeepseekForCausalLM
from model.attention import MLAttention
from model.context import ForwardContext, Projections
from model.rope import RopeTables


@dataclass(frozen=True)
class IndexerInputs:
    """One layer's indexer at n chosen rows of one sequence of S keys.

    queries [n, J, d], weights [n, J] (scales folded in), keys [S, d], visible [n, S] bool (causal).
    """

    queries: Tensor
    weights: Tensor
    keys: Tensor
    visible: Tensor

    def scores(self, rounding: Callable[[Tensor], Tensor] = lambda x: x) -> Tensor:
        """Index scores [n, S], -inf at hidden keys; `rounding` is done to queries and keys first."""
        queries, keys = rounding(self.queries).float(), rounding(self.keys).float()
        dots = (queries @ keys.t()).relu_()
        scores = torch.einsum("njs,nj->ns", dots, self.weights.float())
        return scores.masked_fill_(~self.visible, -torch.inf)


@contextmanager
def watch_indexers(
    model: DeepseekForCausalLM, rows: Tensor, saw: Callable[[MLAttention, IndexerInputs, Projections], None]
) -> Iterator[None]:
    """Calls `saw(layer, inputs, projections)` in every layer with an indexer, while a batch of *one* sequence runs.

    rows [n] are positions of the sequence; `projections` are those of all its rows.
    """

    def before(layer: MLAttention, arguments: tuple[Tensor, ForwardContext]) -> None:
        x, context = arguments
        assert layer.indexer is not None
        with torch.no_grad():
            parts, at = layer.project(x, context.rope), rows.to(x.device)
            rope = RopeTables(*(table[at] for table in (context.rope.pairs, context.rope.cos, context.rope.sin)))
            queries, weights = layer.indexer.queries(parts.x[at], parts.q_latent[at], rope)
            visible = torch.arange(len(x), device=x.device) <= at.unsqueeze(1)
            keys = layer.indexer.keys(parts.x, context.rope)
            saw(layer, IndexerInputs(queries, weights, keys, visible), parts)

    with _removed([layer.register_forward_pre_hook(before) for layer in _sparse_layers(model)]):
        yield


@contextmanager
def watch_indexer_losses(model: DeepseekForCausalLM) -> Iterator[dict[int, Tensor]]:
    """Gives a mapping that is filled while a batch runs: layer -> its share of `indexer_loss`, detached."""
    losses: dict[int, Tensor] = {}

    def after(layer: MLAttention, arguments: tuple[Tensor, ForwardContext], output: Tensor) -> None:
        loss = arguments[1].indexer_losses.get(layer.layer)
        if loss is not None:
            losses[layer.layer] = loss.detach()

    with _removed([layer.register_forward_hook(after) for layer in _sparse_layers(model)]):
        yield losses


def _sparse_layers(model: DeepseekForCausalLM) -> list[MLAttention]:
    return [module for module in model.modules() if isinstance(module, MLAttention) and module.indexer is not None]


@contextmanager
def _removed(hooks: Sequence[RemovableHandle]) -> Iterator[None]:
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
