"""The generative reward model, part two: asking any OpenAI-compatible server, with retries, votes and a
deadline.

The only interface to a judge is `POST {base_url}/chat/completions`, be it vLLM, another server or the
scripted one of the tests. A server that fails, answers garbage or takes too long makes a result invalid
with the reason; it never costs the policy a point.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from rewards.judge_cache import JudgeCache
from rewards.judge_prompt import (
    DEFAULT_SAMPLING,
    DEFAULT_TEMPLATE,
    JudgeRequest,
    JudgeTemplate,
    Sampling,
    cache_key,
    count_votes,
    judge_prompt,
    parse_verdict,
)
from rewards.rubric import Criterion, CriterionResult, RubricResult, check_criterion, combine_criteria

__all__ = [
    "GenRMClient",
    "JudgeRequest",
    "JudgeTemplate",
    "Sampling",
    "cache_key",
    "count_votes",
    "judge_prompt",
    "parse_verdict",
]

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_RETRIED = frozenset((408, 409, 429))


@dataclass(frozen=True)
class _Vote:
    met: bool | None
    reason: str


class _JudgeError(Exception):
    """Why there is no reply."""


class GenRMClient:
    """A judge at `base_url` (ends in `/v1` or not) that serves `model`.

    `timeout` is seconds per request, `deadline` seconds for one whole `judge_many`; `max_retries` counts
    the tries after the first (for 5xx, 408, 409, 429 and transport errors, with doubling pauses). `votes`
    judgements are drawn per criterion with different seeds and the majority counts. `nonce_key` makes the
    nonces reproducible; keep it from the policy. `cache` is None (memory only) or the path of an SQLite
    file.
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
        template: JudgeTemplate = DEFAULT_TEMPLATE,
        sampling: Sampling = DEFAULT_SAMPLING,
        api_key: str | None = None,
        nonce_key: bytes | None = None,
    ):
        if votes < 1 or concurrency < 1 or max_retries < 0:
            raise ValueError("expected votes >= 1, concurrency >= 1 and max_retries >= 0")
        base = base_url.rstrip("/")
        self.url = f"{base if base.endswith('/v1') else base + '/v1'}/chat/completions"
        self.model = model
        self.timeout = timeout
        self.max_retries = max_retries
        self.concurrency = concurrency
        self.votes = votes
        self.deadline = deadline
        self.template = template
        self.sampling = sampling
        self.cache = JudgeCache(cache)
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._nonce_key = nonce_key or secrets.token_bytes(16)

    def judge_many(self, requests: Sequence[JudgeRequest]) -> list[RubricResult]:
        """One result per request, in order. Inside a running event loop await `judge_many_async` instead."""
        return asyncio.run(self.judge_many_async(requests))

    async def judge_many_async(self, requests: Sequence[JudgeRequest]) -> list[RubricResult]:
        gate = asyncio.Semaphore(self.concurrency)
        end = asyncio.get_running_loop().time() + self.deadline
        async with httpx.AsyncClient(timeout=self.timeout, headers=self._headers) as http:
            return list(
                await asyncio.gather(*(self._judge(request, http, gate, end) for request in requests))
            )

    async def _judge(
        self, request: JudgeRequest, http: httpx.AsyncClient, gate: asyncio.Semaphore, end: float
    ) -> RubricResult:
        results = await asyncio.gather(
            *(self._judge_criterion(request, criterion, http, gate, end) for criterion in request.criteria)
        )
        return combine_criteria(request.criteria, results)

    async def _judge_criterion(
        self,
        request: JudgeRequest,
        criterion: Criterion,
        http: httpx.AsyncClient,
        gate: asyncio.Semaphore,
        end: float,
    ) -> CriterionResult:
        if criterion.check is not None:
            return CriterionResult(
                criterion.name, check_criterion(criterion.check, request.answer), "checked"
            )
        if not request.answer.strip():
            # No judge is needed to see that nothing was said, and judges have been talked into praising it.
            return CriterionResult(criterion.name, False, "empty answer")
        votes = await asyncio.gather(
            *(self._vote(request, criterion, number, http, gate, end) for number in range(self.votes))
        )
        met = count_votes([vote.met for vote in votes])
        agreeing = [vote.reason for vote in votes if vote.met is met] or [votes[0].reason]
        reason = agreeing[0] if met is not None or agreeing[0] else "the votes are tied"
        return CriterionResult(criterion.name, met, reason, tuple(vote.met for vote in votes))

    async def _vote(
        self,
        request: JudgeRequest,
        criterion: Criterion,
        number: int,
        http: httpx.AsyncClient,
        gate: asyncio.Semaphore,
        end: float,
    ) -> _Vote:
        key = cache_key(
            self.model, self.template, request.question, request.answer, criterion, self.sampling, number
        )
        known = self.cache.get(key)
        if known is not None:
            return _Vote(known[1], known[0])
        messages = judge_prompt(
            request.question, request.answer, criterion, self._nonce(request, criterion), self.template
        )
        try:
            async with asyncio.timeout_at(end), gate:
                text = await self._ask(messages, self.sampling.seed + number, http)
        except TimeoutError:
            return _Vote(None, f"the judge missed the deadline of {self.deadline} s")
        except _JudgeError as error:
            return _Vote(None, str(error))
        verdict = parse_verdict(text)
        if verdict is None:
            return _Vote(None, f"the judge's reply holds no single verdict: {text[:120]!r}")
        self.cache.put(key, *verdict)
        return _Vote(verdict[1], verdict[0])

    async def _ask(self, messages: list[dict[str, str]], seed: int, http: httpx.AsyncClient) -> str:
        body = {
            "model": self.model,
            "messages": messages,
            "temperature": self.sampling.temperature,
            "max_tokens": self.sampling.max_tokens,
            "seed": seed,
        }
        problem = ""
        for attempt in range(self.max_retries + 1):
            if attempt:
                await asyncio.sleep(min(_FIRST_PAUSE * 2 ** (attempt - 1), _LONGEST_PAUSE))
            try:
                response = await http.post(self.url, json=body)
            except httpx.TransportError as error:
                problem = f"{type(error).__name__} {error}".strip()
                continue
            if response.status_code == 200:
                return _reply_text(response)
            problem = f"HTTP {response.status_code}: {response.text[:120]}"
            if response.status_code < 500 and response.status_code not in _RETRIED:
                break
        raise _JudgeError(f"the judge at {self.url} gave no reply: {problem}")

    def _nonce(self, request: JudgeRequest, criterion: Criterion) -> str:
        text = "\0".join((request.question, request.answer, criterion.text)).encode("utf-8", "surrogatepass")
        return hashlib.blake2b(text, digest_size=2, key=self._nonce_key).hexdigest()

    def close(self) -> None:
        self.cache.close()


def _reply_text(response: httpx.Response) -> str:
    try:
        text = response.json()["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise _JudgeError(f"the judge's response is no chat completion: {response.text[:120]!r}") from error
    if not isinstance(text, str):
        raise _JudgeError(f"the judge's response has no text: {response.text[:120]!r}")
    return text
