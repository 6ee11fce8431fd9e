"""A scripted judge behind real HTTP, for tests of the client."""

import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def reply(met, evidence="", reason="because"):
    """A judge's reply in the form that is parsed."""
    return json.dumps({"reason": reason, "evidence": evidence, "met": met}, ensure_ascii=False)


def answer_of(prompt):
    """What stands between the marks of the default template."""
    return re.search(r"\nAnswer \[(\w+)\] (.*) \[/\1\]\nCriterion: ", prompt, re.DOTALL)[2]


def criterion_of(prompt):
    return re.search(r"\nCriterion: (.*)\nReply ", prompt, re.DOTALL)[1]


class Judge:
    """A scripted OpenAI-compatible server: `script(number, prompt)` gives a reply text, or (status, body,
    pause), or that with headers.
    """

    def __init__(self, script):
        self.script, self.prompts, self.bodies = script, [], []
        lock = threading.Lock()
        judge = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    number = len(judge.prompts)
                    judge.prompts.append(body["messages"][-1]["content"])
                    judge.bodies.append(body)
                answer = judge.script(number, judge.prompts[number])
                status, text, pause, *more = answer if isinstance(answer, tuple) else (200, None, 0)
                time.sleep(pause)
                if text is None:
                    text = json.dumps({"choices": [{"message": {"role": "assistant", "content": answer}}]})
                data = text.encode()
                try:
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(data)))
                    for name, value in (more[0] if more else {}).items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(data)
                except (BrokenPipeError, ConnectionResetError):
                    return

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error):
        self.server.shutdown()
        self.server.server_close()
