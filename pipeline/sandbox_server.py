"""The sandbox for other machines: local workers behind HTTP (`pipeline sandbox-server`).

The protocol is described where its client is, in `rewards.sandbox.remote`.
"""

from __future__ import annotations

import hmac
import json
import queue
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from rewards.sandbox import Job, SandboxWorker
from rewards.sandbox.remote import health_record

MAX_BODY_BYTES = 64 << 20
MAX_JOBS = 256
BUSY_SECONDS = 60.0
"""How long a request waits for a free worker before it is told to come again."""


def sandbox_app(
    workers: Sequence[SandboxWorker], token: str = "", busy_seconds: float = BUSY_SECONDS, **more: Any
) -> Starlette:
    """The server of some equal workers; `more` is told beside their health. With a `token`, only who knows it is
    served."""
    health = health_record(workers[0], **more)
    free: queue.Queue[SandboxWorker] = queue.Queue()
    for worker in workers:
        free.put(worker)

    def run(jobs: list[Job]) -> list[dict[str, Any]]:
        worker = free.get(timeout=busy_seconds)
        try:
            return [asdict(result) for result in worker.run_many(jobs)]
        finally:
            free.put(worker)

    async def about(request: Request) -> JSONResponse:
        if not _knows(request, token):
            return _refusal(401, "the token is missing or wrong")
        return JSONResponse(health)

    async def jobs(request: Request) -> Response:
        if not _knows(request, token):
            return _refusal(401, "the token is missing or wrong")
        try:
            wanted = _read_jobs(await _body(request))
        except (ValueError, RecursionError) as error:
            return _refusal(400, str(error))
        try:
            results = await run_in_threadpool(run, wanted)
        except queue.Empty:
            return _refusal(503, f"no worker was free for {busy_seconds:g} s")
        # Programs print lone surrogates, which only pass as escapes.
        return Response(json.dumps({"results": results}), media_type="application/json")

    return Starlette(routes=[Route("/v1/sandbox", about), Route("/v1/jobs", jobs, methods=["POST"])])


async def _body(request: Request) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BODY_BYTES:
            raise ValueError(f"expected at most {MAX_BODY_BYTES} bytes")
        parts.append(part)
    return b"".join(parts)


def _read_jobs(body: bytes) -> list[Job]:
    said = json.loads(body)
    if not isinstance(said, dict) or not isinstance(said.get("jobs"), list):
        raise ValueError('expected {"jobs": [...]}')
    if len(said["jobs"]) > MAX_JOBS:
        raise ValueError(f"expected at most {MAX_JOBS} jobs, got {len(said['jobs'])}")
    jobs = [Job.from_record(record) for record in said["jobs"]]
    for job in jobs:
        # They run confined like all others; there is no reason to offer more than the graders ask for.
        if job.kind == "trusted" and not job.target.startswith("rewards."):
            raise ValueError(f"trusted calls are for functions of rewards, got {job.target!r}")
    return jobs


def _knows(request: Request, token: str) -> bool:
    given = request.headers.get("Authorization", "")
    return not token or hmac.compare_digest(given.encode(), f"Bearer {token}".encode())


def _refusal(status: int, why: str) -> JSONResponse:
    return JSONResponse({"error": why}, status_code=status)
