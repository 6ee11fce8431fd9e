"""Workers shared by the tests of this room; without a working sandbox the tests that need one say so and
are skipped.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rewards.sandbox import Limits, SandboxUnavailable, SandboxWorker

FAST = Limits(cpu_seconds=1, wall_seconds=3.0, output_bytes=200_000)


def open_worker(tier: str | None = None, **more: object) -> SandboxWorker:
    try:
        return SandboxWorker(tier, FAST, **more)  # type: ignore[arg-type]
    except SandboxUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def worker() -> Iterator[SandboxWorker]:
    with open_worker() as opened:
        yield opened


@pytest.fixture(scope="session", params=["bubblewrap", "landlock"])
def tier_worker(request: pytest.FixtureRequest) -> Iterator[SandboxWorker]:
    with open_worker(request.param) as opened:
        yield opened
