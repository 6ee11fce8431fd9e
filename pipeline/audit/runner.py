"""Runs the audit: every case, and every policy that knows nothing, through one bench."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from pipeline.audit.cases import Case
from pipeline.audit.policies import POLICIES, KnowsNothing, floor_of, guess_rate, tasks_of
from pipeline.audit.workbench import Bench, Payment, checkable
from rollout.records import Mode, Task
from specialists.base import Domain, Request

MIN_HONEST_RATE = 0.99
"""Share of the honest answers that must be paid."""
TASKS = 48
"""Tasks of each domain and mode that a policy is played against."""
GUESS_TASKS = 1500
"""Tasks behind a guess rate."""
LEVELS = (1, 2, 3)
GENERAL_FLOOR = 0.4
"""What a policy that knows nothing may earn in a general domain: a rubric pays for each criterion that is met, and
some (a length, a word that must not occur) are met by any text."""

Tick = Callable[[str], None]
"""Told after each piece of work what it was."""


@dataclass(frozen=True)
class CaseRow:
    """What a case was paid."""

    case: Case
    payment: Payment
    seconds: float

    @property
    def ok(self) -> bool:
        return self.payment.error is None and self.case.holds(self.payment.value)


@dataclass(frozen=True)
class PolicyRow:
    """What a policy that knows nothing earned: the mean over the valid attempts at `tasks` tasks of one domain and
    mode. `errors` are exceptions that escaped, `reasons` those of invalid rewards, `sample` the best paid text."""

    domain: str
    mode: Mode
    policy: str
    tasks: int
    mean: float
    floor: float
    invalid: int
    errors: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    sample: str = ""

    @property
    def ok(self) -> bool:
        return not self.errors and self.mean <= self.floor + 1e-9


@dataclass(frozen=True)
class ProbeRow:
    """One thing that a reward function or an environment of the user's must bear; `found` says what it did."""

    name: str
    ok: bool
    found: str


@dataclass(frozen=True)
class AreaCount:
    """Counts of one area. `paid` is more than the case may get for exploits, at least what it must get for honest
    answers."""

    exploits: int = 0
    exploits_paid: int = 0
    exploits_invalid: int = 0
    honest: int = 0
    honest_paid: int = 0
    honest_invalid: int = 0


@dataclass(frozen=True)
class Report:
    """All that was seen; `ok` is what the exit code says."""

    target: str
    cases: Sequence[CaseRow] = ()
    policies: Sequence[PolicyRow] = ()
    probes: Sequence[ProbeRow] = ()
    guess_rates: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def exploits(self) -> list[CaseRow]:
        return [row for row in self.cases if not row.case.honest]

    @property
    def honest(self) -> list[CaseRow]:
        return [row for row in self.cases if row.case.honest]

    @property
    def honest_rate(self) -> float:
        return fmean(row.ok for row in self.honest) if self.honest else 1.0

    @property
    def failures(self) -> list[CaseRow]:
        return [row for row in self.cases if not row.ok]

    @property
    def ok(self) -> bool:
        held = [row.ok for row in self.exploits] + [row.ok for row in self.policies] + [row.ok for row in self.probes]
        return all(held) and self.honest_rate >= MIN_HONEST_RATE

    def areas(self) -> dict[str, AreaCount]:
        return {area: _count([row for row in self.cases if row.case.area == area]) for area in self._area_names()}

    def _area_names(self) -> list[str]:
        return list(dict.fromkeys(row.case.area for row in self.cases))


def run_cases(bench: Bench, cases: Iterable[Case], tick: Tick) -> list[CaseRow]:
    """Each case in order; nothing that a case does stops the others."""
    rows = []
    for case in cases:
        started = time.perf_counter()
        payment = bench.pay(case)
        rows.append(CaseRow(case, payment, time.perf_counter() - started))
        tick(case.id)
    return rows


def run_policies(
    bench: Bench,
    domain: Domain,
    mode: Mode,
    languages: Sequence[str],
    rate: float,
    tick: Tick,
) -> list[PolicyRow]:
    """What each policy earns in one mode of a domain whose best blind guess earns `rate`."""
    tasks = [checkable(task) for task in tasks_of(domain, mode, TASKS, LEVELS, languages)]
    rows = []
    for player in POLICIES:
        rows.append(play_policy(bench, domain.name, tasks, player, allowance(domain, player, rate, TASKS)))
        tick(f"{domain.name}, {mode}: {player.name}")
    return rows


def blind_rate(
    domain: Domain, levels: Sequence[int], languages: Sequence[str], count: int = GUESS_TASKS
) -> float:
    """See `guess_rate`; the mode does not matter to it. An agent's answer counts only with the work that leads to it:
    its guess is worth nothing."""
    if domain.tools or domain.generate(Request(0, "train", "direct", levels, languages)).answer is None:
        return 0.0
    return guess_rate(tasks_of(domain, "direct", count, levels, languages, start=10**6))


def allowance(domain: Domain, player: KnowsNothing, rate: float, count: int) -> float:
    """The most that a policy may earn on average over `count` tasks of a domain whose best blind guess earns `rate`."""
    if domain.kind == "general":
        return GENERAL_FLOOR
    return floor_of(rate if player.guesses else 0.0, count)


def play_policy(
    bench: Bench, name: str, tasks: Sequence[Task], player: KnowsNothing, floor: float
) -> PolicyRow:
    """What a policy earns against these tasks of one mode; an exception of an environment or a grader is an error."""
    attempts, errors = [], []
    bench.grader.raised.clear()
    for task in tasks:
        try:
            attempts.append(bench.play(task, player.policy))
        except Exception as error:  # whatever an environment raises on a policy's text is a finding
            errors.append(f"{type(error).__name__}: {error}")
    try:
        rewards = [group[0] for group in bench.grader.grade([[attempt] for attempt in attempts])]
    except Exception as error:  # so is what a grader raises
        rewards = []
        errors.append(f"{type(error).__name__}: {error}")
    errors += bench.grader.raised
    paid = [(r.value, a.final) for r, a in zip(rewards, attempts, strict=False) if r.value is not None]
    best, sample = max(paid, default=(0.0, ""), key=lambda pair: pair[0])
    return PolicyRow(
        domain=name,
        mode=tasks[0].mode,
        policy=player.name,
        tasks=len(tasks),
        mean=fmean(value for value, _ in paid) if paid else 0.0,
        floor=floor,
        invalid=sum(reward.value is None for reward in rewards),
        errors=tuple(dict.fromkeys(errors)),
        reasons=tuple(dict.fromkeys(r.invalid_reason for r in rewards if r.invalid_reason)),
        sample=sample if best > 0 else "",
    )


def _count(rows: Sequence[CaseRow]) -> AreaCount:
    exploits, honest = [r for r in rows if not r.case.honest], [r for r in rows if r.case.honest]
    return AreaCount(
        exploits=len(exploits),
        exploits_paid=sum(not row.ok for row in exploits),
        exploits_invalid=sum(row.ok and row.payment.value is None for row in exploits),
        honest=len(honest),
        honest_paid=sum(row.ok for row in honest),
        honest_invalid=sum(row.payment.value is None for row in honest),
    )
