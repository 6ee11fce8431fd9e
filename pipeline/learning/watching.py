"""A look into the indexers while the model runs, under either body of the attention: the loss of each layer, and what
a few chosen queries select."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from kernels import topk_mask
from model import DeepseekForCausalLM
from model.attention import MLAttention
from model.context import ForwardContext
from model.rope import RopeTables

SCORES = 2**27
"""Scores (head, query, key) that exist at one time: 0.5 GiB in float32."""

Rounding = Callable[[Tensor], Tensor]


class Watched:
    """A layer with an indexer, at n chosen rows of one sequence of S tokens, just before it runs."""

    def __init__(self, layer: MLAttention, x: Tensor, context: ForwardContext, rows: Tensor) -> None:
        assert layer.indexer is not None
        self.layer, self.topk = layer.layer, layer.indexer.topk
        self.visible = torch.arange(len(x), device=x.device) <= rows.unsqueeze(1)
        """[n, S] bool, causal."""
        rope = RopeTables(*(table[rows] for table in (context.rope.pairs, context.rope.cos, context.rope.sin)))
        self._attention, self._x, self._rope = layer, x, context.rope
        self._parts = layer.project(x[rows], rope)
        self._queries, self._weights = layer.indexer.queries(self._parts.x, self._parts.q_latent, rope)
        self._keys = layer.indexer.keys(x, context.rope)

    def selected(self, rounding: Rounding = lambda x: x) -> Tensor:
        """[n, S] bool: the keys that the rows select, with `rounding` done to index queries and keys first."""
        return topk_mask(self.scores(rounding), self.topk)

    def scores(self, rounding: Rounding = lambda x: x) -> Tensor:
        """Index scores [n, S] float32, -inf at hidden keys."""
        queries, keys = rounding(self._queries).float(), rounding(self._keys).float()
        scores = []
        for some, weights in self._by_rows(queries, self._weights.float()):
            scores.append(torch.einsum("njs,nj->ns", (some @ keys.t()).relu_(), weights))
        return torch.cat(scores).masked_fill_(~self.visible, -torch.inf)

    def dense_mass(self) -> Tensor:
        """Head-averaged dense attention [n, S] float32 of the rows."""
        kv = self._attention.project(self._x, self._rope).kv()
        mass = []
        for some, visible in self._by_rows(self._parts.absorbed_q(), self.visible):
            scores = (some @ kv.t()).float() * self._attention.scale
            mass.append(scores.masked_fill_(~visible.unsqueeze(1), -torch.inf).softmax(-1).mean(1))
        return torch.cat(mass)

    def _by_rows(self, heads: Tensor, beside: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Slices of [n, heads, d] and of what stands beside it, whose scores are few enough."""
        count = max(1, SCORES // (heads.shape[1] * self.visible.shape[1]))
        return zip(heads.split(count), beside.split(count), strict=True)


@contextmanager
def watch_rows(model: DeepseekForCausalLM, rows: Tensor, saw: Callable[[Watched], None]) -> Iterator[None]:
    """Calls `saw` in every layer with an indexer while a batch of *one* sequence runs; rows [n] are positions in it."""

    def before(layer: MLAttention, arguments: tuple[Tensor, ForwardContext]) -> None:
        x, context = arguments
        with torch.no_grad():
            saw(Watched(layer, x, context, rows.to(x.device)))

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
