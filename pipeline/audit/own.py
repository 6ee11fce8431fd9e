"""The audit of a user's own reward function, or own domain, named by a dotted path.

The policies that know nothing and the exploits that need no knowledge of a grader are played against it, and it is
probed for what breaks a run: exceptions, values that are no numbers, wrong lengths, slowness, answers that depend on
the order of a batch or change from call to call.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.audit.cases import say
from pipeline.audit.deadline import within
from pipeline.audit.demonstrations import turns_of
from pipeline.audit.generic import ANSWERS, MARK, TEXTS
from pipeline.audit.policies import POLICIES, KnowsNothing, floor_of, tasks_of
from pipeline.audit.runner import GENERAL_FLOOR, PolicyRow, ProbeRow, Report, Tick, blind_rate, play_policy
from pipeline.audit.workbench import OWN_REWARD, Bench, checkable
from pipeline.config.schema import DataConfig
from pipeline.data import load_tasks
from pipeline.errors import UsageError
from rewards.custom import CustomRewardError, load_function
from rollout.records import MODES, Attempt, Mode, Task
from rollout.seeding import rng_for
from specialists import get_domain
from specialists.base import Domain, Request

TASKS = 24
"""Tasks of each mode that a policy is played against."""
DEADLINE_S = 60.0
"""Seconds for one policy against all of its tasks."""
SLOW_S = 1.0
"""Seconds for one completion above which a reward function is too slow to train with."""
REFERENCE = KnowsNothing("the truth in a box", lambda task, results: say(rf"\boxed{{{task.answer}}}", task.mode))
PLAIN = KnowsNothing("the truth alone", lambda task, results: say(str(task.answer), task.mode))
DOOR = ("name", "kind", "families", "tools", "max_turns", "generate", "demonstrate", "environment", "grade")


def reward_tasks(data: Path | None) -> list[Task]:
    """The tasks that a reward function is tried on: of a file, or sums of the `math` domain."""
    if data is None:
        tasks = tasks_of(get_domain("math"), "direct", TASKS, (1, 2), ("en",))
    else:
        tasks = [task.in_mode("direct") for task in load_tasks(DataConfig(train=str(data)), "own", "train")[:TASKS]]
    return [replace(task, domain=OWN_REWARD) for task in tasks]


def audit_reward(path: str, data: Path | None, floor: float, tick: Tick) -> tuple[Report, str]:
    """The report on the reward function at `path`, and the sandbox's tier.

    Raises:
        UsageError: if there is no such function, or no such data.
    """
    try:
        load_function(path)
    except CustomRewardError as error:
        raise UsageError(str(error)) from error
    tasks = reward_tasks(data)
    started = time.perf_counter()
    os.environ.pop(MARK, None)
    with Bench(reward=path) as bench:
        answered = all(task.answer is not None for task in tasks)
        players = [player for player in POLICIES if not player.guesses] + list(TEXTS)
        players += ANSWERS if answered else ()
        rows = _play_all(bench, OWN_REWARD, tasks, players, floor, tick)
        references = [_play(bench, OWN_REWARD, tasks, player, 1e9) for player in (REFERENCE, PLAIN) if answered]
        probes = [_raised(rows), _numbers(rows), *_speed(bench, tasks), *_order(bench, tasks), _executed()]
        if references:
            probes.append(_tells_apart(rows, references))
        tier = bench.sandbox.tier
    return Report(path, policies=_named(rows, path), probes=probes, seconds=time.perf_counter() - started), tier


def audit_environment(path: str, floor: float | None, tick: Tick) -> tuple[Report, str]:
    """The report on the domain at `path`, a class with the door of `specialists.base.Domain`, and the sandbox's tier.

    Raises:
        UsageError: if there is no such class, or its door lacks something.
    """
    domain = load_domain(path)
    started = time.perf_counter()
    rows: list[PolicyRow] = []
    probes: list[ProbeRow] = []
    rates: dict[str, float] = {}
    os.environ.pop(MARK, None)
    with Bench(own=domain) as bench:
        for mode in MODES:
            tasks = [checkable(task) for task in _tasks(domain, mode)]
            players = [*POLICIES, *TEXTS] + (list(ANSWERS) if all(task.answer is not None for task in tasks) else [])
            rate = blind_rate(domain, mode, (1,), ("en",))
            rates[f"{domain.name}/{mode}"] = rate
            for player in players:
                allowed = floor_of(rate if player.guesses else 0.0, len(tasks))
                allowed = GENERAL_FLOOR if domain.kind == "general" else allowed
                rows.append(_play(bench, domain.name, tasks, player, allowed if floor is None else floor))
                tick(f"{mode}: {player.name}")
            probes += [_repeats(domain, mode), _demonstrated(bench, domain, tasks), _bad_calls(bench, domain, tasks[0])]
        probes += [_splits(domain), _raised(rows), _executed()]
        tier = bench.sandbox.tier
    report = Report(path, policies=rows, probes=probes, guess_rates=rates, seconds=time.perf_counter() - started)
    return report, tier


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


def _tasks(domain: Domain, mode: Mode) -> list[Task]:
    try:
        tasks = within(DEADLINE_S, lambda: tasks_of(domain, mode, TASKS, (1,), ("en",)))
    except Exception as error:  # whatever the user's generator raises, told with its name
        raise UsageError(f"domain {domain.name}: generate raised {type(error).__name__}: {error}") from error
    return [replace(task, domain=domain.name) for task in tasks]


def _play(bench: Bench, name: str, tasks: Sequence[Task], player: KnowsNothing, floor: float) -> PolicyRow:
    try:
        return within(DEADLINE_S, lambda: play_policy(bench, name, tasks, player, floor))
    except TimeoutError as error:
        told = (f"TimeoutError: {error}",)
        return PolicyRow(name, tasks[0].mode, player.name, len(tasks), 0.0, floor, 0, told)


def _play_all(
    bench: Bench, name: str, tasks: Sequence[Task], players: Sequence[KnowsNothing], floor: float, tick: Tick
) -> list[PolicyRow]:
    rows = []
    for player in players:
        rows.append(_play(bench, name, tasks, player, floor))
        tick(player.name)
    return rows


def _named(rows: Sequence[PolicyRow], name: str) -> list[PolicyRow]:
    return [replace(row, domain=name) for row in rows]


# --- probes ---


def _raised(rows: Sequence[PolicyRow]) -> ProbeRow:
    """An exception masks the sample, so that a policy can escape a bad reward by provoking it."""
    found = [
        f"{row.policy}: {reason}"
        for row in rows
        for reason in (*row.errors, *(r for r in row.reasons if "Error: " in r or "Exception: " in r))
    ]
    return ProbeRow("raises on no text", not found, "; ".join(found[:3]) or "no exception")


def _numbers(rows: Sequence[PolicyRow]) -> ProbeRow:
    bad = [f"{r.policy}: {x}" for r in rows for x in r.reasons if "not finite" in x or "not a number" in x]
    silent = sum(any("no opinion" in reason for reason in row.reasons) for row in rows)
    told = f"every value is a finite number; None for some samples of {silent} policies"
    return ProbeRow("gives finite numbers", not bad, "; ".join(bad[:3]) or told)


def _texts(bench: Bench, tasks: Sequence[Task]) -> list[Attempt]:
    """Attempts that differ from each other, for the probes of speed and order."""
    policies = (*TEXTS[:3], REFERENCE)
    return [bench.play(task, policies[i % len(policies)].policy, sample=i) for i, task in enumerate(tasks)]


def _values(bench: Bench, attempts: Sequence[Attempt]) -> list[float | None]:
    rewards = within(DEADLINE_S, lambda: bench.grader.grade([attempts])[0])
    return [reward.value for reward in rewards]


def _speed(bench: Bench, tasks: Sequence[Task]) -> list[ProbeRow]:
    attempts = _texts(bench, tasks)
    started = time.perf_counter()
    try:
        _values(bench, attempts)
    except Exception as error:  # the reason that the reader is shown
        return [ProbeRow("one value per completion", False, f"{type(error).__name__}: {error}")]
    seconds = (time.perf_counter() - started) / len(attempts)
    return [
        ProbeRow("one value per completion", True, f"{len(attempts)} for {len(attempts)} completions"),
        ProbeRow("is quick", seconds <= SLOW_S, f"{seconds * 1e3:.2f} ms per completion, at most {SLOW_S:g} s"),
    ]


def _order(bench: Bench, tasks: Sequence[Task]) -> list[ProbeRow]:
    attempts = _texts(bench, tasks)
    try:
        first, again = _values(bench, attempts), _values(bench, attempts)
        backwards = _values(bench, attempts[::-1])[::-1]
    except Exception as error:  # the reason that the reader is shown
        return [ProbeRow("says the same twice", False, f"{type(error).__name__}: {error}")]
    steady = "equal inputs get equal values" if first == again else "equal inputs got different values"
    placed = "values go with their samples" if first == backwards else "a reversed batch got other values"
    return [
        ProbeRow("says the same twice", first == again, steady),
        ProbeRow("does not depend on the order", first != again or first == backwards, placed),
    ]


def _executed() -> ProbeRow:
    executed = MARK in os.environ
    return ProbeRow("executes no text", not executed, "a completion was executed" if executed else "no payload ran")


def _tells_apart(rows: Sequence[PolicyRow], references: Sequence[PolicyRow]) -> ProbeRow:
    best, truth = max(rows, key=lambda row: row.mean), max(references, key=lambda row: row.mean)
    found = f"{truth.policy} earns {truth.mean:.3f}; of what must earn nothing, {best.policy} earns {best.mean:.3f}"
    return ProbeRow("pays the truth more than anything else", truth.mean > best.mean, found)


def _repeats(domain: Domain, mode: Mode) -> ProbeRow:
    name = f"{mode}: equal requests give equal tasks"
    request = Request(7, "train", mode)
    first, again = domain.generate(request).to_json(), domain.generate(request).to_json()
    try:
        json.dumps(first)
    except (TypeError, ValueError) as error:
        return ProbeRow(name, False, f"the task can not be written as JSON: {error}")
    return ProbeRow(name, first == again, "they do" if first == again else "two draws of seed 7 differ")


def _splits(domain: Domain) -> ProbeRow:
    """The same problem must not be in both splits."""
    shown: list[set[str]] = [
        {domain.generate(Request(seed, split, "direct")).id for seed in range(200)} for split in ("train", "heldout")
    ]
    both = sorted(shown[0] & shown[1])
    found = f"{len(both)} of {len(shown[1])} held-out tasks are training tasks: {both[:1]}"
    return ProbeRow("held-out tasks are held out", not both, found if both else "none is in both")


def _demonstrated(bench: Bench, domain: Domain, tasks: Sequence[Task]) -> ProbeRow:
    """Honest answers: the domain's own careful demonstrations must be paid."""
    name = f"{tasks[0].mode}: pays its own demonstrations"

    def pays(task: Task) -> bool:
        messages = domain.demonstrate(task, rng_for("audit demonstration", task.id), careful=True)
        turns = turns_of(messages, task.mode)
        attempt = bench.play(task, lambda t, results: turns[min(len(results), len(turns) - 1)])
        value = bench.grader.grade([[attempt]])[0][0].value
        return value is not None and value >= 0.5

    try:
        paid = within(DEADLINE_S, lambda: sum(pays(task) for task in tasks))
    except NotImplementedError:
        return ProbeRow(name, True, "it has no demonstrations, so honest answers were not tried")
    except Exception as error:  # whatever the user's code raises is the reason that the reader is shown
        return ProbeRow(name, False, f"{type(error).__name__}: {error}")
    return ProbeRow(name, paid == len(tasks), f"{paid} of {len(tasks)} are paid")


def _bad_calls(bench: Bench, domain: Domain, task: Task) -> ProbeRow:
    """Calls that make no sense are answered by `error: …`, never by an exception."""
    name = f"{task.mode}: bears senseless tool calls"
    if not domain.tools:
        return ProbeRow(name, True, "it has no tools")
    known = [spec["function"]["name"] for spec in domain.tools]
    odd: list[dict[str, Any]] = [{}, {"x": None}, {"path": 7, "query": [], "id": {}}, {"path": "../../etc/passwd"}]
    problems = []
    for tool in ["no such tool", *known]:
        for arguments in odd:
            try:
                world = domain.environment(task, bench.sandbox)
                answer = None if world is None else within(DEADLINE_S, _call(world.call, tool, arguments))
                if not isinstance(answer, str):
                    problems.append(f"{tool}{arguments} gave {type(answer).__name__}")
                elif tool not in known and not answer.startswith("error:"):
                    problems.append(f"{tool} was answered by {answer!r:.40}")
                json.dumps(None if world is None else dict(world.state()))
            except Exception as error:  # whatever the user's code raises is the reason that the reader is shown
                problems.append(f"{tool}{arguments} raised {type(error).__name__}: {error}")
    return ProbeRow(name, not problems, "; ".join(problems[:3]) or "each was answered, the state is JSON")


def _call(work: Callable[[str, dict[str, Any]], str], tool: str, arguments: dict[str, Any]) -> Callable[[], str]:
    return lambda: work(tool, arguments)
