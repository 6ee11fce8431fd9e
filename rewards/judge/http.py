"""Chat completions of any OpenAI-compatible server (`POST {base_url}/chat/completions`): with retries, a bound on what
is read, a deadline, and a count of what it cost. The only way to a judge.
"""

from __future__ import annotations

import asyncio
import functools
import json
import random
import ssl
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
JITTER = 0.25
"""A pause is longer by up to this share, drawn anew, so that clients that failed together do not come back together."""

MAX_RESPONSE_BYTES = 2**20
_RETRIED = frozenset((408, 409, 429))


class ChatError(Exception):
    """Why there is no reply."""


@dataclass
class Usage:
    """What requests cost: tokens as the server counts them (0 where it does not), seconds of requests under way,
    summed, so that parallel ones count each.
    """

    requests: int = 0
    retries: int = 0
    failures: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0


class ChatClient:
    """A server at `base_url` (ends in `/v1` or not) that serves `model`.

    `timeout` is seconds per try, `deadline` seconds for one whole session; `max_retries` counts the tries after the
    first (for 5xx, 408, 409, 429 and transport errors, with doubling pauses, or the longer one that the server asks for
    by `Retry-After`). `concurrency` bounds the requests under way at once.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        timeout: float,
        max_retries: int,
        concurrency: int,
        deadline: float,
        api_key: str | None = None,
    ):
        if concurrency < 1 or max_retries < 0:
            raise ValueError("expected concurrency >= 1 and max_retries >= 0")
        base = base_url.rstrip("/")
        self.url = f"{base if base.endswith('/v1') else base + '/v1'}/chat/completions"
        self.model = model
        self.timeout = timeout
        self.max_retries = max_retries
        self.concurrency = concurrency
        self.deadline = deadline
        self.usage = Usage()
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}

    @asynccontextmanager
    async def session(self) -> AsyncIterator[ChatSession]:
        """Requests that share connections, the bound on concurrency and the deadline, which begins now."""
        async with httpx.AsyncClient(timeout=self.timeout, headers=self._headers, verify=_certificates()) as http:
            yield ChatSession(self, http)


@functools.cache
def _certificates() -> ssl.SSLContext:
    # Reading them takes longer than a request on this machine does.
    return httpx.create_ssl_context()


class ChatSession:
    """See `ChatClient.session`."""

    def __init__(self, client: ChatClient, http: httpx.AsyncClient) -> None:
        self._client = client
        self._http = http
        self._gate = asyncio.Semaphore(client.concurrency)
        self._end = asyncio.get_running_loop().time() + client.deadline

    async def complete(
        self,
        messages: Sequence[Mapping[str, str]],
        temperature: float,
        max_tokens: int,
        seed: int,
        response_format: Mapping[str, Any] | None = None,
    ) -> str:
        """The text of the reply. Raises `ChatError` when there is none in time."""
        body: dict[str, Any] = {
            "model": self._client.model,
            "messages": list(messages),
            "temperature": temperature,
            "max_tokens": max_tokens,
            "seed": seed,
        }
        if response_format is not None:
            body["response_format"] = dict(response_format)
        try:
            async with asyncio.timeout_at(self._end), self._gate:
                return await self._with_retries(body)
        except TimeoutError:
            self._client.usage.failures += 1
            raise ChatError(f"the judge missed the deadline of {self._client.deadline:g} s") from None
        except ChatError:
            self._client.usage.failures += 1
            raise

    async def _with_retries(self, body: Mapping[str, Any]) -> str:
        client, problem, asked = self._client, "", 0.0
        for attempt in range(client.max_retries + 1):
            if attempt:
                pause = min(FIRST_PAUSE_S * 2 ** (attempt - 1), LONGEST_PAUSE_S)
                pause = max(pause, asked) * (1 + JITTER * random.random())
                if asyncio.get_running_loop().time() + pause > self._end:
                    problem += f", and the next try, in {pause:.1f} s, would miss the deadline of {client.deadline:g} s"
                    break
                await asyncio.sleep(pause)
                client.usage.retries += 1
                asked = 0.0
            started = time.monotonic()
            client.usage.requests += 1
            try:
                async with asyncio.timeout(client.timeout):
                    status, asked, data = await self._post(body)
            except (httpx.TransportError, TimeoutError) as error:
                problem = f"{type(error).__name__} {error}".strip()
                continue
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                problem = f"{type(error).__name__} {error}".strip()
                break
            finally:
                client.usage.seconds += time.monotonic() - started
            if status == 200:
                return self._reply(data)
            problem = f"HTTP {status}: {_start(data)}"
            if status < 500 and status not in _RETRIED:
                break
        raise ChatError(f"the judge at {client.url} gave no reply: {problem}")

    async def _post(self, body: Mapping[str, Any]) -> tuple[int, float, bytes]:
        """Status, seconds until the server wants to be asked again, and body (no longer than `MAX_RESPONSE_BYTES`)."""
        data = bytearray()
        async with self._http.stream("POST", self._client.url, json=body) as response:
            async for piece in response.aiter_bytes():
                data += piece
                if len(data) > MAX_RESPONSE_BYTES:
                    raise ChatError(f"the judge's response is longer than {MAX_RESPONSE_BYTES} bytes")
            return response.status_code, _retry_after(response.headers.get("retry-after", "")), bytes(data)

    def _reply(self, data: bytes) -> str:
        try:
            record = json.loads(data)
            text = record["choices"][0]["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError, RecursionError):
            raise ChatError(f"the judge's response is no chat completion: {_start(data)}") from None
        if not isinstance(text, str):
            raise ChatError(f"the judge's response has no text: {_start(data)}")
        counts = record.get("usage")
        if isinstance(counts, dict):
            usage = self._client.usage
            usage.prompt_tokens += _count(counts.get("prompt_tokens"))
            usage.completion_tokens += _count(counts.get("completion_tokens"))
        return text


def _retry_after(header: str) -> float:
    """Seconds of a Retry-After header (RFC 9110, 10.2.3), given as a count or as a date; 0 where it says neither."""
    try:
        if header.isdecimal():
            return float(header)
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _start(data: bytes) -> str:
    return repr(data[:120].decode("utf-8", "replace"))
