"""Reads the settings: schema defaults < preset < files < overrides, with the origin of every value.

Every layer is walked key by key against the schema, so that all mistakes of all layers are told at once; only
values that fit their type are merged. Nothing here writes.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException, ValidationError

from pipeline.config.keys import (
    did_you_mean,
    field_types,
    is_optional,
    key_table,
    mapping_type,
    section_type,
    type_in_words,
)
from pipeline.config.layers import ConfigError, KeyPath, Layer, Origin, Origins, Problem, lines_of
from pipeline.config.schema import Config
from pipeline.config.validate import validate
from specialists import DOMAINS

DEFAULT_PRESET = "tiny"


def presets() -> list[str]:
    """Names of the presets that come with the package."""
    names = (entry.name for entry in importlib.resources.files("configs").iterdir())
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def load_config(
    preset: str | None = DEFAULT_PRESET, files: Sequence[str | Path] = (), overrides: Sequence[str] = ()
) -> tuple[Config, Origins]:
    """The resolved settings and where each value comes from.

    Args:
        preset: name of a preset or path of a YAML file; None starts from the schema's defaults.
        files: YAML files, later ones win.
        overrides: `key=value` with the value in YAML, later ones win.

    Raises:
        ConfigError: with every unknown key, wrong type and value out of range of all layers.
    """
    reader = _Reader()
    if preset is not None:
        reader.read_preset(preset)
    for file in files:
        reader.read_file(Path(file), "file", str(file))
    for override in overrides:
        reader.read_override(override)
    return reader.result()


class _Reader:
    """Collects values, origins and problems over the layers.

    Where a layer could not be read at all (`unread`), values are not checked: what it would set is missing.
    """

    def __init__(self) -> None:
        self.values: dict[KeyPath, Any] = {}
        self.origins: dict[KeyPath, Origin] = {}
        self.problems: list[Problem] = []
        self.domains: dict[str, Origin] = {}
        self.present: set[KeyPath] = set()
        self.unread = False

    def read_preset(self, preset: str) -> None:
        resource = importlib.resources.files("configs") / f"{preset}.yaml"
        if resource.is_file():
            self._read_yaml(resource.read_text(encoding="utf-8"), "preset", f"configs/{preset}.yaml")
        elif Path(preset).is_file():
            self.read_file(Path(preset), "preset", preset)
        else:
            self.unread = True
            known = ", ".join(presets())
            message = f"there is no preset {preset!r} and no such file; presets: {known}."
            self.problems.append(Problem("--preset", message, did_you_mean(preset, presets())))

    def read_file(self, path: Path, kind: str, shown: str) -> None:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            self.unread = True
            reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
            self.problems.append(Problem("-c", f"the file {shown} can not be read: {reason}."))
            return
        self._read_yaml(text, kind, shown)

    def read_override(self, override: str) -> None:
        key, equals, value = override.partition("=")
        if not equals or not key.strip():
            self.problems.append(Problem(override, "expected key=value."))
            return
        try:
            tree = cast(
                dict[str, Any], OmegaConf.to_container(OmegaConf.from_dotlist([override]), resolve=False)
            )
        except (OmegaConfBaseException, yaml.YAMLError, ValueError):
            self.problems.append(Problem(key, f"the value {value!r} is not valid YAML; quote it."))
            return
        self._take(Layer("override", override, tree), Config, tree, ())

    def _read_yaml(self, text: str, kind: str, shown: str) -> None:
        try:
            tree = OmegaConf.to_container(OmegaConf.create(text), resolve=False) if text.strip() else {}
            lines = dict(lines_of(yaml.compose(text, Loader=yaml.SafeLoader)))
        except yaml.MarkedYAMLError as error:
            self.unread = True
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            self.problems.append(
                Problem(shown, f"not valid YAML: {error.problem}.", None, Origin(kind, f"{shown}:{line}"))
            )
            return
        except (OmegaConfBaseException, yaml.YAMLError) as error:
            self.unread = True
            self.problems.append(
                Problem(shown, f"not valid YAML: {_first_line(error)}.", None, Origin(kind, shown))
            )
            return
        if not isinstance(tree, dict):
            self.problems.append(Problem(shown, "expected a mapping of settings.", None, Origin(kind, shown)))
            return
        self._take(Layer(kind, shown, tree, lines), Config, tree, ())

    def _take(self, layer: Layer, section: type, tree: Mapping[Any, Any], prefix: KeyPath) -> None:
        """Takes the values of one section of a layer."""
        hints = field_types(section)
        for name, value in tree.items():
            path = (*prefix, str(name))
            annotation = hints.get(str(name))
            if annotation is None:
                self._unknown(layer, path)
                continue
            inner, entries = section_type(annotation), mapping_type(annotation)
            if inner is not None:
                self._take_section(layer, inner, value, path, is_optional(annotation))
            elif entries is not None:
                self._take_mapping(layer, section, entries, value, path)
            else:
                self._take_value(layer, section, annotation, value, path)

    def _take_section(self, layer: Layer, section: type, value: Any, path: KeyPath, optional: bool) -> None:
        if value is None and optional:
            for known in [known for known in self.values if known[: len(path)] == path]:
                del self.values[known], self.origins[known]
            self.present.discard(path)
            self._set(layer, path, None)
        elif isinstance(value, dict):
            if self.values.get(path, ...) is None:
                del self.values[path], self.origins[path]
            self.present.add(path)
            self._take(layer, section, value, path)
        elif value is not None:
            keys = ", ".join(field_types(section))
            self._problem(
                layer, path, f"it is a section, expected some of its keys ({keys}), got {_shown(value)}."
            )

    def _take_mapping(self, layer: Layer, section: type, entries: Any, value: Any, path: KeyPath) -> None:
        if value is None:
            return
        if not isinstance(value, dict):
            self._problem(layer, path, f"expected a mapping, got {_shown(value)}.")
            return
        for name, entry in value.items():
            entry_path = (*path, str(name))
            if dataclasses.is_dataclass(entries):
                self.domains.setdefault(str(name), layer.origin(entry_path))
                self._take_section(layer, cast(type, entries), entry, entry_path, optional=False)
            elif entries is Any or isinstance(entry, str):
                self._set(layer, entry_path, entry)
            else:
                self._problem(layer, entry_path, f"expected {type_in_words(entries)}, got {_shown(entry)}.")

    def _take_value(self, layer: Layer, section: type, annotation: Any, value: Any, path: KeyPath) -> None:
        if isinstance(value, str) and "${" in value:
            self._set(layer, path, value)
            return
        try:
            if isinstance(value, bool) and type_in_words(annotation).startswith("text"):
                raise ValidationError
            OmegaConf.update(_probe(section), path[-1], value, merge=False)
        except OmegaConfBaseException:
            self._problem(layer, path, f"expected {type_in_words(annotation)}, got {_shown(value)}.")
            return
        self._set(layer, path, value)

    def _set(self, layer: Layer, path: KeyPath, value: Any) -> None:
        self.values[path] = value
        self.origins[path] = layer.origin(path)

    def _problem(self, layer: Layer, path: KeyPath, message: str) -> None:
        self.problems.append(Problem(".".join(path), message, None, layer.origin(path)))

    def _unknown(self, layer: Layer, path: KeyPath) -> None:
        names = tuple(dict.fromkeys((*DOMAINS, *self.domains)))
        meant = did_you_mean(".".join(path), key_table(names))
        self.problems.append(Problem(".".join(path), "there is no such key.", meant, layer.origin(path)))

    def result(self) -> tuple[Config, Origins]:
        tree: dict[str, Any] = {"domains": {name: {} for name in self.domains}}
        for path, value in [*((path, {}) for path in sorted(self.present)), *self.values.items()]:
            branch = tree
            for name in path[:-1]:
                branch = branch.setdefault(name, {})
            branch[path[-1]] = value if path in self.values else branch.get(path[-1], {})
        origins = {".".join(path): origin for path, origin in self.origins.items()}
        origins |= {f"domains.{name}": origin for name, origin in self.domains.items()}
        try:
            config = cast(Config, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), tree)))
        except OmegaConfBaseException as error:
            key = str(error.full_key or "settings")
            self.problems.append(Problem(key, f"{_first_line(error)}.", None, origins.get(key)))
            raise ConfigError(self.problems) from None
        wrong = {problem.key for problem in self.problems}
        for keys, message, suggestion in () if self.unread else validate(config):
            if not wrong.intersection(keys):
                origin = next((origins[key] for key in keys if key in origins), Origin("default"))
                self.problems.append(Problem(keys[0], message, suggestion, origin))
        if self.problems:
            raise ConfigError(self.problems)
        return config, Origins(origins)


@functools.cache
def _probe(section: type) -> DictConfig:
    """A section to try values on; what it holds does not matter."""
    return OmegaConf.structured(section)


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    kind = {
        bool: "true or false",
        int: "an integer",
        float: "a number",
        str: "text",
        list: "a list",
        dict: "a mapping",
    }
    return f"{value!r} ({kind.get(type(value), type(value).__name__)})"


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".")
