"""Engines that write tokens: one door (`Engine`), and the project's own torch engine behind it.

An engine gives back, for each token, the log-probability under the very distribution that it was drawn from. A draw
depends on the request's seed and on the position alone: batch companions, order and retries change nothing but
rounding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch

from model import DeepseekForCausalLM, LatentCache, NextTokens, PackedBatch, SlotRows


@dataclass(frozen=True)
class Generation:
    """A request: continue `token_ids` by at most `max_new_tokens`.

    With a `conversation` number, what the engine computed for the turn before, in the call before, is used again as far
    as its tokens begin this request.
    """

    token_ids: Sequence[int]
    seed: int
    max_new_tokens: int
    conversation: int | None = None


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
        version: of the weights. Whoever changes them sets it, so that no turn goes on from what older ones computed.
    """

    def __init__(self, model: DeepseekForCausalLM, end_token_id: int, max_batch: int = 256, version: int = 0) -> None:
        self.model = model
        self.end_token_id = end_token_id
        self.max_batch = max_batch
        self.version = version
        self._turns: dict[int, _Turn] = {}

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
        earlier = {number: turn for number, turn in self._turns.items() if turn.version == self.version}
        self._turns = {}
        try:
            results: list[Completion | None] = [None] * len(requests)
            order = sorted(range(len(requests)), key=lambda i: len(requests[i].token_ids))
            for start in range(0, len(order), self.max_batch):
                rows = order[start : start + self.max_batch]
                completions = self._batch([requests[i] for i in rows], temperature, earlier)
                for row, completion in zip(rows, completions, strict=True):
                    results[row] = completion
        finally:
            self.model.train(was_training)
        return [completion for completion in results if completion is not None]

    def _batch(self, requests: list[Generation], temperature: float, earlier: Mapping[int, _Turn]) -> list[Completion]:
        device = self.model.device
        limits = torch.tensor([r.max_new_tokens for r in requests])
        longest = int(limits.max())
        draws = torch.from_numpy(np.stack([uniforms(r.seed, longest) for r in requests])).to(device)
        capacity = max(len(r.token_ids) + r.max_new_tokens for r in requests)
        cache = LatentCache(self.model.config, len(requests), capacity, self.model.dtype, device)
        following = self._prefill(requests, cache, earlier)

        tokens = np.zeros((len(requests), longest), dtype=np.int32)
        logprobs = np.zeros((len(requests), longest), dtype=np.float32)
        lengths = np.zeros(len(requests), dtype=np.int64)
        ended = np.zeros(len(requests), dtype=bool)
        alive = np.arange(len(requests))  # row of each live cache slot
        slots = torch.arange(len(requests), device=device)
        for position in range(longest):
            chosen, chosen_logprobs = sample(following.logits, draws[alive, position], temperature)
            if self.model.batch_invariant:
                chosen_logprobs = self.model.score(following.hidden, chosen, temperature or 1.0)
            tokens[alive, position] = chosen.cpu().numpy()
            logprobs[alive, position] = chosen_logprobs.cpu().numpy()
            lengths[alive] += 1
            ended[alive] = tokens[alive, position] == self.end_token_id
            going = ~ended[alive] & (lengths[alive] < limits.numpy()[alive])
            for slot in np.flatnonzero(~going):
                self._remember(requests[alive[slot]], tokens[alive[slot], :position], cache, int(slot))
            if not going.any():
                break
            if not going.all():
                order = compacted(going)
                kept = torch.from_numpy(order).to(device)
                alive, chosen = alive[order], chosen[kept]
                cache.keep(kept)
                slots = torch.arange(len(alive), device=device)
            following = self.model.decode(chosen, cache, slots)
        return [
            Completion(tokens[i, : lengths[i]], logprobs[i, : lengths[i]], "stop" if ended[i] else "length")
            for i in range(len(requests))
        ]

    def _remember(self, request: Generation, written: np.ndarray, cache: LatentCache, slot: int) -> None:
        """Keeps what a finished turn left in its slot: its last token was drawn but not run, so it is not in there."""
        if request.conversation is not None:
            token_ids = (*request.token_ids, *written.tolist())
            self._turns[request.conversation] = _Turn(token_ids, cache.read_slot(slot), self.version)

    def _prefill(self, requests: list[Generation], cache: LatentCache, earlier: Mapping[int, _Turn]) -> NextTokens:
        """Fills the cache and returns what predicts the next tokens of B requests. A turn that goes on from an earlier
        one runs its new tokens only; a prompt that several requests share, as those of a group do, is run once and
        copied."""
        prompts = [tuple(request.token_ids) for request in requests]
        known = [0] * len(prompts)
        numbers: dict[tuple[int, ...], int] = {}
        for slot, (request, prompt) in enumerate(zip(requests, prompts, strict=True)):
            turn = None if request.conversation is None else earlier.get(request.conversation)
            if turn is not None and turn.begins(prompt):
                cache.write_slot(slot, turn.rows)
                known[slot] = len(turn.token_ids)
            else:
                numbers.setdefault(prompt, len(numbers))
        new = [slot for slot in range(len(prompts)) if not known[slot]]
        parts, rows = [], []
        if new:
            source = torch.tensor([numbers[prompts[slot]] for slot in new])
            parts.append(self._prefill_once(list(numbers), source, torch.tensor(new), cache))
            rows += new
        more = [slot for slot in range(len(prompts)) if known[slot]]
        if more:
            batch = PackedBatch.from_sequences([prompts[slot][known[slot] :] for slot in more])
            parts.append(self.model.prefill(batch.to(self.model.device), cache, torch.tensor(more)))
            rows += more
        place = torch.tensor(rows, device=self.model.device).argsort()
        return NextTokens(
            torch.cat([part.hidden for part in parts])[place], torch.cat([part.logits for part in parts])[place]
        )

    def _prefill_once(
        self, prompts: list[tuple[int, ...]], source: torch.Tensor, slots: torch.Tensor, cache: LatentCache
    ) -> NextTokens:
        """Runs distinct prompts; slot `slots[i]` gets a copy of prompt `source[i]`, as does row i of the result."""
        longest = max(len(prompt) for prompt in prompts)
        once = LatentCache(self.model.config, len(prompts), longest, self.model.dtype, self.model.device)
        batch = PackedBatch.from_sequences(prompts).to(self.model.device)
        following = self.model.prefill(batch, once, torch.arange(len(prompts)))
        cache.lengths[slots] = once.lengths[source]
        source, slots = source.to(self.model.device), slots.to(self.model.device)
        for store, filled in ((cache.kv, once.kv), (cache.index_k, once.index_k)):
            if store is not None and filled is not None:
                for layer, values in zip(store, filled, strict=True):
                    layer[slots, :longest] = values[source]
        return following[source]


@dataclass(frozen=True)
class _Turn:
    """What a finished turn left in the cache: rows of `token_ids`, computed by the weights of `version`."""

    token_ids: tuple[int, ...]
    rows: SlotRows
    version: int

    def begins(self, prompt: tuple[int, ...]) -> bool:
        """Whether the prompt goes on from this turn, with at least one token that is new."""
        return len(prompt) > len(self.token_ids) and prompt[: len(self.token_ids)] == self.token_ids


def uniforms(seed: int, count: int) -> np.ndarray:
    """[count] float64 in [0, 1): draw `t` of a request is the same however many are asked for."""
    return np.random.Generator(np.random.Philox(key=seed)).random(count)


def compacted(going: np.ndarray) -> np.ndarray:
    """Rows that go on, in an order that moves few of them: the last ones take the places that became free in front."""
    count = int(going.sum())
    order = np.arange(count)
    order[~going[:count]] = count + np.flatnonzero(going[count:])
    return order


def sample(logits: torch.Tensor, uniform: torch.Tensor, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Draws a token per row by inverse transform.

    Args:
        logits: [B, V].
        uniform: [B] in [0, 1).
        temperature: 0 takes the most likely token, whose reported log-probability is that at temperature 1.

    Returns:
        tokens [B] int64, their log-probabilities [B] float32.
    """
    logits = logits.float() / (temperature or 1.0)
    logits = logits - logits.amax(dim=-1, keepdim=True)
    # The sum alone is double: in float32 it would lose the small probabilities at its end.
    cumulative = logits.exp().cumsum(dim=-1, dtype=torch.float64)
    total = cumulative[:, -1:]
    if temperature == 0:
        chosen = logits.argmax(dim=-1, keepdim=True)
    else:
        chosen = torch.searchsorted(cumulative, uniform.unsqueeze(-1) * total, right=True)
        chosen.clamp_(max=logits.shape[-1] - 1)
    logprobs = logits.gather(-1, chosen) - total.log()
    return chosen.squeeze(-1), logprobs.squeeze(-1).float()
