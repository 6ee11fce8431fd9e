"""The sandbox by HTTP: the same contract as the local worker; what goes wrong is `sandbox_error`, never an answer."""

import contextlib
import json
import socket
import threading
import time
from dataclasses import asdict

import httpx
import pytest
import typer.testing
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from pipeline import sandboxes
from pipeline.cli import app as cli
from pipeline.config.schema import SandboxConfig
from pipeline.errors import ResourceError
from pipeline.sandbox_server import sandbox_app
from rewards.sandbox import Call, Job, JobResult, Limits, SandboxUnavailable, SandboxWorker, detect_tier
from rewards.sandbox import remote as remote_module
from rewards.sandbox.remote import PROTOCOL, RemoteSandboxWorker

FAST = Limits(cpu_seconds=1, wall_seconds=3.0, output_bytes=200_000)
MORE = {"why_not_higher": "", "limits_named": ["none"], "attacks": []}


@pytest.fixture(scope="module")
def worker():
    tier = detect_tier().tier
    if tier is None:
        pytest.skip("the machine can do no tier of the sandbox")
    with SandboxWorker(tier, FAST, preload=()) as opened:
        yield opened


@contextlib.contextmanager
def served(app):
    """The URL of an app that answers on a port of its own."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)


def about(worker, **changed):
    return {**remote_module.health_record(worker, **MORE), **changed}


def scripted(worker, *answers):
    """An app that gives these answers to jobs, one after the other, the last one for ever; and the requests seen."""
    waiting, seen = list(answers), []

    async def jobs(request):
        seen.append(json.loads(await request.body()))
        answer = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        return answer if not isinstance(answer, dict | list) else JSONResponse(answer)

    async def health(request):
        return JSONResponse(about(worker))

    return Starlette(routes=[Route("/v1/sandbox", health), Route("/v1/jobs", jobs, methods=["POST"])]), seen


def same(result: JobResult) -> dict:
    """What two runs of a job have in common."""
    return {name: value for name, value in asdict(result).items() if not name.endswith(("seconds", "rss_bytes"))}


def test_the_same_contract_as_the_local_worker(worker):
    jobs = [
        Job.program("print(int(input()) ** 2, 'é\\u0000')", "7"),
        Job.program("import os; os.write(1, bytes(range(256)))"),
        Job.program("raise ValueError"),
        Job.program("while True: pass"),
        Job.program("print(open('a').read())", files={"a": "ä"}),
        Job.function("def f(x): return [x, 1.5, None, True]", "f", [[1], ["\ud800"]]),
        Job.in_files({"m.py": "def g(): return {}"}, [Call("g", [], "m"), Call("no", [], "m")]),
        Job.trusted_call("rewards.exact:no_such_function"),
        *[Job.program("print(input())", str(number)) for number in range(20)],
    ]
    with served(sandbox_app([worker], **MORE)) as url, RemoteSandboxWorker(url, limits=FAST) as remote:
        assert (remote.tier, remote.limits, remote.parallel) == (worker.tier, worker.limits, worker.parallel)
        assert [same(result) for result in remote.run_many(jobs)] == [same(result) for result in worker.run_many(jobs)]
        try:
            assert remote.compiler() == worker.compiler()
        except SandboxUnavailable as error:
            assert "C++" in str(error)
        remote.close()
        with pytest.raises(RuntimeError, match="closed"):
            remote.run(jobs[0])


def test_records_survive_the_way():
    jobs = [Job.program("x", "y", {"a": "b"}), Job.function("s", "f", [[1, [2]]]), Job.cpp("int main(){}")]
    jobs += [Job.in_files({"m.py": ""}, [Call("g", [{}], "m")]), Job.trusted_call("rewards.x:y", 1, "a")]
    for job in jobs:
        assert Job.from_record(json.loads(job.payload())).payload() == job.payload()


BAD_RECORDS = [
    None, [], "x", {}, {**Job.program("").record(), "kind": "compile"}, {**Job.program("").record(), "stdin": 3},
    {**Job.program("").record(), "files": {"../x": ""}}, {**Job.program("").record(), "files": [1]},
    {**Job.program("").record(), "calls": [[None, "f"]]}, {**Job.program("").record(), "calls": [[1, "f", []]]},
    {**Job.program("").record(), "source": ["x"]}, {**Job.program("").record(), "args": "x"},
]  # fmt: skip


@pytest.mark.parametrize("record", BAD_RECORDS)
def test_what_is_no_job_is_refused(record, worker):
    with pytest.raises(ValueError, match="expected the record of a job"):
        Job.from_record(record)
    answer = TestClient(sandbox_app([worker], **MORE)).post("/v1/jobs", json={"jobs": [record]})
    assert answer.status_code == 400 and "expected" in answer.json()["error"]


def test_other_requests_are_refused(worker):
    client = TestClient(sandbox_app([worker], **MORE))
    assert client.post("/v1/jobs", content=b"{").status_code == 400
    assert client.post("/v1/jobs", content=b"[" * 100_000).status_code == 400
    assert client.post("/v1/jobs", json={"jobs": [Job.program("").record()] * 300}).status_code == 400
    call = Job.trusted_call("os:system", "true")
    assert "functions of rewards" in client.post("/v1/jobs", json={"jobs": [call.record()]}).json()["error"]
    assert client.get("/v1/jobs").status_code == 405


def test_only_who_knows_the_token_is_served(worker):
    with served(sandbox_app([worker], "secret", **MORE)) as url:
        for token in ("none", "wrong"):
            with pytest.raises(SandboxUnavailable, match="401"):
                RemoteSandboxWorker(url, "" if token == "none" else token)
            headers = {"Authorization": f"Bearer {token}"}
            assert httpx.post(f"{url}/v1/jobs", json={"jobs": []}, headers=headers).status_code == 401
        with RemoteSandboxWorker(url, "secret") as remote:
            assert remote.run(Job.program("print(1)")).stdout == "1\n"


GOOD = {"results": [asdict(JobResult("ok", stdout="1\n"))]}
BROKEN = {
    "server error": PlainTextResponse("disk full", 500),
    "refused": PlainTextResponse("no", 403),
    "no JSON": PlainTextResponse("<html>"),
    "a list": [1, 2],
    "nothing": {},
    "too few": {"results": []},
    "too many": {"results": GOOD["results"] * 2},
    "another status": {"results": [{**GOOD["results"][0], "status": "paid"}]},
    "a missing field": {"results": [{"status": "ok"}]},
    "an unknown field": {"results": [{**GOOD["results"][0], "reward": 1}]},
    "a wrong type": {"results": [{**GOOD["results"][0], "stdout": 3}]},
}


@pytest.fixture
def no_pauses(monkeypatch):
    pauses = []
    monkeypatch.setattr(remote_module.time, "sleep", pauses.append)
    return pauses


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_answer_is_a_sandbox_error(name, worker, no_pauses):
    app, seen = scripted(worker, BROKEN[name])
    with served(app) as url, RemoteSandboxWorker(url) as remote:
        result = remote.run(Job.program("print(1)"))
    assert result.status == "sandbox_error" and url in result.error
    assert len(seen) == (5 if name == "server error" else 1)
    if name == "server error":
        assert len(no_pauses) == 4 and no_pauses[3] > no_pauses[0] and max(no_pauses) < 2


def test_a_passing_failure_passes(worker, no_pauses):
    app, seen = scripted(worker, PlainTextResponse("busy", 503), PlainTextResponse("bad gateway", 502), GOOD)
    with served(app) as url, RemoteSandboxWorker(url) as remote:
        assert remote.run(Job.program("print(1)")).stdout == "1\n"
    assert len(seen) == 3


def test_a_server_that_is_gone_is_a_sandbox_error_and_one_that_was_never_there_is_unavailable(worker, no_pauses):
    with served(sandbox_app([worker], **MORE)) as url:
        remote = RemoteSandboxWorker(url)
    with remote:
        started = time.monotonic()
        assert {result.status for result in remote.run_many([Job.program("")] * 20)} == {"sandbox_error"}
        assert time.monotonic() - started < 10
    with pytest.raises(SandboxUnavailable, match="no sandbox server answers"):
        RemoteSandboxWorker(url)


def test_a_server_that_never_answers_is_left_at_the_deadline(worker, monkeypatch):
    async def hang(request):
        import asyncio

        while not await request.is_disconnected():
            await asyncio.sleep(0.05)
        return JSONResponse(GOOD)

    async def health(request):
        return JSONResponse(about(worker))

    monkeypatch.setattr(remote_module, "_SLACK_SECONDS", 0.5)
    monkeypatch.setattr(remote_module, "MAX_WALL_FACTOR", 0)
    app = Starlette(routes=[Route("/v1/sandbox", health), Route("/v1/jobs", hang, methods=["POST"])])
    with served(app) as url, RemoteSandboxWorker(url) as remote:
        started = time.monotonic()
        result = remote.run(Job.program(""))
        assert result.status == "sandbox_error" and "Timeout" in result.error
        assert time.monotonic() - started < 30


def test_busy_workers_are_told(worker):
    client = TestClient(sandbox_app([worker], busy_seconds=0.1, **MORE))
    slow = threading.Thread(
        target=lambda: client.post("/v1/jobs", json={"jobs": [Job.program("import time; time.sleep(1)").record()]})
    )
    slow.start()
    time.sleep(0.4)
    answer = TestClient(client.app).post("/v1/jobs", json={"jobs": [Job.program("").record()]})
    slow.join(20)
    assert answer.status_code == 503 and "no worker was free" in answer.json()["error"]


def test_another_protocol_or_other_limits_are_refused(worker):
    async def health(request):
        return JSONResponse(about(worker, protocol=PROTOCOL + 1))

    other = Starlette(routes=[Route("/v1/sandbox", health)])
    with served(other) as url, pytest.raises(SandboxUnavailable, match="no sandbox server of protocol"):
        RemoteSandboxWorker(url)
    same_app = sandbox_app([worker], **MORE)
    with served(same_app) as url, pytest.raises(SandboxUnavailable, match="cpu_seconds 1 there, 2 here"):
        RemoteSandboxWorker(url, limits=Limits())


def test_the_configuration_opens_it(worker, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "secret")
    mine = SandboxConfig(cpu_s=worker.limits.cpu_seconds, wall_s=4.0, url="", token_env="MY_TOKEN")
    own = SandboxWorker(worker.tier, sandboxes.job_limits(mine))
    with own, served(sandbox_app([own], "secret", **MORE)) as url:
        mine.url = url
        with sandboxes.open_sandbox(mine) as remote:
            assert isinstance(remote, RemoteSandboxWorker)
            assert remote.run(Job.program("print(2)")).stdout == "2\n"
        record = sandboxes.require(mine).record()
        assert (record["tier"], record["url"], record["limits"]) == (worker.tier, url, ["none"])
        mine.cpu_s += 1
        with pytest.raises(ResourceError, match="other limits"):
            sandboxes.open_sandbox(mine)
    mine.url = url + "/gone"
    with pytest.raises(ResourceError, match="no sandbox server answers"):
        sandboxes.require(mine)


def test_the_command_refuses_to_be_open_to_all(monkeypatch):
    monkeypatch.delenv("POLYMATH_SANDBOX_TOKEN", raising=False)
    result = typer.testing.CliRunner().invoke(cli, ["sandbox-server", "--host", "0.0.0.0"])
    assert result.exit_code == 2 and "POLYMATH_SANDBOX_TOKEN" in result.output
    result = typer.testing.CliRunner().invoke(cli, ["sandbox-server", "sandbox.url=http://127.0.0.1:1"])
    assert result.exit_code == 2 and "leave sandbox.url out" in result.output
