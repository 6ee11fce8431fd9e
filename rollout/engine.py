"""Engines that write tokens: one door (`Engine`), and the project's own torch engine behind it.

An engine gives back, for each token, the log-probability under the very distribution that it was drawn from. A draw
depends on the request's seed and on the position alone: batch companions, order and retries change nothing but
rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch

from model import DeepseekForCausalLM, LatentCache, PackedBatch


@dataclass(frozen=True)
class Generation:
    """A request: continue `token_ids` by at most `max_new_tokens`."""

    token_ids: Sequence[int]
    seed: int
    max_new_tokens: int


@dataclass(frozen=True)
class Completion:
    """What was written: `token_ids` [n] (the end token included where it was written), `logprobs` [n] float32."""

    token_ids: np.ndarray
    logprobs: np.ndarray
    stop_reason: Literal["stop", "length"]


class Engine(Protocol):
    """What the conversation loop and the judge's server need of an engine."""

    version: int
    """Version of the weights that write now."""

    def generate(self, requests: Sequence[Generation], temperature: float) -> list[Completion]:
        """Completions in the order of the requests."""


class TorchEngine:
    """Batched decoding with the policy's own model and latent cache.

    Requests are sorted by length, run `max_batch` at a time, and the batch is made compact as rows end.

    Args:
        model: shared with the learner where both live in one process.
        end_token_id: ends a turn.
        max_batch: rows decoded together.
    """

    def __init__(self, model: DeepseekForCausalLM, end_token_id: int, max_batch: int = 256, version: int = 0) -> None:
        self.model = model
        self.end_token_id = end_token_id
        self.max_batch = max_batch
        self.version = version

    @torch.inference_mode()
    def generate(self, requests: Sequence[Generation], temperature: float) -> list[Completion]:
        """See `Engine`. Raises `ValueError` for an empty prompt or a request for no tokens."""
        for request in requests:
            if request.max_new_tokens < 1 or not len(request.token_ids):
                raise ValueError(
                    f"expected a prompt and max_new_tokens of at least 1, got {len(request.token_ids)} tokens and "
                    f"max_new_tokens={request.max_new_tokens}"
                )
        was_training = self.model.training
        self.model.eval()
        try:
            results: list[Completion | None] = [None] * len(requests)
            order = sorted(range(len(requests)), key=lambda i: len(requests[i].token_ids))
            for start in range(0, len(order), self.max_batch):
                rows = order[start : start + self.max_batch]
                for row, completion in zip(rows, self._batch([requests[i] for i in rows], temperature), strict=True):
                    results[row] = completion
        finally:
            self.model.train(was_training)
        return [completion for completion in results if completion is not None]

    def _batch(self, requests: list[Generation], temperature: float) -> list[Completion]:
        device = self.model.device
        limits = torch.tensor([r.max_new_tokens for r in requests])
        longest = int(limits.max())
        draws = torch.from_numpy(np.stack([uniforms(r.seed, longest) for r in requests])).to(device)
        capacity = max(len(r.token_ids) + r.max_new_tokens for r in requests)
        cache = LatentCache(self.model.config, len(requests), capacity, self.model.dtype, device)
        logits = self._prefill([tuple(r.token_ids) for r in requests], cache)

        tokens = np.zeros((len(requests), longest), dtype=np.int32)
        logprobs = np.zeros((len(requests), longest), dtype=np.float32)
        lengths = np.zeros(len(requests), dtype=np.int64)
        ended = np.zeros(len(requests), dtype=bool)
        alive = np.arange(len(requests))  # row of each live cache slot
        slots = torch.arange(len(requests), device=device)
        for position in range(longest):
            chosen, chosen_logprobs = sample(logits, draws[alive, position], temperature)
            tokens[alive, position] = chosen.cpu().numpy()
            logprobs[alive, position] = chosen_logprobs.cpu().numpy()
            lengths[alive] += 1
            ended[alive] = tokens[alive, position] == self.end_token_id
            going = ~ended[alive] & (lengths[alive] < limits.numpy()[alive])
            if not going.any():
                break
            if not going.all():
                kept = torch.from_numpy(np.flatnonzero(going)).to(device)
                alive, chosen = alive[going], chosen[kept]
                cache.keep(kept)
                slots = torch.arange(len(alive), device=device)
            logits = self.model.decode(chosen, cache, slots)
        return [
            Completion(tokens[i, : lengths[i]], logprobs[i, : lengths[i]], "stop" if ended[i] else "length")
            for i in range(len(requests))
        ]

    def _prefill(self, prompts: list[tuple[int, ...]], cache: LatentCache) -> torch.Tensor:
        """Fills the cache and returns next-token logits [B, V]. A prompt that several requests share, as those of a
        group do, is run once and what it left in the cache is copied."""
        numbers: dict[tuple[int, ...], int] = {}
        source = torch.tensor([numbers.setdefault(prompt, len(numbers)) for prompt in prompts])
        longest = max(len(prompt) for prompt in numbers)
        once = LatentCache(self.model.config, len(numbers), longest, self.model.dtype, self.model.device)
        batch = PackedBatch.from_sequences(list(numbers)).to(self.model.device)
        logits = self.model.prefill(batch, once, torch.arange(len(numbers)))
        cache.lengths.copy_(once.lengths[source])
        source = source.to(self.model.device)
        for store, filled in ((cache.kv, once.kv), (cache.index_k, once.index_k)):
            if store is not None and filled is not None:
                for layer, values in zip(store, filled, strict=True):
                    layer[:, :longest] = values[source]
        return logits[source]


def uniforms(seed: int, count: int) -> np.ndarray:
    """[count] float64 in [0, 1): draw `t` of a request is the same however many are asked for."""
    return np.random.Generator(np.random.Philox(key=seed)).random(count)


def sample(logits: torch.Tensor, uniform: torch.Tensor, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Draws a token per row by inverse transform.

    Args:
        logits: [B, V].
        uniform: [B] in [0, 1).
        temperature: 0 takes the most likely token, whose reported log-probability is that at temperature 1.

    Returns:
        tokens [B] int64, their log-probabilities [B] float32.
    """
    logprobs = torch.log_softmax(logits.float() / (temperature or 1.0), dim=-1)
    if temperature == 0:
        chosen = logprobs.argmax(dim=-1)
    else:
        cumulative = logprobs.double().exp().cumsum(dim=-1)
        target = (uniform * cumulative[:, -1]).unsqueeze(-1)
        chosen = torch.searchsorted(cumulative, target, right=True).squeeze(-1).clamp_(max=logits.shape[-1] - 1)
    return chosen, logprobs.gather(-1, chosen.unsqueeze(-1)).squeeze(-1)
