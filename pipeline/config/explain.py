"""The settings for people: `pipeline config show` and `pipeline config explain KEY`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import yaml
from omegaconf import OmegaConf

from pipeline.config.keys import Key, did_you_mean, key_table
from pipeline.config.load import Origins
from pipeline.config.schema import Config
from pipeline.config.validate import leaves, range_of
from pipeline.errors import UsageError
from specialists import DOMAINS


def to_dict(config: Config) -> dict[str, Any]:
    """The settings as plain nested dicts, in the schema's order."""
    return dataclasses.asdict(config)


def to_yaml(config: Config) -> str:
    """The settings as a file that `-c` reads back."""
    return OmegaConf.to_yaml(OmegaConf.create(to_dict(config)))


def with_origins(config: Config, origins: Origins) -> Iterator[tuple[str, str, str]]:
    """(key, value as YAML, origin) of every setting."""
    for key, value in leaves(config):
        yield key, _yaml(value), str(_origin(origins, key, value))


def explain(path: str, config: Config, origins: Origins) -> dict[str, Any]:
    """All that is known of one key, or of a section and its keys.

    Raises:
        UsageError: if there is no such key.
    """
    names = tuple(dict.fromkeys((*DOMAINS, *config.domains)))
    table = key_table(names)
    key = table.get(path)
    if key is None:
        meant = did_you_mean(path, table)
        raise UsageError(f"There is no setting {path!r}." + (f" Did you mean {meant}?" if meant else ""))
    values = dict(leaves(config))
    if key.section:
        below = [
            _row(inner) | ({"value": values[inner.path]} if inner.path in values else {})
            for inner in table.values()
            if inner.path.rpartition(".")[0] == path
        ]
        return {"key": path, "type": "a section", "help": key.help, "keys": below}
    row: dict[str, Any] = {**_row(key), "default": key.default}
    if path in values:
        row |= {"value": values[path], "set": str(_origin(origins, path, values[path]))}
    else:
        row |= {"value": None, "set": "nowhere: its section is not in the settings"}
    return row


def _row(key: Key) -> dict[str, Any]:
    rule = None if key.section else range_of(key.path)
    row = {"key": key.path, "type": key.type, "help": key.help}
    return row | ({"must be": rule.words} if rule else {})


def _origin(origins: Origins, key: str, value: Any) -> Any:
    if isinstance(value, dict) and value:
        return ", ".join(dict.fromkeys(str(origins.of(f"{key}.{name}")) for name in value))
    return origins.of(key)


def _yaml(value: Any) -> str:
    return (
        yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
        .removesuffix("...\n")
        .strip()
    )
