"""The grader's actor: attempts in, rewards out. Owns a sandbox worker; never imports torch.

Which judgement pays which task is the router's matter (`rewards.router`); this file fetches the judgements: the
domain's own grader for verifiable tasks, the generative reward model for general ones, or the user's function.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import re
from collections.abc import Sequence

from pipeline.config.schema import Config
from pipeline.errors import StageError
from pipeline.sandboxes import open_sandbox
from pipeline.tasks import find_domain, turn_limit
from rewards.custom import CustomReward, CustomRewardError
from rewards.extract import FormatError, split_thinking
from rewards.judge.canaries import BUILT_IN, Canary, CanaryReport, ask_canaries, read_canaries
from rewards.judge.client import GenRMClient, JudgeRequest, Sampling
from rewards.judge.prompt import INSTRUCTED_TEMPLATE, SHORT_TEMPLATE
from rewards.language import LanguageScore, language_consistency
from rewards.router import RewardConfig, combine_group
from rewards.rubric import RubricResult
from rewards.types import Reward, Verdict
from rollout.records import Attempt
from specialists.base import Domain

_FORMAL = re.compile(r"<tool_call>.*?(?:</tool_call>|\Z)|\\boxed\{[^{}]*\}", re.DOTALL)


class Grader:
    """Grades groups of attempts; a function of its arguments alone, so that a repeated call does no harm.

    Args:
        judge_url: base URL of the judge; None where no general domain takes part.
    """

    def __init__(self, config: Config, judge_url: str | None) -> None:
        self.config = config
        self.sandbox = open_sandbox(config.sandbox)
        self.judge = None if judge_url is None else judge_client(config, judge_url)
        self._canaries = judge_canaries(config)
        self.custom = {name: CustomReward(d.reward) for name, d in config.domains.items() if d.enabled and d.reward}

    def grade(
        self, groups: Sequence[Sequence[Attempt]], judge_stopped: str | None = None
    ) -> list[list[Reward]]:
        """The training rewards of each group, in order. With `judge_stopped` the judge is not asked, and what it would
        pay is invalid for that reason."""
        rewards: list[list[Reward] | None] = [None] * len(groups)
        general: list[int] = []
        for index, group in enumerate(groups):
            name = group[0].task.domain
            if name in self.custom:
                rewards[index] = self._custom(group)
            elif self.domain(name).kind == "general":
                general.append(index)
            else:
                rewards[index] = self._combined("verifiable", group, self.verdicts(group))
        judged = self._rubrics([attempt for index in general for attempt in groups[index]], judge_stopped)
        for index in general:
            results = [judged.pop(0) for _ in groups[index]]
            rewards[index] = self._combined("general", groups[index], results)
        return [reward for reward in rewards if reward is not None]

    def canaries(self) -> CanaryReport:
        """What the judge makes of answers whose verdict is known. Raises `StageError` where there is no judge."""
        if self.judge is None:
            raise StageError("no judge was started, and so none can be checked with canaries")
        return ask_canaries(self.judge, self._canaries)

    def verdicts(self, attempts: Sequence[Attempt]) -> list[Verdict]:
        """What is true of each attempt: the domain's own grader, for general tasks the programmatic checks. A grader
        that raises has no opinion: the sample is masked, and the log has the traceback."""
        return [self._verdict(attempt) for attempt in attempts]

    def _verdict(self, attempt: Attempt) -> Verdict:
        domain = self.domain(attempt.task.domain)
        try:
            verdict = domain.grade(attempt, self.sandbox)
        except Exception as error:  # whatever a grader raises is its own fault, never the answer's
            return Verdict.invalid(_raised(f"the grader of {domain.name}", error))
        if not isinstance(verdict, Verdict):
            return Verdict.invalid(f"the grader of {domain.name} gave {type(verdict).__name__} in place of a verdict")
        return verdict

    def domain(self, name: str) -> Domain:
        """The domain that judges the tasks of that name."""
        return find_domain(name, self.config.domains[name])

    def evaluate(self, attempts: Sequence[Attempt]) -> list[tuple[bool | None, float | None, str]]:
        """For the evaluation of each attempt: right or not (None: invalid), share of the prompt's language (None: no
        opinion), and the reason. A domain with the user's own reward counts as passed from a value of 0.5."""
        rows: list[tuple[bool | None, float | None, str]] = []
        for attempt in attempts:
            if attempt.task.domain in self.custom:
                reward = self._custom([attempt])[0]
                passed, reason = None if reward.value is None else reward.value >= 0.5, reward.invalid_reason or ""
            else:
                verdict = self.verdicts([attempt])[0]
                passed, reason = verdict.correct, verdict.reason
            language = self._language(attempt)
            rows.append((passed, None if language is None else language.share, reason))
        return rows

    def _combined(
        self, kind: str, group: Sequence[Attempt], judgements: Sequence[Verdict] | Sequence[RubricResult]
    ) -> list[Reward]:
        """`_combine`, where what it raises makes the group's rewards invalid."""
        try:
            return self._combine(kind, group, judgements)
        except Exception as error:
            reason = _raised(f"the combination of the rewards of {group[0].task.domain}", error)
            return [Reward.invalid(reason) for _ in group]

    def _combine(
        self, kind: str, group: Sequence[Attempt], judgements: Sequence[Verdict] | Sequence[RubricResult]
    ) -> list[Reward]:
        length, language = self.config.rewards.length, self.config.rewards.language
        name = group[0].task.domain
        limit = turn_limit(self.config, name) * self.domain(name).max_turns
        settings = RewardConfig(
            max_length=min(limit, self.config.sampling.max_context),
            length_k=length.penalty,
            length_band=length.band,
            length_min_accuracy=length.min_accuracy,
            length_quantile=length.quantile,
            overlong=length.overlong_penalty,
            overlong_share=length.overlong_share,
            language_weight=language.penalty,
        )
        scores = [self._language(attempt) if language.penalty else None for attempt in group]
        return combine_group(kind, judgements, [a.tokens for a in group], scores, settings)  # type: ignore[arg-type]

    def _language(self, attempt: Attempt) -> LanguageScore | None:
        """Of what the policy wrote for a reader, tool calls and boxes left out; None outside the configured languages
        (English and Chinese where a domain names one)."""
        languages = sorted({"en", "zh", *self.config.domains[attempt.task.domain].languages})
        if attempt.task.language not in languages:
            return None
        text = "\n".join(_FORMAL.sub(" ", turn) for turn in attempt.completions)
        return language_consistency(
            text,
            attempt.task.language,
            languages,
            min_letters=self.config.rewards.language.minimum_letters,
            prompt="\n".join(message["content"] for message in attempt.task.messages),
        )

    def _rubrics(self, attempts: Sequence[Attempt], judge_stopped: str | None) -> list[RubricResult]:
        """The judge's results. An answer that breaks the format has no answer to judge and meets nothing."""
        if not attempts:
            return []
        if judge_stopped is not None:
            return [RubricResult.invalid(judge_stopped) for _ in attempts]
        if self.judge is None:
            raise StageError(f"domain {attempts[0].task.domain} is judged by the GenRM, and no judge was started")
        requests = []
        for attempt in attempts:
            parts = split_thinking(attempt.final, attempt.task.mode, attempt.finished)
            answer = "" if isinstance(parts, FormatError) else parts.answer_text
            requests.append(JudgeRequest(attempt.task.prompt, answer, attempt.task.rubric))
        try:
            return self.judge.judge_many(requests)
        except Exception as error:  # a judge that can not be asked has no opinion
            lost = RubricResult.invalid(_raised("the judge's client", error))
            return [lost for _ in attempts]

    def _custom(self, group: Sequence[Attempt]) -> list[Reward]:
        prompts = [list(attempt.task.messages) for attempt in group]
        completions = [[{"role": "assistant", "content": attempt.final}] for attempt in group]
        columns = {
            name: [getattr(attempt.task, name) for attempt in group]
            for name in ("id", "mode", "language", "answer", "tests", "environment", "difficulty", "provenance")
        }
        try:
            return self.custom[group[0].task.domain].score(prompts, completions, **columns)
        except CustomRewardError as error:
            raise StageError(str(error)) from error

    def close(self) -> None:
        self.sandbox.close()
        if self.judge is not None:
            self.judge.close()


def judge_canaries(config: Config) -> tuple[Canary, ...]:
    """The built-in canaries and the user's own."""
    return BUILT_IN + (read_canaries(config.judge.canaries) if config.judge.canaries else ())


def judge_client(config: Config, url: str) -> GenRMClient:
    """The client of the judge at `url`; its nonces follow from the run's seed, so that a run can be repeated."""
    judge = config.judge
    return GenRMClient(
        url,
        judge.model,
        timeout=judge.timeout_s,
        max_retries=judge_retries(judge.timeout_s),
        concurrency=judge.concurrency,
        votes=judge.votes,
        deadline=config.runtime.step_deadline_s / 2,
        sampling=Sampling(temperature=judge.temperature, max_tokens=judge.max_new_tokens, seed=config.seed),
        api_key=os.environ.get(judge.api_key_env),
        cache=judge.cache,
        template=SHORT_TEMPLATE if judge.base_url is None else INSTRUCTED_TEMPLATE,
        criteria_per_call=judge.criteria_per_call,
        guided=judge.guided,
        nonce_key=hashlib.blake2b(f"nonce {config.seed}".encode()).digest(),
    )


def _raised(who: str, error: Exception) -> str:
    """The reason of an invalid reward; the traceback goes to the log."""
    logging.getLogger(__name__).error("%s raised", who, exc_info=error)
    return f"{who} raised {type(error).__name__}: {error}"[:300]


def judge_retries(seconds: float) -> int:
    """Tries after the first, so that a judge that refuses connections is waited for so long: a judge's actor that died
    takes seconds to come back, and its absence must not make a step's rewards invalid. The client's pauses double from
    0.1 s to 5 s: six of them take 6.3 s."""
    return 6 + math.ceil(max(0.0, seconds - 6.3) / 5.0)
