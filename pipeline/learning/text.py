"""Tokenised documents and the batches that a language-model loss is taken on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from kernels import token_logprob
from model import DeepseekForCausalLM, PackedBatch
from pipeline.learning.batches import split_tokens
from pipeline.runs.atomic import atomic_file
from rollout.chat import Chat
from rollout.records import MODES
from rollout.seeding import seed_for
from specialists.corpus import Document


@dataclass(frozen=True)
class Text:
    """A tokenised document: `token_ids` [T] int32 and `mask` [T] bool, the tokens whose loss counts."""

    token_ids: np.ndarray
    mask: np.ndarray


@dataclass(frozen=True)
class TextBatch:
    """A packed batch and the tokens [T] bool whose loss counts."""

    packed: PackedBatch
    mask: torch.Tensor

    def to(self, device: torch.device) -> TextBatch:
        return TextBatch(self.packed.to(device), self.mask.to(device))


def tokenise(documents: Sequence[Document], chat: Chat) -> list[Text]:
    """Documents as tokens. The loss counts on what an assistant wrote, its end token included: neither on prompts and
    tool results, whose names and numbers nothing predicts, nor on what the template itself puts in front of a turn."""
    rendered = [chat.render(d.messages, d.mode, d.tools, open_turn=False) for d in documents]
    encoded = chat.tokenizer(rendered, add_special_tokens=False)["input_ids"]
    opening = {mode: np.array(chat.turn_opening_ids(mode)) for mode in MODES}
    return [_text(ids, opening[d.mode], chat.end_token_id) for ids, d in zip(encoded, documents, strict=True)]


def _text(token_ids: Sequence[int], opening: np.ndarray, end_token_id: int) -> Text:
    ids = np.array(token_ids, dtype=np.int32)
    mask = np.zeros(len(ids), dtype=bool)
    ends = np.flatnonzero(ids == end_token_id)
    for start in np.flatnonzero(ids == opening[0]):
        first = start + len(opening)
        if np.array_equal(ids[start:first], opening):
            mask[first : ends[np.searchsorted(ends, first)] + 1] = True
    return Text(ids, mask)


class TextBatches:
    """The batches of a training run: step `n` has the same documents however often it is asked for.

    Each epoch shuffles the documents by its own seed and cuts them into runs of about `batch_tokens` tokens.
    """

    def __init__(self, texts: Sequence[Text], batch_tokens: int, seed: int) -> None:
        if not texts:
            raise ValueError("there is no text to train on")
        self.texts, self.batch_tokens, self.seed = texts, batch_tokens, seed
        self._epochs: list[list[list[int]]] = []

    def batch(self, step: int) -> TextBatch:
        epoch = 0
        while True:
            if epoch == len(self._epochs):
                self._epochs.append(self._shuffled(epoch))
            if step < len(self._epochs[epoch]):
                return text_batch([self.texts[i] for i in self._epochs[epoch][step]])
            step -= len(self._epochs[epoch])
            epoch += 1

    def _shuffled(self, epoch: int) -> list[list[int]]:
        order = np.random.default_rng(seed_for(self.seed, "epoch", epoch)).permutation(len(self.texts))
        runs: list[list[int]] = [[]]
        total = 0
        for index in order:
            if runs[-1] and total + len(self.texts[index].token_ids) > self.batch_tokens:
                runs.append([])
                total = 0
            runs[-1].append(int(index))
            total += len(self.texts[index].token_ids)
        return runs


def text_batch(texts: Sequence[Text]) -> TextBatch:
    """One packed batch of the documents, in order."""
    packed = PackedBatch.from_sequences([text.token_ids for text in texts])
    return TextBatch(packed, torch.from_numpy(np.concatenate([text.mask for text in texts])))


def text_loss(model: DeepseekForCausalLM, batch: TextBatch, hidden: torch.Tensor) -> torch.Tensor:
    """Mean negative log-likelihood (nats per token) of the tokens whose loss counts; the head runs on no other."""
    counted = batch.mask.nonzero()[:, 0]
    targets = batch.packed.input_ids[counted]
    logprobs, _ = token_logprob(hidden[counted - 1], model.lm_head.weight, targets)
    return -logprobs.mean()


def save_texts(path: Path, texts: Sequence[Text]) -> None:
    """Writes documents as one `.npz` file, which `load_texts` reads."""
    lengths = np.array([len(text.token_ids) for text in texts], dtype=np.int64)
    ids, mask = np.concatenate([t.token_ids for t in texts]), np.concatenate([t.mask for t in texts])
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, token_ids=ids, mask=mask, lengths=lengths)


def load_texts(path: Path) -> list[Text]:
    with np.load(path) as data:
        cuts = data["lengths"].cumsum()[:-1]
        parts = zip(np.split(data["token_ids"], cuts), np.split(data["mask"], cuts), strict=True)
        return [Text(ids, mask) for ids, mask in parts]


def in_runs(texts: Sequence[Text], batch_tokens: int) -> list[TextBatch]:
    """All documents once, in batches of similar length: for measuring."""
    lengths = [len(text.token_ids) for text in texts]
    return [text_batch([texts[i] for i in run]) for run in split_tokens(lengths, batch_tokens)]
