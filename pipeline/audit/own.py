"""The audit of a user's own reward function, or own domain, named by a dotted path.

The policies that know nothing and the exploits that need no knowledge of a grader are played against it, and it is
probed for what breaks a run: exceptions, values that are no numbers, wrong lengths, slowness, answers that depend on
the order of a batch or change from call to call.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from pipeline.audit import probing
from pipeline.audit.deadline import within
from pipeline.audit.generic import ANSWERS, FLOODS, MARK, TEXTS, TRUTHS
from pipeline.audit.policies import POLICIES, KnowsNothing, tasks_of
from pipeline.audit.runner import PolicyRow, ProbeRow, Report, Tick, allowance, blind_rate, play_policy
from pipeline.audit.workbench import OWN_REWARD, Bench, checkable
from pipeline.config.schema import DataConfig
from pipeline.data import load_tasks
from pipeline.errors import UsageError
from rewards.custom import CustomRewardError, load_function
from rollout.records import MODES, Task
from specialists import get_domain
from specialists.base import Domain

T = TypeVar("T")

TASKS, FLOOD_TASKS = 24, 1
"""Tasks of each mode that a policy, and one that writes very much, is played against."""
GUESS_TASKS = 300
"""Tasks behind a guess rate."""
DEADLINE_S = 30.0
"""Seconds for one policy against all of its tasks."""
DOOR = ("name", "kind", "families", "tools", "max_turns", "generate", "demonstrate", "environment", "grade")


def reward_tasks(data: DataConfig | None) -> list[Task]:
    """The tasks that a reward function is tried on: of a file, or sums of the `math` domain."""
    if data is None:
        tasks = tasks_of(get_domain("math"), "direct", TASKS, (1, 2), ("en",))
    else:
        tasks = [task.in_mode("direct") for task in load_tasks(data, "own", "train")[:TASKS]]
    return [replace(task, domain=OWN_REWARD) for task in tasks]


def audit_reward(path: str, data: DataConfig | None, floor: float, tick: Tick) -> tuple[Report, str]:
    """The report on the reward function at `path`, and the sandbox's tier. `floor` is what knowing nothing may earn.

    Raises:
        UsageError: if there is no such function, or no such data.
    """
    try:
        load_function(path)
    except CustomRewardError as error:
        raise UsageError(str(error)) from error
    tasks = reward_tasks(data)
    answered = all(task.answer is not None for task in tasks)
    players = [player for player in POLICIES if not player.guesses] + [*TEXTS, *FLOODS, *(ANSWERS if answered else ())]
    started = time.perf_counter()
    os.environ.pop(MARK, None)
    with Bench(reward=path) as bench:
        rows = _play_all(bench, OWN_REWARD, tasks, [(player, floor) for player in players], tick)
        probes = [probing.raised(rows), probing.numbers(rows)]
        if not _hangs(rows):
            probes += [*probing.speed(bench, tasks), *probing.order(bench, tasks)]
        if answered and not _hangs(rows):
            truths = _play_all(bench, OWN_REWARD, tasks, [(player, math.inf) for player in TRUTHS], tick)
            probes.append(probing.tells_apart(rows, truths))
        probes.append(probing.executed())
        tier = bench.sandbox.tier
    rows = [replace(row, domain=path) for row in rows]
    return Report(path, policies=rows, probes=probes, seconds=time.perf_counter() - started), tier


def audit_environment(path: str, floor: float | None, tick: Tick) -> tuple[Report, str]:
    """The report on the domain at `path`, a class with the door of `specialists.base.Domain`, and the sandbox's tier.
    Without a `floor` guesses may earn what a blind guess does, and all else nothing.

    Raises:
        UsageError: if there is no such class, or its door lacks something.
    """
    domain = load_domain(path)
    started = time.perf_counter()
    rows: list[PolicyRow] = []
    probes: list[ProbeRow] = []
    played = {mode: _generated(domain, partial(tasks_of, domain, mode, TASKS, (1,), ("en",))) for mode in MODES}
    rate = _generated(domain, partial(blind_rate, domain, (1,), ("en",), GUESS_TASKS))
    os.environ.pop(MARK, None)
    with Bench(own=domain) as bench:
        for mode, drawn in played.items():
            tasks = [checkable(replace(task, domain=domain.name)) for task in drawn]
            answered = all(task.answer is not None for task in tasks)
            players = [*POLICIES, *TEXTS, *FLOODS, *(ANSWERS if answered else ())]
            allowed = [floor if floor is not None else allowance(domain, p, rate, len(tasks)) for p in players]
            rows += _play_all(bench, domain.name, tasks, list(zip(players, allowed, strict=True)), tick)
            probes.append(probing.repeats(domain, mode))
            if not _hangs(rows):
                probes.append(probing.demonstrated(bench, domain, tasks))
                probes.append(probing.senseless_calls(bench, domain, tasks[0]))
        probes += [probing.splits(domain), probing.raised(rows), probing.executed()]
        tier = bench.sandbox.tier
    seconds = time.perf_counter() - started
    return Report(path, policies=rows, probes=probes, guess_rates={domain.name: rate}, seconds=seconds), tier


def load_domain(path: str) -> Domain:
    """An instance of the domain class at `module:Class`."""
    try:
        domain: Any = load_function(path)()
    except CustomRewardError as error:
        raise UsageError(str(error).replace("custom reward", "environment").replace("function", "class")) from error
    except Exception as error:  # whatever the user's constructor raises, told with its name
        raise UsageError(f"environment {path}: calling it raised {type(error).__name__}: {error}") from error
    if missing := [name for name in DOOR if not hasattr(domain, name)]:
        raise UsageError(
            f"environment {path}: expected a class with the door of specialists.base.Domain, and "
            f"{type(domain).__name__} has no {', '.join(missing)}"
        )
    checked: Domain = domain
    return checked


def _generated(domain: Domain, work: Callable[[], T]) -> T:
    try:
        return within(DEADLINE_S, work)
    except Exception as error:  # whatever the user's generator raises, told with its name
        raise UsageError(f"domain {domain.name}: generate raised {type(error).__name__}: {error}") from error


def _play_all(
    bench: Bench, name: str, tasks: Sequence[Task], players: Sequence[tuple[KnowsNothing, float]], tick: Tick
) -> list[PolicyRow]:
    """Each policy with what it may earn; none after one that the target does not come back from."""
    rows: list[PolicyRow] = []
    for player, floor in players:
        faced = tasks[:FLOOD_TASKS] if player in FLOODS else tasks
        try:
            rows.append(within(DEADLINE_S, partial(play_policy, bench, name, faced, player, floor)))
        except TimeoutError as error:
            told = (f"TimeoutError: {error}; the policies after this one were not played",)
            return [*rows, PolicyRow(name, tasks[0].mode, player.name, len(tasks), 0.0, floor, 0, told)]
        tick(f"{tasks[0].mode}: {player.name}")
    return rows


def _hangs(rows: Sequence[PolicyRow]) -> bool:
    return any(error.startswith("TimeoutError") for row in rows for error in row.errors)
