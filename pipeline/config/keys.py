"""The table of all settings, read from the schema's own source: path, type, default and help text."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import functools
import inspect
import types
import typing
from collections.abc import Iterable, Iterator
from typing import Any

from pipeline.config import schema

SYNONYMS = {
    "learning_rate": "lr",
    "num_generations": "group_size",
    "max_completion_length": "max_new_tokens",
    "beta": "kl_coef",
    "epsilon": "clip_low",
    "epsilon_high": "clip_high",
}
"""What TRL calls some of the settings, for suggestions."""


@dataclasses.dataclass(frozen=True)
class Key:
    """One setting or section.

    Attributes:
        path: full path, `grpo.optimizer.lr`; the name of a domain stands as `*` where none is given.
        type: its type in words, as error messages print it.
        default: value in the schema; None for a section.
        help: the `#:` comment beside it.
        section: True for a group of settings.
    """

    path: str
    type: str
    default: Any
    help: str
    section: bool = False


def section_type(annotation: Any) -> type | None:
    """The dataclass behind `X` or `X | None`; None for a plain value."""
    for option in (annotation, *typing.get_args(annotation)):
        if dataclasses.is_dataclass(option) and isinstance(option, type):
            return None if typing.get_origin(annotation) is dict else option
    return None


def mapping_type(annotation: Any) -> Any | None:
    """The value type of `dict[str, X]`; None for anything else."""
    return typing.get_args(annotation)[1] if typing.get_origin(annotation) is dict else None


@functools.cache
def field_types(section: type) -> dict[str, Any]:
    """Resolved type of every field of a section."""
    return typing.get_type_hints(section)


def is_optional(annotation: Any) -> bool:
    return type(None) in typing.get_args(annotation)


_WORDS = {int: "an integer", float: "a number", str: "text", bool: "true or false", Any: "any value"}
_PLURALS = {int: "integers", float: "numbers", str: "texts"}


def type_in_words(annotation: Any) -> str:
    """`an integer`, `a list of numbers`, `text or null`, …"""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is list:
        return f"a list of {_PLURALS[arguments[0]]}"
    if origin is dict:
        return "a mapping"
    if origin in (types.UnionType, typing.Union):
        inner = next(option for option in arguments if option is not type(None))
        return f"{type_in_words(inner)} or null"
    return _WORDS.get(annotation, "a section")


@functools.cache
def help_texts() -> dict[tuple[str, str], str]:
    """(class, field) -> its `#:` comment in schema.py."""
    source = inspect.getsource(schema)
    lines = source.splitlines()
    texts = {}
    for node in ast.parse(source).body:
        if not isinstance(node, ast.ClassDef):
            continue
        for statement in node.body:
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                _, mark, comment = lines[(statement.end_lineno or 1) - 1].partition("#:")
                if mark:
                    texts[node.name, statement.target.id] = comment.strip()
    return texts


def walk(section: type, prefix: str, domains: Iterable[str]) -> Iterator[Key]:
    """All keys below a section, parents before children."""
    defaults = section()
    for field in dataclasses.fields(section):
        annotation = field_types(section)[field.name]
        path = f"{prefix}{field.name}"
        text = help_texts().get((section.__name__, field.name), "")
        inner, value_type = section_type(annotation), mapping_type(annotation)
        if inner is not None:
            yield Key(path, type_in_words(annotation), None, text, section=True)
            yield from walk(inner, f"{path}.", domains)
        elif value_type is not None and dataclasses.is_dataclass(value_type):
            yield Key(path, "a mapping", None, text, section=True)
            for name in domains:
                yield Key(f"{path}.{name}", "a section", None, "one domain: its tasks, and how much they count", True)
                yield from walk(typing.cast(type, value_type), f"{path}.{name}.", domains)
        else:
            yield Key(path, type_in_words(annotation), getattr(defaults, field.name), text)


@functools.cache
def key_table(domains: tuple[str, ...] = ("*",)) -> dict[str, Key]:
    """Every key by its full path, with the settings of a domain under each of `domains`."""
    return {key.path: key for key in walk(schema.Config, "", domains)}


def did_you_mean(path: str, known: Iterable[str], limit: int = 3) -> str | None:
    """The known paths nearest to `path`, or None if nothing is near; an equal last part counts in favour."""
    scored = []
    parent, _, last = path.rpartition(".")
    last = SYNONYMS.get(last, last)
    path = f"{parent}.{last}".lstrip(".")
    for candidate in known:
        end = candidate.rpartition(".")[2]
        ratio = difflib.SequenceMatcher(None, path, candidate).ratio()
        tail = difflib.SequenceMatcher(None, last, end).ratio()
        bonus = 0.5 if last == end else 0.4 if len(last) > 3 and last in end else 0.3 * tail
        scored.append((ratio + bonus, candidate))
    scored.sort(reverse=True)
    best = [candidate for score, candidate in scored if score >= 0.65 and score >= scored[0][0] - 0.05]
    return " or ".join(best[:limit]) or None
