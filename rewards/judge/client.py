"""The generative reward model: a rubric judged criterion by criterion, with votes, checked evidence and a cache.

A server that fails, answers garbage or takes too long makes a result invalid with the reason; it never costs the policy
a point. The prompt is in `rewards.judge.prompt`, the reply in `rewards.judge.reply`, the wire in `rewards.judge.http`.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rewards.instructions import check_criterion
from rewards.judge.cache import JudgeCache
from rewards.judge.http import ChatClient, ChatError, ChatSession, Usage
from rewards.judge.prompt import (
    DEFAULT_SAMPLING,
    MAX_CRITERIA_PER_CALL,
    SHORT_TEMPLATE,
    JudgeRequest,
    JudgeTemplate,
    Sampling,
    batches_of_criteria,
    cache_key,
    judge_prompt,
    shown_answer,
)
from rewards.judge.reply import JudgeVerdict, count_votes, parse_verdicts, response_format, supported
from rewards.judge.text import sanitise, says_something
from rewards.rubric import Criterion, CriterionResult, RubricResult, combine_criteria, rubric_problem

__all__ = ["GenRMClient", "JudgeRequest", "JudgeTemplate", "Sampling"]


@dataclass(frozen=True)
class _Vote:
    met: bool | None
    reason: str
    quote: str = ""


class GenRMClient:
    """A judge at `base_url` that serves `model`; see `rewards.judge.http.ChatClient` for timeout, deadline, retries and
    concurrency.

    `votes` judgements are drawn per criterion with different seeds and another order of criteria, and the majority
    counts; `criteria_per_call` (1 to 3) are asked for together. `guided` asks the server for guided decoding
    (`response_format`). `nonce_key` makes the nonces reproducible; keep it from the policy. `cache` is None (memory
    only) or the path of an SQLite file; only use one file with judges that keep address and name as long as they
    keep their weights.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        timeout: float = 30.0,
        max_retries: int = 3,
        concurrency: int = 8,
        votes: int = 3,
        cache: str | Path | None = None,
        deadline: float = 300.0,
        template: JudgeTemplate = SHORT_TEMPLATE,
        sampling: Sampling = DEFAULT_SAMPLING,
        api_key: str | None = None,
        nonce_key: bytes | None = None,
        criteria_per_call: int = 1,
        guided: bool = False,
    ):
        if votes < 1:
            raise ValueError(f"expected votes >= 1, got {votes}")
        if not 1 <= criteria_per_call <= MAX_CRITERIA_PER_CALL:
            raise ValueError(f"expected 1 to {MAX_CRITERIA_PER_CALL} criteria per call, got {criteria_per_call}")
        self.chat = ChatClient(base_url, model, timeout, max_retries, concurrency, deadline, api_key)
        self.votes = votes
        self.template = template
        self.sampling = sampling
        self.criteria_per_call = criteria_per_call
        self.guided = guided
        self.cache = JudgeCache(cache)
        self._nonce_key = nonce_key or secrets.token_bytes(16)

    @property
    def usage(self) -> Usage:
        """What all requests so far cost."""
        return self.chat.usage

    def judge_many(self, requests: Sequence[JudgeRequest], fresh: bool = False) -> list[RubricResult]:
        """One result per request, in order; with `fresh` none from the cache, as the judge is now. Inside a running
        event loop await `judge_many_async` instead.
        """
        return asyncio.run(self.judge_many_async(requests, fresh))

    async def judge_many_async(self, requests: Sequence[JudgeRequest], fresh: bool = False) -> list[RubricResult]:
        async with self.chat.session() as session:
            return list(await asyncio.gather(*(self._judge(request, session, fresh) for request in requests)))

    async def _judge(self, request: JudgeRequest, session: ChatSession, fresh: bool) -> RubricResult:
        try:
            if problem := rubric_problem(request.criteria):
                return RubricResult.invalid(problem)
            results: list[CriterionResult | None] = [_without_judge(c, request.answer) for c in request.criteria]
            open_ones = [number for number, result in enumerate(results) if result is None]
            rounds = await asyncio.gather(
                *(self._vote_all(request, open_ones, vote, session, fresh) for vote in range(self.votes))
            )
            for number in open_ones:
                results[number] = _majority(request.criteria[number], [votes[number] for votes in rounds])
            return combine_criteria(request.criteria, [result for result in results if result is not None])
        except Exception as error:  # one sample's fault must not take the others' results along
            return RubricResult.invalid(f"the judge's client failed: {type(error).__name__}: {error}")

    async def _vote_all(
        self, request: JudgeRequest, numbers: Sequence[int], vote: int, session: ChatSession, fresh: bool
    ) -> dict[int, _Vote]:
        """One vote on each of the criteria `numbers`."""
        calls = batches_of_criteria(request, numbers, self.criteria_per_call, vote, self.sampling.seed)
        answers = await asyncio.gather(
            *(self._vote(request, [request.criteria[n] for n in call], vote, session, fresh) for call in calls)
        )
        return {
            n: one for call, votes in zip(calls, answers, strict=True) for n, one in zip(call, votes, strict=True)
        }

    async def _vote(
        self, request: JudgeRequest, criteria: Sequence[Criterion], vote: int, session: ChatSession, fresh: bool
    ) -> list[_Vote]:
        """The votes of one call, in the order of `criteria`."""
        call = cache_key(
            f"{self.chat.url} {self.chat.model}", self.template, request.question, request.answer, criteria,
            self.sampling, vote, self.guided,
        )  # fmt: skip
        keys = [f"{call}/{place}" for place in range(len(criteria))]
        known = [None if fresh else self.cache.get(key) for key in keys]
        if all(verdict is not None for verdict in known):
            return [_Vote(v.met, v.reason, v.evidence) for v in known if v is not None]
        nonce = self._nonce(request, criteria)
        try:
            text = await session.complete(
                judge_prompt(request.question, request.answer, criteria, nonce, self.template),
                self.sampling.temperature,
                self.sampling.max_tokens,
                self.sampling.seed + vote,
                response_format(len(criteria)) if self.guided else None,
            )
        except ChatError as error:
            return [_Vote(None, str(error))] * len(criteria)
        verdicts = parse_verdicts(text, len(criteria))
        if verdicts is None:
            return [_Vote(None, f"the judge's reply is not the JSON asked for: {text[:120]!r}")] * len(criteria)
        shown = shown_answer(request.answer, nonce, self.template)
        return [self._counted(verdict, key, shown) for verdict, key in zip(verdicts, keys, strict=True)]

    def _counted(self, verdict: JudgeVerdict, key: str, shown: str) -> _Vote:
        if not supported(verdict, shown):
            return _Vote(None, f"met, but its evidence is not in the answer: {verdict.evidence[:80]!r}")
        self.cache.put(key, verdict)
        return _Vote(verdict.met, verdict.reason, verdict.evidence)

    def _nonce(self, request: JudgeRequest, criteria: Sequence[Criterion]) -> str:
        # Four characters are enough: the nonce cannot be guessed into the answer, as its marks are taken out of it.
        texts = (request.question, request.answer, *(criterion.text for criterion in criteria))
        data = "\0".join(texts).encode("utf-8", "surrogatepass")
        return hashlib.blake2b(data, digest_size=2, key=self._nonce_key).hexdigest()

    def close(self) -> None:
        self.cache.close()


def _without_judge(criterion: Criterion, answer: str) -> CriterionResult | None:
    """The result of a criterion that needs no judge."""
    if criterion.check is not None:
        return CriterionResult(criterion.name, check_criterion(criterion.check, answer), "checked")
    if not says_something(sanitise(answer)):
        # No judge is needed to see that nothing was said, and judges have been talked into praising it (":", "."):
        # arXiv:2507.08794.
        return CriterionResult(criterion.name, False, "empty answer")
    return None


def _majority(criterion: Criterion, votes: Sequence[_Vote]) -> CriterionResult:
    met = count_votes([vote.met for vote in votes])
    first = next((vote for vote in votes if vote.met is met), votes[0])
    reason = first.reason if met is not None or all(vote.met is None for vote in votes) else "the votes are tied"
    quote = first.quote if met else ""
    return CriterionResult(criterion.name, met, reason, tuple(vote.met for vote in votes), quote)
