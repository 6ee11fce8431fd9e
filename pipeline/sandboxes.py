"""Opening the sandbox with the configuration's limits, and refusing what is too weak for code domains."""

from __future__ import annotations

from pipeline.config.schema import SandboxConfig
from pipeline.errors import ResourceError
from rewards.sandbox import Limits, SandboxUnavailable, SandboxWorker, detect_tier

TIERS = ("landlock", "bubblewrap")
"""From weak to strong."""


def open_sandbox(config: SandboxConfig) -> SandboxWorker:
    """The strongest sandbox of this machine.

    Raises:
        ResourceError: if the machine gives none, or a weaker one than `sandbox.min_tier`.
    """
    report = detect_tier()
    if report.tier not in TIERS or TIERS.index(report.tier) < TIERS.index(config.min_tier):
        raise ResourceError(
            f"this machine's sandbox is {report.tier or 'none'} and sandbox.min_tier asks for {config.min_tier}: "
            f"{report.why_not_higher}"
        )
    limits = Limits(
        cpu_seconds=config.cpu_s, wall_seconds=config.wall_s, memory_bytes=config.memory_mb * 2**20
    )
    try:
        return SandboxWorker(tier=report.tier, limits=limits)
    except SandboxUnavailable as error:
        raise ResourceError(f"the sandbox does not start: {error}") from error
