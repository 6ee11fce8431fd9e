"""`sandbox-server`: this machine's sandbox for runs on other machines."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from pipeline.commands.common import Files, Overrides, Preset, command, only_overrides, settings
from pipeline.errors import ResourceError, UsageError

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@command
def sandbox_server(
    overrides: Overrides = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 8780,
    workers: Annotated[int, typer.Option(help="Sandbox workers; each runs two jobs at a time.", min=1)] = 1,
    preset: Preset = None,
    files: Files = None,
) -> None:
    """Serve this machine's sandbox to runs elsewhere (their sandbox.url); sandbox.* settings are its limits."""
    import uvicorn

    from pipeline.sandbox_server import sandbox_app
    from pipeline.sandboxes import job_limits, require
    from rewards.sandbox import SandboxUnavailable, SandboxWorker

    config = settings(preset, files, only_overrides(overrides), None).config.sandbox
    if config.url is not None:
        raise UsageError(f"A sandbox server serves its own machine's sandbox: leave sandbox.url out, got {config.url}.")
    token = os.environ.get(config.token_env, "")
    if host not in LOOPBACK and not token:
        raise UsageError(
            f"To listen on {host}, where others can reach it, put a token into the environment variable "
            f"{config.token_env}; the runs that use the server need the same."
        )
    found = require(config)
    started: list[SandboxWorker] = []
    try:
        for _ in range(workers):
            started.append(SandboxWorker(found.tier, job_limits(config)))  # type: ignore[arg-type]
        app = sandbox_app(
            started, token, why_not_higher=found.why_not_higher, limits_named=list(found.limits),
            attacks=[vars(attack) for attack in found.attacks],
        )  # fmt: skip
        print(f"sandbox ({found.tier}) at http://{host}:{port}", flush=True)
        uvicorn.run(app, host=host, port=port, log_level="warning", lifespan="off")
    except SandboxUnavailable as error:
        raise ResourceError(str(error)) from error
    finally:
        for worker in started:
            worker.close()
