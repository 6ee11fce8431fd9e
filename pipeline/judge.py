"""The judge's actor: the project's torch engine behind an OpenAI-compatible `/v1/chat/completions`.

The graders reach it by HTTP, as they would reach a vLLM server. Requests that arrive together are generated together,
and a reply must not depend on which these were: on a GPU the arithmetic is batch invariant; on a CPU, where a matrix
product of more rows sums in another order, it is double precision, in which the order changes the last of 16 digits
and a reply only where two tokens are equally likely to that digit.
"""

from __future__ import annotations

import queue
import socket
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rollout.seeding import seed_for

GATHER_S = 0.02
"""How long a batch waits for companions once its first request is in."""

MAX_BATCH = 192

START_DEADLINE_S = 60.0


@dataclass
class _Request:
    token_ids: list[int]
    max_new_tokens: int
    temperature: float
    seed: int
    answer: Future[tuple[str, str, int]] = field(default_factory=Future)


class JudgeServer:
    """Serves a checkpoint on a port of this machine until `close`. An actor: `url` is where, also after a restart.

    `host` is the address that it listens on. With `0.0.0.0` (all of them) the url names the address of this machine
    that others reach, for graders on other machines; there is no authentication, so keep it in a private network.
    """

    uses_gpu = True

    def __init__(self, checkpoint: str, name: str, device: str, threads: int, port: int, host: str) -> None:
        import torch
        import uvicorn
        from transformers import AutoTokenizer

        from model import load_checkpoint
        from rollout.chat import Chat
        from rollout.engine import TorchEngine

        torch.set_num_threads(threads)
        self.name = name
        self.chat = Chat(AutoTokenizer.from_pretrained(checkpoint))
        cuda = torch.device(device).type == "cuda"
        model = load_checkpoint(Path(checkpoint), device=device, dtype=None if cuda else torch.float64)
        model.batch_invariant = cuda
        self.context = model.config.max_position_embeddings
        self.engine = TorchEngine(model, self.chat.end_token_id, max_batch=MAX_BATCH)
        self._queue: queue.Queue[_Request | None] = queue.Queue()
        self._worker = threading.Thread(target=self._generate_loop, daemon=True)
        self._worker.start()
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        self._url = f"http://{_reached_at(host)}:{port}/v1"
        self._server = uvicorn.Server(uvicorn.Config(self._app(), log_level="error", lifespan="off"))
        self._web = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]}, daemon=True)
        self._web.start()
        started = time.monotonic()
        while not self._server.started:
            if time.monotonic() - started > START_DEADLINE_S:
                raise TimeoutError(f"the judge's server did not come up on {self._url} within {START_DEADLINE_S:g} s")
            time.sleep(0.01)

    def url(self) -> str:
        """Base URL for an OpenAI client."""
        return self._url

    def close(self) -> None:
        self._server.should_exit = True
        self._queue.put(None)

    def _app(self) -> Any:
        from starlette.applications import Starlette
        from starlette.requests import Request
        from starlette.responses import JSONResponse
        from starlette.routing import Route

        async def completions(request: Request) -> JSONResponse:
            import asyncio

            body = await request.json()
            try:
                pending = self._enqueue(body)
            except (KeyError, TypeError, ValueError) as error:
                return JSONResponse({"error": {"message": f"bad request: {error}"}}, status_code=400)
            text, finish, tokens = await asyncio.wrap_future(pending.answer)
            return JSONResponse(
                {
                    "id": f"judge-{pending.seed:x}",
                    "object": "chat.completion",
                    "model": self.name,
                    "choices": [
                        {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
                    ],
                    "usage": {
                        "prompt_tokens": len(pending.token_ids),
                        "completion_tokens": tokens,
                        "total_tokens": len(pending.token_ids) + tokens,
                    },
                }
            )

        async def models(request: Request) -> JSONResponse:
            return JSONResponse({"object": "list", "data": [{"id": self.name, "object": "model"}]})

        return Starlette(
            routes=[
                Route("/v1/chat/completions", completions, methods=["POST"]),
                Route("/v1/models", models, methods=["GET"]),
            ]
        )

    def _enqueue(self, body: dict[str, Any]) -> _Request:
        token_ids = self.chat.prompt_ids(body["messages"], "direct")
        room = self.context - len(token_ids)
        if room <= 0:
            raise ValueError(f"the prompt has {len(token_ids)} tokens and the judge's context is {self.context}")
        wanted = int(body.get("max_tokens") or body.get("max_completion_tokens") or 64)
        seed = body.get("seed")
        seed = seed_for("judge", str(body["messages"])) if seed is None else int(seed)
        request = _Request(token_ids, min(wanted, room), float(body.get("temperature", 0.0)), seed)
        self._queue.put(request)
        return request

    def _generate_loop(self) -> None:
        from rollout.engine import Generation

        while (first := self._queue.get()) is not None:
            batch = [first]
            until = time.monotonic() + GATHER_S
            while len(batch) < MAX_BATCH and (left := until - time.monotonic()) > 0:
                try:
                    following = self._queue.get(timeout=left)
                except queue.Empty:
                    break
                if following is None:
                    self._queue.put(None)
                    break
                batch.append(following)
            for temperature in sorted({r.temperature for r in batch}):
                same = [r for r in batch if r.temperature == temperature]
                requests = [Generation(r.token_ids, r.seed, r.max_new_tokens) for r in same]
                try:
                    outputs = self.engine.generate(requests, temperature)
                except Exception as error:  # each waiting client must hear of it
                    for request in same:
                        request.answer.set_exception(error)
                    continue
                for request, output in zip(same, outputs, strict=True):
                    ended = output.stop_reason == "stop"
                    text = self.chat.decode(output.token_ids[:-1] if ended else output.token_ids)
                    request.answer.set_result((text, output.stop_reason, len(output.token_ids)))


def _reached_at(host: str) -> str:
    """The address under which others find a server that listens on `host`."""
    if host != "0.0.0.0":
        return host
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # nothing is sent: it asks which of our addresses leads outside
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])
