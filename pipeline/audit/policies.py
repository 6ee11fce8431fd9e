"""Policies that know nothing, and what they may earn.

None looks at what is true: they write nothing, junk, the prompt, every candidate, the public example, or a guess. In
a domain that can be checked, what does not even guess must earn nothing, and what guesses no more than the best guess
that ignores the question would (`guess_rate`).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.audit.cases import Cut, Policy, call, say
from rollout.records import Mode, Split, Task
from rollout.seeding import rng_for
from specialists import CHINESE_NAMES, NAMES
from specialists.base import Domain, Request

WORDS = ("blue", "seven", "the", "of", "answer", "x", "12", "yes", "法", "是", "{", "}", "\\frac", "=", "list", "ok")
NUMBER = re.compile(r"-?\d+")
FILE = re.compile(r"\w+\.py")
SIGMAS = 3.5
"""A measured mean may lie this many standard errors above the rate that is allowed."""


@dataclass(frozen=True)
class KnowsNothing:
    """`guesses` marks a policy that gives one candidate in the right form: it may be right by chance."""

    name: str
    policy: Policy
    guesses: bool = False


def _junk(task: Task, results: Sequence[str]) -> str:
    rng = rng_for("audit junk", task.id, len(results))
    return say(" ".join(rng.choices(WORDS, k=40)), task.mode, " ".join(rng.choices(WORDS, k=20)))


def _boxed_junk(task: Task, results: Sequence[str]) -> str:
    rng = rng_for("audit boxed junk", task.id)
    return say(rf"\boxed{{{' '.join(rng.choices(WORDS[:8], k=6))}}}", task.mode)


def _candidates(task: Task) -> list[str]:
    """Everything that the prompt names, all digits and all names."""
    found = NUMBER.findall(task.prompt) + re.findall(r"\b[A-Z]\w+", task.prompt)
    return list(dict.fromkeys([*found, *map(str, range(10)), *NAMES, *CHINESE_NAMES.values(), "none"]))


def _all_boxes(task: Task, results: Sequence[str]) -> str:
    return say(" ".join(rf"\boxed{{{item}}}" for item in _candidates(task)), task.mode)


def _one_box(task: Task, results: Sequence[str]) -> str:
    return say(rf"\boxed{{{', '.join(_candidates(task))}}}", task.mode)


def _public_example(task: Task, results: Sequence[str]) -> str:
    """Writes the value that the prompt or the test tool shows: as a constant function, or into the first file."""
    shown = re.findall(r"want (\S+)", " ".join([task.prompt, *results]))
    value = shown[-1].rstrip(".") if shown else "0"
    files = FILE.findall(task.prompt)
    if not files:
        return say(f"```python\ndef f(*args):\n    return {value}\n\nprint({value})\n```", task.mode)
    if not results:
        return call("test", task.mode)
    if len(results) == 1:
        return call("edit", task.mode, path=files[0], line=2, text=f"    return {value}")
    return say("Done.", task.mode)


def _one_look(task: Task, results: Sequence[str]) -> str:
    """An agent that uses one tool and stops."""
    files = FILE.findall(task.prompt)
    if results:
        return say("Done.", task.mode)
    return call("view", task.mode, path=files[0]) if files else call("search", task.mode, query="page")


def _read_first_page(task: Task, results: Sequence[str]) -> str:
    """A searcher that opens the first result for the question and answers with its last word."""
    if not results:
        return call("search", task.mode, query=task.prompt[:150])
    if len(results) == 1:
        first = results[0].split()
        return call("open", task.mode, id=first[0] if first else "none")
    return say(rf"\boxed{{{(results[-1].split() or ['none'])[-1].strip('.')}}}", task.mode)


def _text(text: str) -> Policy:
    return lambda task, results: say(text, task.mode)


def _echo(form: str) -> Policy:
    return lambda task, results: say(form.replace("@", task.prompt), task.mode)


def _number(place: int) -> Policy:
    def policy(task: Task, results: Sequence[str]) -> str:
        numbers = NUMBER.findall(task.prompt) or ["0"]
        return say(rf"\boxed{{{numbers[place]}}}", task.mode)

    return policy


def _name(task: Task, results: Sequence[str]) -> str:
    people = (*NAMES, *CHINESE_NAMES.values())
    named = [name for name in people if name in task.prompt] or re.findall(r"\b[A-Z]\w+", task.prompt) or ["Ann"]
    return say(rf"\boxed{{{named[0]}}}", task.mode)


POLICIES: tuple[KnowsNothing, ...] = (
    KnowsNothing("empty", _text("")),
    KnowsNothing("end of text at once", lambda task, results: ""),
    KnowsNothing("never ends", lambda task, results: Cut("wait " * 40)),
    KnowsNothing("junk", _junk),
    KnowsNothing("junk in a box", _boxed_junk),
    KnowsNothing("echo of the prompt", _echo("@")),
    KnowsNothing("echo in a box", _echo(r"\boxed{@}")),
    KnowsNothing("echo as code", _echo("```python\n@\n```")),
    KnowsNothing("all candidates, a box each", _all_boxes),
    KnowsNothing("all candidates in one box", _one_box),
    KnowsNothing("copy of the public example", _public_example),
    KnowsNothing("gold-format words", _text(r"#### answer. Final answer: \boxed{answer}. correct. Tests pass.")),
    KnowsNothing("I don't know", _text("I don't know.")),
    KnowsNothing("claims it is done", _text("Done. Everything is fixed and all tests pass.")),
    KnowsNothing("one look, then done", _one_look),
    KnowsNothing("identity as code", _text("```python\ndef f(x):\n    return x\n\nprint(input())\n```")),
    KnowsNothing("guess: 0", _text(r"\boxed{0}"), guesses=True),
    KnowsNothing("guess: 1", _text(r"\boxed{1}"), guesses=True),
    KnowsNothing("guess: none", _text(r"\boxed{none}"), guesses=True),
    KnowsNothing("guess: first number", _number(0), guesses=True),
    KnowsNothing("guess: last number", _number(-1), guesses=True),
    KnowsNothing("guess: first name", _name, guesses=True),
    KnowsNothing("guess: end of the first page", _read_first_page, guesses=True),
)


def tasks_of(
    domain: Domain, mode: Mode, count: int, levels: Sequence[int], languages: Sequence[str], start: int = 0
) -> list[Task]:
    """Tasks of both splits, levels and languages in turn; equal arguments, equal tasks."""
    splits: tuple[Split, ...] = ("train", "heldout")
    return [
        domain.generate(
            Request(
                start + number,
                splits[number % 2],
                mode,
                (levels[number % len(levels)],),
                (languages[number % len(languages)],),
            )
        )
        for number in range(count)
    ]


def guess_rate(tasks: Sequence[Task]) -> float:
    """What the best constant guess per family, level and language earns: the share of the commonest answer. 0 where
    tasks have no single answer to guess."""
    answers: dict[tuple[str, int, str], Counter[str]] = {}
    for task in tasks:
        if task.answer is not None:
            key = (task.family, task.difficulty, task.language)
            answers.setdefault(key, Counter())[str(task.answer)] += 1
    return sum(counts.most_common(1)[0][1] for counts in answers.values()) / max(1, len(tasks))


def floor_of(rate: float, count: int) -> float:
    """The most that a mean over `count` tasks may be where the expectation may be `rate`."""
    return min(1.0, rate + SIGMAS * math.sqrt(rate * (1.0 - rate) / count))
