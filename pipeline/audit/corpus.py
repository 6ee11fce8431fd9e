"""The corpus: which modules hold the cases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from pipeline.audit import (
    demonstrations,
    exploits_agents,
    exploits_code,
    exploits_judge,
    exploits_math,
    exploits_reward,
    exploits_text,
    honest_agents,
    honest_code,
    honest_judge,
    honest_math,
    honest_text,
)
from pipeline.audit.cases import Area, Case
from pipeline.errors import UsageError

AREAS: tuple[str, ...] = get_args(Area)
CORPUS: tuple[tuple[Case, ...], ...] = (
    exploits_math.CASES,
    exploits_text.CASES,
    exploits_reward.CASES,
    exploits_code.CASES,
    exploits_agents.CASES,
    exploits_judge.CASES,
    honest_math.CASES,
    honest_text.CASES,
    honest_code.CASES,
    honest_agents.CASES,
    honest_judge.CASES,
    demonstrations.CASES,
)


def all_cases() -> tuple[Case, ...]:
    """Every case of every data module.

    Raises:
        ValueError: if two cases share an id.
    """
    cases = tuple(case for part in CORPUS for case in part)
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
