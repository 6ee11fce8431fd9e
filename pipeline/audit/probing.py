"""What a user's reward function or domain must bear beside the policies: each probe says what it found."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from pipeline.audit.deadline import within
from pipeline.audit.demonstrations import turns_of
from pipeline.audit.generic import MARK, TEXTS, TRUTHS
from pipeline.audit.runner import PolicyRow, ProbeRow
from pipeline.audit.workbench import Bench
from rollout.records import Attempt, Mode, Task
from rollout.seeding import rng_for
from specialists.base import Domain, Request

DEADLINE_S = 30.0
"""Seconds for one probe."""
SLOW_S = 1.0
"""Seconds for one completion above which a reward function is too slow to train with."""


def raised(rows: Sequence[PolicyRow]) -> ProbeRow:
    """An exception masks the sample, so that a policy can escape a bad reward by provoking it."""
    found = [
        f"{row.policy}: {reason}"
        for row in rows
        for reason in (*row.errors, *(r for r in row.reasons if "Error: " in r or "Exception: " in r))
    ]
    return ProbeRow("raises on no text", not found, "; ".join(found[:3]) or "no exception")


def numbers(rows: Sequence[PolicyRow]) -> ProbeRow:
    bad = [f"{r.policy}: {x}" for r in rows for x in r.reasons if "not finite" in x or "not a number" in x]
    silent = sum(any("no opinion" in reason for reason in row.reasons) for row in rows)
    told = f"every value is a finite number; None for some samples of {silent} policies"
    return ProbeRow("gives finite numbers", not bad, "; ".join(bad[:3]) or told)


def _texts(bench: Bench, tasks: Sequence[Task]) -> list[Attempt]:
    """Attempts that differ from each other, for the probes of speed and order."""
    policies = (*TEXTS[:3], TRUTHS[0])
    return [bench.play(task, policies[i % len(policies)].policy, sample=i) for i, task in enumerate(tasks)]


def _values(bench: Bench, attempts: Sequence[Attempt]) -> list[float | None]:
    rewards = within(DEADLINE_S, lambda: bench.grader.grade([attempts])[0])
    return [reward.value for reward in rewards]


def speed(bench: Bench, tasks: Sequence[Task]) -> list[ProbeRow]:
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


def order(bench: Bench, tasks: Sequence[Task]) -> list[ProbeRow]:
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


def executed() -> ProbeRow:
    executed = MARK in os.environ
    return ProbeRow("executes no text", not executed, "a completion was executed" if executed else "no payload ran")


def tells_apart(rows: Sequence[PolicyRow], references: Sequence[PolicyRow]) -> ProbeRow:
    best, truth = max(rows, key=lambda row: row.mean), max(references, key=lambda row: row.mean)
    found = f"{truth.policy} earns {truth.mean:.3f}; of what must earn nothing, {best.policy} earns {best.mean:.3f}"
    return ProbeRow("pays the truth more than anything else", truth.mean > best.mean, found)


def repeats(domain: Domain, mode: Mode) -> ProbeRow:
    name = f"{mode}: equal requests give equal tasks"
    request = Request(7, "train", mode)
    first, again = domain.generate(request).to_json(), domain.generate(request).to_json()
    try:
        json.dumps(first)
    except (TypeError, ValueError) as error:
        return ProbeRow(name, False, f"the task can not be written as JSON: {error}")
    return ProbeRow(name, first == again, "they do" if first == again else "two draws of seed 7 differ")


def splits(domain: Domain) -> ProbeRow:
    """The same problem must not be in both splits."""
    shown: list[set[str]] = [
        {domain.generate(Request(seed, split, "direct")).id for seed in range(200)} for split in ("train", "heldout")
    ]
    both = sorted(shown[0] & shown[1])
    found = f"{len(both)} of {len(shown[1])} held-out tasks are training tasks: {both[:1]}"
    return ProbeRow("held-out tasks are held out", not both, found if both else "none is in both")


def demonstrated(bench: Bench, domain: Domain, tasks: Sequence[Task]) -> ProbeRow:
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


def senseless_calls(bench: Bench, domain: Domain, task: Task) -> ProbeRow:
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
                answer = None if world is None else within(DEADLINE_S, partial(world.call, tool, arguments))
                if not isinstance(answer, str):
                    problems.append(f"{tool}{arguments} gave {type(answer).__name__}")
                elif tool not in known and not answer.startswith("error:"):
                    problems.append(f"{tool} was answered by {answer!r:.40}")
                json.dumps(None if world is None else dict(world.state()))
            except Exception as error:  # whatever the user's code raises is the reason that the reader is shown
                problems.append(f"{tool}{arguments} raised {type(error).__name__}: {error}")
    return ProbeRow(name, not problems, "; ".join(problems[:3]) or "each was answered, the state is JSON")
