"""The audit of what this package itself pays: the corpus, and the policies that know nothing in every domain."""

from __future__ import annotations

import time
from collections.abc import Sequence

from pipeline.audit.corpus import chosen_cases
from pipeline.audit.demonstrations import AREAS, LANGUAGES
from pipeline.audit.policies import POLICIES
from pipeline.audit.runner import LEVELS, PolicyRow, Report, Tick, blind_rate, run_cases, run_policies
from pipeline.audit.workbench import Bench
from rollout.records import MODES
from specialists import DOMAINS, get_domain


def plan(areas: Sequence[str], ids: Sequence[str]) -> tuple[str, ...]:
    """The domains whose policies are played: those of the areas; none where single cases are asked for."""
    return () if ids else tuple(name for name in DOMAINS if not areas or AREAS[name] in areas)


def size(areas: Sequence[str], ids: Sequence[str]) -> int:
    """How often `audit_builtin` will tick."""
    return len(chosen_cases(areas, ids)) + len(plan(areas, ids)) * len(MODES) * len(POLICIES)


def audit_builtin(bench: Bench, tick: Tick, areas: Sequence[str] = (), ids: Sequence[str] = ()) -> Report:
    """Runs the chosen cases, then the policies."""
    started = time.perf_counter()
    cases = run_cases(bench, chosen_cases(areas, ids), tick)
    policies: list[PolicyRow] = []
    rates: dict[str, float] = {}
    for name in plan(areas, ids):
        domain, languages = get_domain(name), LANGUAGES.get(name, ("en",))
        rates[name] = blind_rate(domain, LEVELS, languages)
        for mode in MODES:
            policies += run_policies(bench, domain, mode, languages, rates[name], tick)
    return Report("built-in", cases, policies, guess_rates=rates, seconds=time.perf_counter() - started)
