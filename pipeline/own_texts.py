"""The user's own texts (`sparsify.data`): one document a row, streamed, as they may not fit in memory."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from pipeline.config.schema import TextDataConfig
from pipeline.data import SHOWN, DataError, is_held_out
from pipeline.sources import MISSING, SourceError, lookup, stream_rows
from rollout.records import Split

LOOKED_AT = 100
"""Rows that are looked at before the first stage."""


def check_texts(data: TextDataConfig) -> None:
    """Looks at the first rows of each source.

    Raises:
        DataError: if one can not be opened, or its first rows have no text.
    """
    for source in filter(None, (data.train, data.heldout)):
        for _ in islice(_texts(source, data), LOOKED_AT):
            pass


def read_texts(data: TextDataConfig, split: Split) -> Iterator[str]:
    """The documents of one split, in the order of their source.

    Raises:
        DataError: at the end, with every row that has no text; what came before it must not be used then.
    """
    if data.heldout is not None:
        yield from _texts(data.heldout if split == "heldout" else data.train, data)
        return
    for text in _texts(data.train, data):
        if is_held_out(text) == (split == "heldout"):
            yield text


def _texts(source: str, data: TextDataConfig) -> Iterator[str]:
    problems: list[str] = []
    try:
        for row in stream_rows(source, data.subset, data.split):
            if isinstance(row, str):
                problems.append(row)
            elif isinstance(text := lookup(row.values, data.column), str) and text.strip():
                yield text
            elif text is MISSING:
                columns = ", ".join(map(repr, row.values)) or "none"
                problems.append(f"{row.where}: no column {data.column!r} (sparsify.data.column); there are: {columns}")
            else:
                problems.append(f"{row.where}: expected a text that is not empty, got {text!r:.40}")
            if len(problems) > SHOWN:
                break
    except SourceError as error:
        problems.append(str(error))
    if problems:
        raise DataError(problems)
