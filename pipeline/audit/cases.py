"""What a case of the audit is: a subject that is graded, and what it may be paid.

A case is data. Each subject says how the attempt is made that the production graders judge (`pipeline.grader.Grader`:
extraction, the domain's grader, the router); none calls a grader's inside. The data modules (`exploits_*.py`,
`honest_*.py`) each hold `CASES: tuple[Case, ...]`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from rewards.rubric import Criterion, RubricResult
from rewards.sandbox import SandboxWorker
from rewards.types import Reward, Verdict
from rollout.records import Mode, StopReason, Task
from rollout.tools import render_tool_call

Area = Literal[
    "math", "code", "agents", "search", "format", "length", "language", "judge", "infrastructure", "text"
]
Payment = Literal["zero", "invalid", "floor", "paid"]
"""What a case must be paid: `zero`: a value of 0, or invalid. `invalid`: no value at all. `floor`: at most the case's
`floor`, or invalid. `paid` (honest answers): at least the case's `at_least`."""

OWN_VERIFIABLE, OWN_GENERAL = "audit", "audit_general"
"""Domains that the audit adds to the configuration; they are graded as a user's own data is (`specialists.own`)."""


@dataclass(frozen=True)
class MathSubject:
    """One completion to a mathematical question, graded as the `math` domain grades.

    `completion` is all that the policy wrote after the prompt, so in thinking mode it holds one `</think>`.
    """

    question: str
    truth: str
    completion: str
    mode: Mode = "direct"
    language: str = "en"
    stop_reason: StopReason = "stop"

    @property
    def task(self) -> Task:
        return _task("math", self, answer=self.truth)


@dataclass(frozen=True)
class TextSubject:
    """One completion to a question with a short answer.

    `grader` is `logic/FAMILY` for the `logic` domain (circuits, knights, orderings), else the name of a grader that
    own data may choose (`rewards.graders`), with the `choices` of a multiple-choice question. The answer stands in the
    completion as that grader wants it (most in a box).
    """

    grader: str
    truth: Any
    completion: str
    question: str = "What is the answer?"
    choices: tuple[str, ...] = ()
    mode: Mode = "direct"
    language: str = "en"
    stop_reason: StopReason = "stop"

    @property
    def task(self) -> Task:
        domain, _, family = self.grader.partition("/")
        if family:
            return _task(domain, self, answer=self.truth, family=family)
        return _task(OWN_VERIFIABLE, self, answer=self.truth, grader=self.grader, choices=self.choices)


@dataclass(frozen=True)
class InstructionSubject:
    """One completion under constraints that a program checks: `checks` are specifications as
    `rewards.instructions.check_criterion` takes them, graded as a general task whose rubric they are. Paid is the share
    that is met.
    """

    checks: tuple[Mapping[str, Any], ...]
    completion: str
    question: str = "Write a text."
    mode: Mode = "direct"
    language: str = "en"
    stop_reason: StopReason = "stop"

    @property
    def task(self) -> Task:
        rubric = tuple(Criterion(f"check {n}", "checked", check=spec) for n, spec in enumerate(self.checks))
        return _task(OWN_GENERAL, self, rubric=rubric)


@dataclass(frozen=True)
class CodeSubject:
    """One completion to a programming problem, graded as the `code` domain grades.

    `function` is the name that hidden tests call, None for a program from stdin to stdout; `tests` are in the form that
    `rewards.code` reads; `options` are further fields of the task's environment.
    """

    tests: tuple[Mapping[str, Any], ...]
    completion: str
    function: str | None = None
    question: str = "Write the code."
    options: Mapping[str, Any] = field(default_factory=dict)
    mode: Mode = "direct"
    language: str = "en"
    stop_reason: StopReason = "stop"

    @property
    def task(self) -> Task:
        return _task("code", self, tests=self.tests, environment={"function": self.function, **self.options})


@dataclass(frozen=True)
class Cut:
    """A turn that the policy does not end: it writes `text` and then runs into its token limit."""

    text: str


Policy = Callable[[Task, Sequence[str]], str | Cut]
"""A scripted policy: from the task and the tool results so far to the whole text of its next turn."""


@dataclass(frozen=True)
class AgentSubject:
    """A conversation of a scripted policy in a generated task of a built-in domain: real conversation loop, real
    environment, real grader. The task is `generate(Request(seed, split, mode, (level,), (language,)))`; the criteria of
    a general domain are checked by their hidden truth, as a judge that is never wrong would.
    """

    domain: str
    policy: Policy
    seed: int = 0
    level: int = 1
    mode: Mode = "direct"
    split: Literal["train", "heldout"] = "train"
    language: str = "en"


@dataclass(frozen=True)
class Member:
    """One sample of a group: its completion and how many tokens the policy wrote for it."""

    completion: str
    tokens: int = 20
    stop_reason: StopReason = "stop"


@dataclass(frozen=True)
class RewardSubject:
    """A group of samples of one task, for what only shows between samples (length, language, order).

    `gain` reads from the group's rewards, in sample order, what the cheat (or the honest sample) was paid; without it
    that is the reward of the first member.
    """

    task: Task
    members: tuple[Member, ...]
    gain: Callable[[Sequence[Reward]], float | None] | None = None


Reply = Callable[[Mapping[str, Any]], str | int]
"""A scripted judge: from the body of a chat-completions request to the text of its reply, or to an HTTP status that
the server fails with."""


@dataclass(frozen=True)
class JudgeSubject:
    """One completion to a general task, judged through the real client by a scripted judge behind real HTTP."""

    question: str
    completion: str
    criteria: tuple[Criterion, ...]
    reply: Reply
    mode: Mode = "direct"
    language: str = "en"
    stop_reason: StopReason = "stop"

    @property
    def task(self) -> Task:
        return _task(OWN_GENERAL, self, rubric=self.criteria)


class Workbench(Protocol):
    """What a provoked failure may use. `grade` is the production path of one group of completions."""

    sandbox: SandboxWorker

    def grade(self, task: Task, members: Sequence[Member], reply: Reply | None = None) -> list[Reward]: ...


@dataclass(frozen=True)
class InfrastructureSubject:
    """A failure that is provoked: `provoke` does it and returns what a grader said of it. An exception that escapes
    from it counts as paid: nothing may escape a grader but *invalid*.
    """

    provoke: Callable[[Workbench], Reward | Verdict | RubricResult]


Subject = (
    MathSubject
    | TextSubject
    | InstructionSubject
    | CodeSubject
    | AgentSubject
    | RewardSubject
    | JudgeSubject
    | InfrastructureSubject
)


@dataclass(frozen=True)
class Case:
    """One case. `name` is unique within its area, `note` says in a sentence what is tried."""

    name: str
    area: Area
    payment: Payment
    subject: Subject
    note: str = ""
    floor: float = 0.0
    at_least: float = 0.5

    @property
    def id(self) -> str:
        return f"{self.area}/{self.name}"

    @property
    def honest(self) -> bool:
        return self.payment == "paid"

    def holds(self, value: float | None) -> bool:
        """Whether a payment (None: invalid) is what the case must get."""
        if self.payment == "paid":
            return value is not None and value >= self.at_least
        if self.payment == "invalid":
            return value is None
        return value is None or value <= (self.floor if self.payment == "floor" else 0.0)


def say(text: str, mode: Mode = "direct", thought: str = "Let me see.") -> str:
    """A turn without a tool call, in the form of its mode."""
    return f"{thought}</think>{text}" if mode == "thinking" else text


def call(name: str, mode: Mode = "direct", thought: str = "Let me see.", **arguments: Any) -> str:
    """A turn that calls a tool, in the form of its mode."""
    return say(render_tool_call(name, arguments), mode, thought)


def script(*turns: str | Cut) -> Policy:
    """The policy that writes these turns one after the other, and empty ones after the last."""
    return lambda task, results: turns[len(results)] if len(results) < len(turns) else ""


def question(
    truth: str, text: str = "Compute it.", mode: Mode = "direct", language: str = "en", domain: str = "math"
) -> Task:
    """A task for a `RewardSubject`: a number in a box, graded as `math` grades."""
    messages = ({"role": "user", "content": text},)
    return Task(f"audit/{domain}/{mode}", domain, messages, mode=mode, language=language, answer=truth)


def _task(
    domain: str,
    subject: MathSubject | TextSubject | InstructionSubject | CodeSubject | JudgeSubject,
    **fields: Any,
) -> Task:
    messages = ({"role": "user", "content": subject.question},)
    return Task(
        f"audit/{domain}/{subject.mode}", domain, messages, mode=subject.mode, language=subject.language, **fields
    )
