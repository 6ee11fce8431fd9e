"""Tests that tell a right program from every wrong one that is a single slip away."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from specialists.operations import FAILED

Name = TypeVar("Name")


def choose_inputs(
    candidates: Iterable[Any],
    right: Callable[[Any], Any],
    wrong: Mapping[Name, Callable[[Any], Any]],
    least: int = 4,
) -> tuple[list[Any], set[Name]]:
    """Chooses the candidates that reject a wrong program not rejected yet, filled up to `least`.

    Returns them with the names of the wrong programs that no candidate rejects: those mean the same, as far
    as the candidates show. Candidates on which `right` fails, and repeated ones, are passed over.
    """
    chosen: list[Any] = []
    spare: list[Any] = []
    alive = dict(wrong)
    for candidate in candidates:
        want = right(candidate)
        if want == FAILED or candidate in chosen or candidate in spare:
            continue
        left = {name: program for name, program in alive.items() if program(candidate) == want}
        (chosen if len(left) < len(alive) else spare).append(candidate)
        alive = left
        if not alive and len(chosen) + len(spare) >= least:
            break
    return chosen + spare[: max(0, least - len(chosen))], set(alive)
