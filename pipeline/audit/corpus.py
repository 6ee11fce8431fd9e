"""The corpus: which modules hold the cases."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from typing import get_args

import pipeline.audit as package
from pipeline.audit.cases import Area, Case
from pipeline.errors import UsageError

AREAS: tuple[str, ...] = get_args(Area)


def all_cases() -> tuple[Case, ...]:
    """Every case of every data module.

    Raises:
        ValueError: if two cases share an id.
    """
    names = [m.name for m in pkgutil.iter_modules(package.__path__) if m.name.startswith(("exploits_", "honest_"))]
    modules = [importlib.import_module(f"pipeline.audit.{name}") for name in [*names, "demonstrations"]]
    cases = tuple(case for module in modules for case in module.CASES)
    seen: set[str] = set()
    for case in cases:
        if case.id in seen:
            raise ValueError(f"two cases of the audit are called {case.id!r}")
        seen.add(case.id)
    return cases


def chosen_cases(areas: Sequence[str] = (), ids: Sequence[str] = ()) -> tuple[Case, ...]:
    """The cases of some areas, or those whose id contains one of `ids`; all without either.

    Raises:
        UsageError: for an area that does not exist, and where nothing is left.
    """
    for area in areas:
        if area not in AREAS:
            raise UsageError(f"There is no area {area!r}; there are: {', '.join(AREAS)}.")
    chosen = tuple(
        case
        for case in all_cases()
        if (not areas or case.area in areas) and (not ids or any(part in case.id for part in ids))
    )
    if not chosen:
        raise UsageError(f"No case fits --area {' '.join(areas) or 'any'} and --case {' '.join(ids) or 'any'}.")
    return chosen
