"""The domains: what is learned. One file per domain, found here by name and imported on first use.

Names and words are few on purpose: the stand-in base model has a vocabulary of a thousand tokens, trained on
the demonstrations of all domains together.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from specialists.base import Domain

DOMAINS: tuple[str, ...] = ("math", "code", "logic", "agentic_code", "agentic_search", "writing")
"""Names of the domains; each is the module `specialists.<name>` with a `DOMAIN` in it."""

NAMES: tuple[str, ...] = ("Ann", "Bob", "Cal", "Dan", "Eve", "Fay", "Gus", "Ivy")
"""First names that all domains share."""

CHINESE_NAMES: dict[str, str] = dict(zip(NAMES, "甲乙丙丁戊己庚辛", strict=True))
"""What the same persons are called in Chinese: the names that its puzzles use."""


def get_domain(name: str) -> Domain:
    """The domain of that name; raises `ValueError` with the known names."""
    if name not in DOMAINS:
        raise ValueError(f"unknown domain {name!r}; known: {', '.join(DOMAINS)}")
    domain: Domain = import_module(f"specialists.{name}").DOMAIN
    return domain
