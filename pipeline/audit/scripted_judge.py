"""A judge that says what a case tells it to, behind a real HTTP server on this machine."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from pipeline.audit.cases import Reply


class ScriptedJudge:
    """Serves OpenAI-compatible chat completions from `reply` until `close`; without a `reply` every request fails."""

    def __init__(self) -> None:
        self.reply: Reply | None = None
        judge = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 30.0

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
                text = 503 if judge.reply is None else judge.reply(body)
                if isinstance(text, int):
                    self._send(text, {"error": {"message": "scripted failure"}})
                    return
                message = {"role": "assistant", "content": text}
                choice = {"index": 0, "message": message, "finish_reason": "stop"}
                self._send(200, {"id": "audit", "object": "chat.completion", "choices": [choice]})

            def _send(self, status: int, record: dict[str, Any]) -> None:
                data = json.dumps(record).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                """Says nothing: the audit's table is all that is printed."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
