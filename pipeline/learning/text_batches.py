"""From documents to the packed batches that a language-model loss is taken on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from kernels import token_logprob
from model import DeepseekForCausalLM, PackedBatch
from pipeline.learning.batches import split_tokens
from pipeline.learning.text import Text, lengths_of
from rollout.seeding import seed_for


@dataclass(frozen=True)
class TextBatch:
    """A packed batch and the tokens [T] bool whose loss counts."""

    packed: PackedBatch
    mask: torch.Tensor

    def to(self, device: torch.device) -> TextBatch:
        return TextBatch(self.packed.to(device), self.mask.to(device))


@dataclass(frozen=True)
class Packing:
    """How documents become batches.

    Attributes:
        batch_tokens: tokens of one packed batch; a longer document without `context_length` gets a batch of its own.
        context_length: None packs whole documents. Otherwise documents follow one another in windows of so many tokens,
            cut where a window ends, and a batch is as many windows as `batch_tokens` holds.
        join: the documents of a window are one sequence, as in DeepSeek-V3's pre-training (arXiv:2412.19437, 4.1);
            off, each part of a document is a sequence of its own and sees nothing else.
    """

    batch_tokens: int
    context_length: int | None = None
    join: bool = False


class Piece(NamedTuple):
    """Tokens `start:stop` of a document."""

    document: int
    start: int
    stop: int


Sequences = list[list[Piece]]
"""A batch: for each sequence the pieces that it joins."""


class TextBatches:
    """The batches of a training run: batch `n` has the same documents however often it is asked for.

    Each epoch shuffles the documents by its own seed and packs them.
    """

    def __init__(self, texts: Sequence[Text], packing: Packing, seed: int) -> None:
        if not len(texts):
            raise ValueError("there is no text to train on")
        self.texts, self.packing, self.seed = texts, packing, seed
        self._lengths = lengths_of(texts)
        self._epochs: list[list[Sequences]] = []

    def batch(self, number: int) -> TextBatch:
        epoch = 0
        while True:
            if epoch == len(self._epochs):
                order = np.random.default_rng(seed_for(self.seed, "epoch", epoch)).permutation(len(self.texts))
                self._epochs.append(_pack(order.tolist(), self._lengths, self.packing))
            if number < len(self._epochs[epoch]):
                return text_batch([_joined(self.texts, pieces) for pieces in self._epochs[epoch][number]])
            number -= len(self._epochs[epoch])
            epoch += 1


def _pack(order: Sequence[int], lengths: Sequence[int], packing: Packing) -> list[Sequences]:
    """The documents in the given order as batches."""
    if packing.context_length is None:
        whole = [[Piece(index, 0, lengths[index])] for index in order]
        return _fill(whole, packing.batch_tokens)
    windows = _windows(order, lengths, packing.context_length)
    count = packing.batch_tokens // packing.context_length
    batches = [windows[start : start + count] for start in range(0, len(windows), count)]
    if packing.join:
        return batches
    return [[[piece] for window in batch for piece in window] for batch in batches]


def _fill(sequences: Sequences, batch_tokens: int) -> list[Sequences]:
    """Sequences in consecutive batches of at most `batch_tokens` tokens; a longer one gets a batch of its own."""
    batches: list[Sequences] = [[]]
    total = 0
    for sequence in sequences:
        length = sum(piece.stop - piece.start for piece in sequence)
        if batches[-1] and total + length > batch_tokens:
            batches.append([])
            total = 0
        batches[-1].append(sequence)
        total += length
    return batches


def _windows(order: Iterable[int], lengths: Sequence[int], size: int) -> Sequences:
    """The documents one after another, cut into windows of `size` tokens; the last one may be shorter."""
    windows: Sequences = []
    room = 0
    for index in order:
        start = 0
        while start < lengths[index]:
            if room == 0:
                windows.append([])
                room = size
            stop = min(start + room, lengths[index])
            windows[-1].append(Piece(index, start, stop))
            room -= stop - start
            start = stop
    return windows


def _joined(texts: Sequence[Text], pieces: Sequence[Piece]) -> Text:
    """The pieces as one sequence. Its first token counts in no loss: nothing before it predicts it."""
    ids = np.concatenate([texts[piece.document].token_ids[piece.start : piece.stop] for piece in pieces])
    mask = np.concatenate([texts[piece.document].mask[piece.start : piece.stop] for piece in pieces])
    mask[0] = False
    return Text(ids, mask)


def longest(texts: Sequence[Text], packing: Packing, batches: int) -> list[TextBatch]:
    """The last `batches` batches of all documents, sorted by length: for measuring."""
    packed = _pack(range(len(texts)), lengths_of(texts), packing)
    sequences = [pieces for batch in packed for pieces in batch]
    lengths = [sum(piece.stop - piece.start for piece in pieces) for pieces in sequences]
    runs = split_tokens(lengths, packing.batch_tokens)[-batches:]
    return [text_batch([_joined(texts, sequences[i]) for i in run]) for run in runs]


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
