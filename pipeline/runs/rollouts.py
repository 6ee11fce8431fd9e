"""Trajectories for people: `rollouts/<stage>/<domain>/step_000012.parquet`, one row per trajectory."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.runs.atomic import atomic_file

SCHEMA = 1
"""Version of the row's form; a reader that finds a higher number says so instead of guessing."""


def rollouts_path(run: Path, stage: str, domain: str, step: int) -> Path:
    """File of one step of one domain."""
    return run / "rollouts" / stage / domain / f"step_{step:06d}.parquet"


def write_rollouts(run: Path, stage: str, domain: str, step: int, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Writes the trajectories of one step, replacing an earlier attempt at it.

    Values of a row: plain scalars and lists become columns; a list of objects becomes `list<struct>` (what is
    nested in them is kept as JSON text); an object, or a column whose rows share no type, becomes JSON text.
    Which columns are JSON stands in the file's metadata; `read_rollouts` undoes it.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {"schema": pa.array([SCHEMA] * len(rows), pa.int32())}
    encoded: list[str] = []
    for name in dict.fromkeys(name for row in rows for name in row):
        columns[name], as_json = _column(name, [_plain(row.get(name)) for row in rows])
        encoded.extend(as_json)
    metadata = {"polymath.schema": str(SCHEMA), "polymath.json": json.dumps(encoded)}
    table = pa.table(columns).replace_schema_metadata(metadata)
    path = rollouts_path(run, stage, domain, step)
    with atomic_file(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    return path


def read_rollouts(path: Path) -> list[dict[str, Any]]:
    """The rows of one file as they were written, with `schema` added.

    Raises:
        ValueError: if the file was written by a newer version.
    """
    import pyarrow.parquet as pq

    with path.open("rb") as file:
        table = pq.read_table(file)
    metadata = table.schema.metadata or {}
    version = int(metadata.get(b"polymath.schema", b"0"))
    if version > SCHEMA:
        raise ValueError(
            f"{path} has rollouts of schema {version}; this version reads {SCHEMA}. Upgrade polymath-rl."
        )
    encoded = json.loads(metadata.get(b"polymath.json", b"[]"))
    rows: list[dict[str, Any]] = table.to_pylist()
    for name in encoded:
        column, _, inner = name.partition("/")
        for row in rows:
            if not inner:
                row[column] = _decode(row[column])
            else:
                for item in row[column] or ():
                    item[inner] = _decode(item[inner])
    return rows


def _column(name: str, values: list[Any]) -> tuple[Any, list[str]]:
    """The column, and which parts of it are JSON text: its name, or `name/field` of objects in its lists."""
    import pyarrow as pa

    if not any(isinstance(value, dict) for value in values):
        items = [
            item for value in values if isinstance(value, list) for item in value if isinstance(item, dict)
        ]
        nested = sorted(
            {field for item in items for field, inner in item.items() if isinstance(inner, dict | list)}
        )
        if not items or all(items):
            try:
                return pa.array([_with_json(value, nested) for value in values]), [
                    f"{name}/{f}" for f in nested
                ]
            except (pa.ArrowInvalid, pa.ArrowTypeError):
                pass
    return pa.array([_encode(value) for value in values], pa.string()), [name]


def _with_json(value: Any, fields: Sequence[str]) -> Any:
    if not isinstance(value, list) or not fields:
        return value
    return [{**item, **{field: _encode(item.get(field)) for field in fields}} for item in value]


def _encode(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False)


def _decode(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def _plain(value: Any) -> Any:
    """Arrays of numpy as lists, tuples as lists, mappings as dicts, at every depth."""
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value.tolist() if hasattr(value, "tolist") else value
