"""Tokenised documents: what of them counts in a language-model loss, and their files."""

from __future__ import annotations

import shutil
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.runs.atomic import atomic_file, commit_folder
from rollout.chat import Chat
from rollout.records import MODES
from specialists.corpus import Document


@dataclass(frozen=True)
class Text:
    """A tokenised document: `token_ids` [T] int32 and `mask` [T] bool, the tokens whose loss counts."""

    token_ids: np.ndarray
    mask: np.ndarray


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


def save_texts(path: Path, texts: Sequence[Text]) -> None:
    """Writes documents as one `.npz` file, which `load_texts` reads."""
    lengths = np.array([len(text.token_ids) for text in texts], dtype=np.int64)
    ids, mask = np.concatenate([t.token_ids for t in texts]), np.concatenate([t.mask for t in texts])
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, token_ids=ids, mask=mask, lengths=lengths)


def load_texts(path: Path) -> Sequence[Text]:
    """The documents of a file of `save_texts`, or of a folder of `save_plain_texts`."""
    if path.is_dir():
        return PlainTexts(path)
    with np.load(path) as data:
        cuts = data["lengths"].cumsum()[:-1]
        parts = zip(np.split(data["token_ids"], cuts), np.split(data["mask"], cuts), strict=True)
        return [Text(ids, mask) for ids, mask in parts]


def save_plain_texts(folder: Path, documents: Iterable[str], tokenizer: Any) -> None:
    """Tokenises documents one by one into a folder that `load_texts` reads without loading it: they may be larger than
    the memory. Each is written as its tokenizer does it, with the end token behind it."""
    lengths, end = array("q"), tokenizer.eos_token_id
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    with (temporary / "token_ids.bin").open("wb") as file:
        for document in documents:
            ids = tokenizer(document)["input_ids"]
            if end is not None and ids[-1:] != [end]:
                ids.append(end)
            if ids:
                np.array(ids, dtype="<i4").tofile(file)
                lengths.append(len(ids))
    np.save(temporary / "lengths.npy", np.array(lengths, dtype=np.int64))
    commit_folder(temporary, folder)


class PlainTexts(Sequence[Text]):
    """Documents of `save_plain_texts`, read as they are needed. Every token but a document's first counts."""

    def __init__(self, folder: Path) -> None:
        self.lengths = np.load(folder / "lengths.npy")
        self.ends = self.lengths.cumsum()
        file = folder / "token_ids.bin"
        self.token_ids = np.asarray(np.memmap(file, dtype="<i4", mode="r")) if len(self.ends) else np.empty(0, "<i4")

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(f"document {index} of {len(self)}")
        ids = self.token_ids[self.ends[index - 1] if index else 0 : self.ends[index]]
        return Text(ids, np.arange(len(ids)) > 0)


def lengths_of(texts: Sequence[Text]) -> list[int]:
    """Tokens of each document."""
    if isinstance(texts, PlainTexts):
        lengths: list[int] = texts.lengths.tolist()
        return lengths
    return [len(text.token_ids) for text in texts]
