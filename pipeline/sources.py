"""Where rows come from: a JSONL file, a Parquet file, a folder, or the name of a `datasets` dataset."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

MISSING: Final = object()
"""What `lookup` gives for a column that a row does not have (None is a value)."""

FILE_SUFFIXES = (".jsonl", ".parquet", ".json", ".csv", ".ndjson")


class SourceError(ValueError):
    """A source that can not be opened at all."""


@dataclass(frozen=True)
class Row:
    """One row and where it stands: `unit` is `line` or `row`, `number` counts from 1."""

    source: str
    unit: str
    number: int
    values: Mapping[str, Any]

    @property
    def place(self) -> str:
        return f"{self.unit} {self.number}"

    @property
    def where(self) -> str:
        return f"{self.source}, {self.place}"

    @property
    def provenance(self) -> dict[str, Any]:
        return {"source": self.source, self.unit: self.number}


def read_rows(source: str, subset: str | None, split: str) -> tuple[list[Row], list[str]]:
    """All rows of a source, and a sentence for each line that is no row; arguments and errors of `stream_rows`."""
    rows: list[Row] = []
    problems: list[str] = []
    for found in stream_rows(source, subset, split):
        if isinstance(found, Row):
            rows.append(found)
        else:
            problems.append(found)
    return rows, problems


def stream_rows(source: str, subset: str | None, split: str) -> Iterator[Row | str]:
    """The rows of a source one by one, and in the place of a line that is no row a sentence that says so.

    `source` is a `.jsonl` or `.parquet` file, a folder of `save_to_disk`, a folder of data files, or a
    dataset's name. A folder or name may end in `:split`, which then goes before `split`.

    Raises:
        SourceError: if it can not be opened.
    """
    if not source:
        raise SourceError(
            "`data.train` is empty: expected a .jsonl or .parquet file, a folder or a dataset's name"
        )
    path = Path(source).expanduser()
    if path.is_file() and path.suffix == ".jsonl":
        return _jsonl_rows(source, path)
    if path.is_file() and path.suffix == ".parquet":
        return _numbered(source, _parquet_rows(source, path))
    if path.is_file():
        raise SourceError(f"{source}: expected a .jsonl or .parquet file, got {path.suffix or 'no suffix'}")
    if not path.exists() and path.suffix in FILE_SUFFIXES:
        raise SourceError(f"{source}: no such file (looked in {path.parent.absolute()})")
    return _numbered(source, _dataset_rows(source, subset, split))


def local_path(source: str) -> Path | None:
    """The file or folder that `source` means on this machine; None for the name of a dataset on the hub."""
    for name in (source, source.rpartition(":")[0]):
        if name and Path(name).expanduser().exists():
            return Path(name).expanduser()
    return Path(source).expanduser() if Path(source).suffix in FILE_SUFFIXES else None


def lookup(values: Mapping[str, Any], column: str) -> Any:
    """The value of a column, or of `a.b` inside a nested one; `MISSING` where there is none."""
    if column in values:
        return values[column]
    found: Any = values
    for key in column.split("."):
        if not isinstance(found, Mapping) or key not in found:
            return MISSING
        found = found[key]
    return found


def _jsonl_rows(source: str, path: Path) -> Iterator[Row | str]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                if not text.strip():
                    continue
                values = json.loads(text)
                # A lone surrogate (`"\\ud800"`) parses, and breaks the first thing that encodes it.
                json.dumps(values, ensure_ascii=False).encode()
            except (ValueError, RecursionError) as error:
                yield f"{source}, line {number}: not a line of JSON: {error}"
                continue
            if isinstance(values, dict):
                yield Row(source, "line", number, values)
            else:
                yield f"{source}, line {number}: expected an object, got {type(values).__name__}"


def _numbered(source: str, rows: Iterable[Mapping[str, Any]]) -> Iterator[Row]:
    for number, values in enumerate(rows, start=1):
        yield Row(source, "row", number, values)


def _parquet_rows(source: str, path: Path) -> Iterator[Mapping[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches():
                yield from batch.to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise SourceError(f"{source}: can not be read as Parquet: {error}") from error


def _dataset_rows(source: str, subset: str | None, split: str) -> Iterable[Mapping[str, Any]]:
    import datasets

    name = source
    if not Path(source).exists() and ":" in source:
        name, _, split = source.rpartition(":")
    folder = Path(name).expanduser()
    stored = (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file()
    try:
        rows = datasets.load_from_disk(folder) if stored else datasets.load_dataset(name, subset, split=split)
    except (OSError, ValueError, RuntimeError) as error:
        raise SourceError(f"{source}: can not be loaded by `datasets`: {error}") from error
    if isinstance(rows, datasets.DatasetDict):
        if split not in rows:
            raise SourceError(f"{source}: no split {split!r}; there are: {', '.join(rows)}")
        return rows[split]
    return rows
