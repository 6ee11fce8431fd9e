"""Sources of settings, the origin of each value, and the problems found in them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from pipeline.errors import EXIT_USAGE, PipelineError

KeyPath = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where a value was set: `kind` is default, preset, file or override; `where` says which."""

    kind: str
    where: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.where}".strip()


@dataclasses.dataclass(frozen=True)
class Problem:
    """One mistake in the settings: the full key, what is wrong, what may have been meant, where it stands."""

    key: str
    message: str
    suggestion: str | None = None
    origin: Origin | None = None

    def __str__(self) -> str:
        meant = f" Did you mean {self.suggestion}?" if self.suggestion else ""
        place = f"  [{self.origin}]" if self.origin else ""
        return f"{self.key}: {self.message}{meant}{place}"


class ConfigError(PipelineError):
    """All problems of the settings at once."""

    exit_code = EXIT_USAGE

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = list(problems)
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        super().__init__(
            "\n".join([f"{count} in the settings:", *(f"  {problem}" for problem in self.problems)])
        )


class Origins:
    """Origin of every value that some layer set; all others are the schema's defaults."""

    def __init__(self, values: Mapping[str, Origin]) -> None:
        self._values = dict(values)

    def of(self, key: str) -> Origin:
        return self._values.get(key, Origin("default"))


@dataclasses.dataclass(frozen=True)
class Layer:
    """One source of settings as plain Python, with the line of each key where it is a file."""

    kind: str
    where: str
    tree: Any
    lines: Mapping[KeyPath, int] = dataclasses.field(default_factory=dict)

    def origin(self, path: KeyPath) -> Origin:
        line = self.lines.get(path)
        return Origin(self.kind, f"{self.where}:{line}" if line else self.where)


def lines_of(node: yaml.Node | None, prefix: KeyPath = ()) -> list[tuple[KeyPath, int]]:
    """Line of every key of a YAML document."""
    found: list[tuple[KeyPath, int]] = []
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            path = (*prefix, str(key.value))
            found.append((path, key.start_mark.line + 1))
            found.extend(lines_of(value, path))
    return found
