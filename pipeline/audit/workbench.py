"""Takes a case through the production path: attempt, extraction, the domain's grader, the router."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from pipeline.audit.cases import (
    OWN_GENERAL,
    OWN_VERIFIABLE,
    AgentSubject,
    Case,
    InfrastructureSubject,
    JudgeSubject,
    Member,
    Policy,
    Reply,
    RewardSubject,
    Subject,
)
from pipeline.audit.conversation import Player
from pipeline.audit.scripted_judge import ScriptedJudge
from pipeline.config import Config, load_config
from pipeline.config.schema import DomainConfig
from pipeline.grader import Grader, judge_client
from rewards.rubric import RubricResult
from rewards.sandbox import SandboxWorker
from rewards.types import Reward, Verdict
from rollout.records import Attempt, Task
from specialists import DOMAINS, get_domain
from specialists.base import Domain, Request

LANGUAGES = ["en", "zh"]
OWN_REWARD = "own_reward"
"""Domain whose tasks a reward function under audit pays."""


@dataclass(frozen=True)
class Payment:
    """What a case was paid: a value, or None for invalid; `reason` says why. `error` is what escaped a grader."""

    value: float | None
    reason: str
    error: str | None = None


class AuditGrader(Grader):
    """The production grader, with further domains that no configuration can name (a class under audit).

    Production turns what a domain's grader raises into *invalid*; `raised` keeps it, because a text that makes a grader
    raise is a finding all the same.
    """

    def __init__(self, config: Config, judge_url: str | None, domains: Mapping[str, Domain]) -> None:
        self.domains = domains
        self.raised: list[str] = []
        super().__init__(config, judge_url)

    def domain(self, name: str) -> Domain:
        known = self.domains[name] if name in self.domains else super().domain(name)
        return cast(Domain, _Watched(known, self.raised))


class _Watched:
    """A domain whose grader's exceptions are noted on their way."""

    def __init__(self, domain: Domain, raised: list[str]) -> None:
        self._domain, self._raised = domain, raised

    def __getattr__(self, name: str) -> Any:
        return getattr(self._domain, name)

    def grade(self, attempt: Attempt, sandbox: SandboxWorker | None) -> Verdict:
        try:
            return self._domain.grade(attempt, sandbox)
        except Exception as error:
            self._raised.append(f"{type(error).__name__}: {error}")
            raise


class Bench:
    """One sandbox, one grader, one scripted judge, for all cases. See `cases.Workbench`.

    Args:
        own: a domain under audit, beside the built-in ones.
        reward: dotted path of a reward function under audit; it pays the tasks of `OWN_REWARD`.
    """

    def __init__(self, own: Domain | None = None, reward: str | None = None) -> None:
        # Failures are provoked here; their tracebacks would bury the report.
        logging.getLogger("pipeline.grader").setLevel(logging.CRITICAL)
        self.config = audit_config(own)
        if reward is not None:
            self.config.domains[OWN_REWARD] = DomainConfig(languages=LANGUAGES, reward=reward)
        self.player = Player()
        self._judge = ScriptedJudge()
        self.grader = AuditGrader(self.config, self._judge.url, {} if own is None else {own.name: own})
        self.sandbox = self.grader.sandbox

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self.grader.close()
        self._judge.close()
        logging.getLogger("pipeline.grader").setLevel(logging.NOTSET)

    def judged_by(self, reply: Reply | None) -> None:
        """Puts a scripted judge in place, with a client that remembers no earlier verdicts and tries twice."""
        self._judge.reply = reply
        if self.grader.judge is not None:
            self.grader.judge.close()
        self.grader.judge = judge_client(self.config, self._judge.url)
        self.grader.judge.chat.max_retries = 1

    def grade(self, task: Task, members: Sequence[Member], reply: Reply | None = None) -> list[Reward]:
        """The rewards of one group of one-turn completions, in order."""
        if reply is not None:
            self.judged_by(reply)
        return self.grader.grade([[_attempt(task, member, number) for number, member in enumerate(members)]])[0]

    def play(self, task: Task, policy: Policy, sample: int = 0) -> Attempt:
        """The attempt of a scripted policy at a task of any domain."""
        return self.player.play(self.grader.domain(task.domain), task, policy, self.sandbox, sample)

    def pay(self, case: Case) -> Payment:
        """What the case is paid. Nothing escapes: an exception is a payment with its `error`."""
        self.grader.raised.clear()
        try:
            paid = self._pay(case.subject)
        except Exception as error:  # an exception that leaves a grader is a finding, whatever it is
            return Payment(None, "a grader raised", f"{type(error).__name__}: {error}")
        if self.grader.raised and not isinstance(case.subject, InfrastructureSubject):
            return replace(paid, error=self.grader.raised[0])
        return paid

    def _pay(self, subject: Subject) -> Payment:
        if isinstance(subject, InfrastructureSubject):
            return _payment(subject.provoke(self))
        if isinstance(subject, AgentSubject):
            request = Request(subject.seed, subject.split, subject.mode, (subject.level,), (subject.language,))
            task = checkable(get_domain(subject.domain).generate(request))
            return _payment(self.grader.grade([[self.play(task, subject.policy)]])[0][0])
        if isinstance(subject, RewardSubject):
            rewards = self.grade(subject.task, subject.members)
            if subject.gain is None:
                return _payment(rewards[0])
            return Payment(subject.gain(rewards), "group: " + ", ".join(_told(reward) for reward in rewards))
        reply = subject.reply if isinstance(subject, JudgeSubject) else None
        member = Member(subject.completion, stop_reason=subject.stop_reason)
        return _payment(self.grade(subject.task, [member], reply)[0])


def checkable(task: Task) -> Task:
    """The task with those criteria checked by a program whose truth is known: the audit needs no judge for them."""
    return replace(task, rubric=tuple(replace(c, check=c.known, truth=None) for c in task.rubric))


def audit_config(own: Domain | None = None) -> Config:
    """The default settings, every built-in domain on, and the audit's own domains. A job has a CPU second: endless
    programs, which use all they get, would else be most of the audit."""
    config, _ = load_config()
    config.sandbox.cpu_s = 1
    for name in DOMAINS:
        config.domains[name] = replace(config.domains[name], enabled=True, data=None, reward=None)
    config.domains[OWN_VERIFIABLE] = DomainConfig(languages=LANGUAGES)
    config.domains[OWN_GENERAL] = DomainConfig(languages=LANGUAGES, kind="general")
    if own is not None:
        config.domains[own.name] = DomainConfig(languages=LANGUAGES, kind=own.kind)
    return config


def sample_of(case: Case) -> str:
    """What the policy wrote, for the reader; empty where a case is no single text."""
    subject = case.subject
    if isinstance(subject, RewardSubject):
        return subject.members[0].completion
    return "" if isinstance(subject, AgentSubject | InfrastructureSubject) else subject.completion


def _attempt(task: Task, member: Member, sample: int) -> Attempt:
    return Attempt(task, (member.completion,), (), member.stop_reason, member.tokens, sample=sample)


def _payment(said: Reward | Verdict | RubricResult) -> Payment:
    if isinstance(said, Verdict):
        return Payment(None if said.correct is None else float(said.correct), said.reason)
    if isinstance(said, RubricResult):
        return Payment(said.score, said.invalid_reason or "rubric")
    if said.value is None:
        return Payment(None, said.invalid_reason or "")
    reason = said.components[0].evidence.get("reason", said.components[0].name) if said.components else ""
    return Payment(said.value, str(reason))


def _told(reward: Reward) -> str:
    return "invalid" if reward.value is None else f"{reward.value:.3g}"
