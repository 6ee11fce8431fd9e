"""A domain that consists of the user's own tasks: one turn, judged by a grader that they name or a rubric."""

from __future__ import annotations

import random

from rewards.extract import FormatError, split_thinking
from rewards.graders import DEFAULT, grade_answer
from rewards.instructions import check_criterion
from rewards.sandbox import SandboxWorker
from rewards.types import Verdict
from rollout.environment import Environment, ToolSpec
from rollout.records import Attempt, Message, Task
from specialists.base import Kind, Request


class OwnDomain:
    """See the module. `verifiable` tasks carry an `answer`, `general` ones a `rubric`."""

    families: tuple[str, ...] = ()
    tools: tuple[ToolSpec, ...] = ()
    max_turns = 1

    def __init__(self, name: str, kind: str) -> None:
        self.name = name
        self.kind: Kind = "general" if kind == "general" else "verifiable"

    def generate(self, request: Request) -> Task:
        raise ValueError(f"domain {self.name} has no generator: its tasks come from domains.{self.name}.data")

    def demonstrate(self, task: Task, rng: random.Random, careful: bool) -> list[Message]:
        raise ValueError(f"domain {self.name} has no demonstrations: its tasks come from domains.{self.name}.data")

    def environment(self, task: Task, sandbox: SandboxWorker | None) -> Environment | None:
        return None

    def grade(self, attempt: Attempt, sandbox: SandboxWorker | None) -> Verdict:
        """The answer against `task.answer`, by the grader that the task names (`rewards.graders`; a number or an
        expression in a box where it names none). General tasks: by those criteria that a program can check."""
        parts = split_thinking(attempt.final, attempt.task.mode, attempt.finished)
        if isinstance(parts, FormatError):
            return Verdict(False, parts.name, {"detail": parts.detail})
        if self.kind == "general":
            return _checked(attempt.task, parts.answer_text)
        if attempt.task.answer is None:
            return Verdict.invalid(f"task {attempt.task.id} has no answer to compare with")
        task = attempt.task
        return grade_answer(task.grader or DEFAULT, parts.answer_text, task.answer, task.choices, sandbox)


def _checked(task: Task, answer: str) -> Verdict:
    known = [c for c in task.rubric if c.known is not None]
    if not known:
        return Verdict.invalid(f"task {task.id}: no criterion of its rubric can be checked by a program")
    missed = [c.name for c in known if not c.satisfied(check_criterion(c.known or {}, answer))]
    return Verdict(not missed, "all met" if not missed else f"missed: {missed[0]}", {"missed": missed})
