"""The sandbox of another machine, by HTTP: the same jobs, the same results (`pipeline sandbox-server` answers).

`GET /v1/sandbox` says what the server's sandbox is; `POST /v1/jobs` takes `{"jobs": [Job.record(), ...]}` and gives
`{"results": [asdict(JobResult), ...]}` in their order. Jobs have no memory, so that a request may be sent again.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, get_args

import httpx

from rewards.sandbox.inside.zygote import MAX_WALL_FACTOR
from rewards.sandbox.records import Job, JobResult, Limits, SandboxUnavailable
from rewards.sandbox.tiers import Tier
from rewards.sandbox.worker import SandboxWorker

PROTOCOL = 1
_JOBS_PER_REQUEST = 16
_TRIES = 5
_FIRST_PAUSE_SECONDS = 0.2
_CONNECT_SECONDS = 5.0
_ASK_SECONDS = 20.0
# Beside the jobs themselves: waiting for a free worker, C++ to be compiled, the way there and back.
_SLACK_SECONDS = 120.0
_PASSING = (429, 500, 502, 503, 504)


class RemoteSandboxWorker(SandboxWorker):
    """A worker whose processes live behind `url`. Raises `SandboxUnavailable` where no server with this protocol
    answers, or where it runs with other limits than `limits` (None takes the server's).

    Whatever goes wrong later (no answer before the deadline, an answer that is none) is a `sandbox_error` of the jobs.
    Thread-safe: calls from several threads are several requests.
    """

    def __init__(self, url: str, token: str = "", limits: Limits | None = None):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        timeout = httpx.Timeout(_ASK_SECONDS, connect=_CONNECT_SECONDS)
        self._client = httpx.Client(base_url=url, headers=headers, timeout=timeout)
        self.url = url
        self.restarts = 0
        self._closed = False
        try:
            self.health = self._ask(url, limits)
        except SandboxUnavailable:
            self._client.close()
            raise
        self.tier: Tier = self.health["tier"]
        self.limits = Limits(**self.health["limits"])
        self.trusted_limits = Limits(**self.health["trusted_limits"])
        self.parallel = int(self.health["parallel"])

    def _ask(self, url: str, limits: Limits | None) -> dict[str, Any]:
        try:
            said = self._send("GET", "/v1/sandbox", None, time.monotonic() + _ASK_SECONDS)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise SandboxUnavailable(f"no sandbox server answers at {url}: {_told(error)}") from None
        if not isinstance(said, dict) or said.get("protocol") != PROTOCOL or said.get("tier") not in get_args(Tier):
            raise SandboxUnavailable(f"{url} is no sandbox server of protocol {PROTOCOL}")
        if limits is not None and said["limits"] != asdict(limits):
            other = {name: (said["limits"].get(name), value) for name, value in asdict(limits).items()}
            differ = ", ".join(f"{name} {a} there, {b} here" for name, (a, b) in other.items() if a != b)
            raise SandboxUnavailable(
                f"the sandbox server at {url} has other limits: {differ}. Start it with the same sandbox.* settings"
            )
        return said

    def close(self) -> None:
        """End the connections; later runs raise `RuntimeError`."""
        self._closed = True
        self._client.close()

    def compiler(self) -> str:
        """Path of the server's C++ compiler. Raises `SandboxUnavailable` with its reason where it has none."""
        if not self.health["compiler"]:
            raise SandboxUnavailable(f"{self.url}: {self.health['no_compiler']}")
        return str(self.health["compiler"])

    def run_many(self, jobs: Sequence[Job]) -> list[JobResult]:
        """The results in the order of `jobs`; `sandbox_error` for those that the server gave no result of."""
        if self._closed:
            raise RuntimeError("this RemoteSandboxWorker is closed")
        results: list[JobResult] = []
        for start in range(0, len(jobs), _JOBS_PER_REQUEST):
            results += self._run_some(jobs[start : start + _JOBS_PER_REQUEST])
        return results

    def _run_some(self, jobs: Sequence[Job]) -> list[JobResult]:
        body = json.dumps({"jobs": [job.record() for job in jobs]}, allow_nan=False).encode()
        wall = max(self.limits.wall_seconds, self.trusted_limits.wall_seconds)
        deadline = time.monotonic() + MAX_WALL_FACTOR * wall * len(jobs) + _SLACK_SECONDS
        try:
            said = self._send("POST", "/v1/jobs", body, deadline)
            results = [JobResult.from_record(record) for record in said["results"]]
            if len(results) != len(jobs):
                raise ValueError(f"{len(results)} results for {len(jobs)} jobs")
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            self.restarts += 1
            why = f"the sandbox server at {self.url}: {_told(error)}"
            return [JobResult("sandbox_error", error=why) for _ in jobs]
        return results

    def _send(self, method: str, path: str, body: bytes | None, deadline: float) -> Any:
        """The answer's JSON. What may pass (no connection, a busy or a failing server) is tried again, with growing
        pauses, at most `_TRIES` times and never past `deadline`."""
        pause = _FIRST_PAUSE_SECONDS
        for last in (*[False] * (_TRIES - 1), True):
            left = max(0.1, deadline - time.monotonic())
            try:
                timeout = httpx.Timeout(left, connect=min(left, _CONNECT_SECONDS))
                answer = self._client.request(method, path, content=body, timeout=timeout)
                if answer.status_code in _PASSING and not last:
                    raise httpx.HTTPStatusError(answer.text[:200], request=answer.request, response=answer)
                answer.raise_for_status()
                return answer.json()
            except (httpx.TransportError, httpx.HTTPStatusError) as error:
                passing = not isinstance(error, httpx.HTTPStatusError) or error.response.status_code in _PASSING
                if last or not passing or time.monotonic() + pause >= deadline:
                    raise
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause *= 2
        raise AssertionError("the last try returns or raises")

    @property
    def zygote_pids(self) -> dict[str, int]:
        """None of this machine."""
        return {}


def health_record(worker: SandboxWorker, **more: Any) -> dict[str, Any]:
    """What a server says of its workers."""
    try:
        compiler, no_compiler = worker.compiler(), ""
    except SandboxUnavailable as error:
        compiler, no_compiler = "", str(error)
    return {
        "protocol": PROTOCOL,
        "tier": worker.tier,
        "limits": asdict(worker.limits),
        "trusted_limits": asdict(worker.trusted_limits),
        "parallel": worker.parallel,
        "compiler": compiler,
        "no_compiler": no_compiler,
        **more,
    }


def _told(error: Exception) -> str:
    """One line that names the kind of error: some say nothing else."""
    text = str(error).splitlines()
    return f"{type(error).__name__}: {text[0][:300]}" if text else type(error).__name__
