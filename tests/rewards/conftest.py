"""Workers shared by the tests of this room. Where the machine itself can not do a tier, its tests say so and are
skipped; a tier that the machine can do and the sandbox can not is a failure.
"""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Iterator

import pytest

from rewards.sandbox import Limits, SandboxUnavailable, SandboxWorker

FAST = Limits(cpu_seconds=1, wall_seconds=3.0, output_bytes=200_000)


def open_worker(tier: str | None = None, **more: object) -> SandboxWorker:
    try:
        return SandboxWorker(tier, FAST, **more)  # type: ignore[arg-type]
    except SandboxUnavailable as error:
        if machine_can(tier or "landlock"):
            raise
        pytest.skip(str(error))


def machine_can(tier: str) -> bool:
    """Whether kernel and tools are there, found out without the sandbox."""
    if tier == "landlock":
        # landlock_create_ruleset(NULL, 0, LANDLOCK_CREATE_RULESET_VERSION) gives the version of the interface.
        return ctypes.CDLL(None).syscall(444, None, 0, 1) > 0
    try:
        bare = ["bwrap", "--unshare-user", "--unshare-all", "--ro-bind", "/", "/", "true"]
        return subprocess.run(bare, capture_output=True, timeout=20, check=False).returncode == 0
    except OSError:
        return False


@pytest.fixture(scope="session")
def tiers_here() -> list[str]:
    """The tiers that the machine can do."""
    return [tier for tier in ("bubblewrap", "landlock") if machine_can(tier)]


@pytest.fixture(scope="session")
def sandbox_here(tiers_here: list[str]) -> None:
    """For tests that open a sandbox themselves."""
    if not tiers_here:
        pytest.skip("the machine can do no tier of the sandbox")


@pytest.fixture(scope="session")
def worker() -> Iterator[SandboxWorker]:
    with open_worker() as opened:
        yield opened


@pytest.fixture(scope="session", params=["bubblewrap", "landlock"])
def tier_worker(request: pytest.FixtureRequest) -> Iterator[SandboxWorker]:
    with open_worker(request.param) as opened:
        yield opened
