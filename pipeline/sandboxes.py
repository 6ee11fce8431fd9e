"""Opening the sandbox with the configuration's limits, examining it, and refusing what is too weak for code domains."""

from __future__ import annotations

import functools
import os
from collections import Counter
from dataclasses import dataclass
from typing import Any

from pipeline.config.schema import SandboxConfig
from pipeline.errors import ResourceError
from rewards.sandbox import AttackResult, Limits, SandboxUnavailable, SandboxWorker, detect_tier, self_test
from rewards.sandbox.remote import RemoteSandboxWorker
from rewards.sandbox.tiers import TIERS

SELF_TEST_LIMITS = Limits(cpu_seconds=1, wall_seconds=1.0)
"""Several attacks last until a limit ends them."""


@dataclass(frozen=True)
class Examination:
    """What a sandbox can do: its tier, what the tier does not stop, and how the attack list went.

    Attributes:
        tier: None where there is no sandbox.
        url: of the sandbox server; None for this machine's own.
        why_not_higher: a sentence for each stronger tier.
        limits: what the tier does not stop, one sentence each.
        attacks: the self-test's list.
    """

    tier: str | None
    url: str | None
    why_not_higher: str
    limits: tuple[str, ...]
    attacks: tuple[AttackResult, ...]

    @property
    def not_stopped(self) -> list[str]:
        return [f"{attack.area}: {attack.name} ({attack.how})" for attack in self.attacks if not attack.stopped]

    def areas(self) -> dict[str, tuple[int, int]]:
        """How many attacks were stopped, of how many, by area."""
        all_of, stopped = Counter[str](), Counter[str]()
        for attack in self.attacks:
            all_of[attack.area] += 1
            stopped[attack.area] += attack.stopped
        return {area: (stopped[area], count) for area, count in all_of.items()}

    def record(self) -> dict[str, Any]:
        """What a manifest keeps."""
        return {
            "tier": self.tier,
            "url": self.url,
            "why_not_higher": self.why_not_higher,
            "limits": list(self.limits),
            "attacks": len(self.attacks),
            "not_stopped": self.not_stopped,
        }


@functools.cache
def examine(url: str | None = None, token_env: str = "") -> Examination:
    """Measures the sandbox of this machine (some seconds, once per process), or asks the server at `url`.

    Raises:
        ResourceError: if the server does not answer.
    """
    if url is not None:
        try:
            with RemoteSandboxWorker(url, os.environ.get(token_env, "")) as remote:
                health = remote.health
        except SandboxUnavailable as error:
            raise ResourceError(str(error)) from error
        attacks = tuple(AttackResult(**attack) for attack in health["attacks"])
        return Examination(health["tier"], url, health["why_not_higher"], tuple(health["limits_named"]), attacks)
    report = detect_tier()
    if report.tier is None:
        return Examination(None, None, report.why_not_higher, (), ())
    with SandboxWorker(report.tier, SELF_TEST_LIMITS, parallel=3) as worker:
        attacks = tuple(self_test(worker))
    return Examination(report.tier, None, report.why_not_higher, report.limits, attacks)


def require(config: SandboxConfig) -> Examination:
    """The examination of a sandbox that is good enough for programs that the policy writes.

    Raises:
        ResourceError: if its tier is below `sandbox.min_tier`, or an attack gets through.
    """
    found = examine(config.url, config.token_env)
    _require_tier(config, found.tier, found.why_not_higher)
    if found.not_stopped:
        raise ResourceError(
            f"The sandbox ({_place(config)}, tier {found.tier}) does not stop every attack of its self-test: "
            f"{'; '.join(found.not_stopped[:5])}. `pipeline doctor --attacks` shows them all."
        )
    return found


def open_sandbox(config: SandboxConfig) -> SandboxWorker:
    """The strongest sandbox of this machine, or the one of the server at `sandbox.url`.

    Raises:
        ResourceError: if there is none, or a weaker one than `sandbox.min_tier`.
    """
    limits = job_limits(config)
    try:
        if config.url is not None:
            worker: SandboxWorker = RemoteSandboxWorker(config.url, os.environ.get(config.token_env, ""), limits)
            try:
                _require_tier(config, worker.tier, "")
            except ResourceError:
                worker.close()
                raise
            return worker
        report = detect_tier()
        _require_tier(config, report.tier, report.why_not_higher)
        return SandboxWorker(report.tier, limits)
    except SandboxUnavailable as error:
        raise ResourceError(f"the sandbox does not start: {error}") from error


def job_limits(config: SandboxConfig) -> Limits:
    return Limits(cpu_seconds=config.cpu_s, wall_seconds=config.wall_s, memory_bytes=config.memory_mb * 2**20)


def _require_tier(config: SandboxConfig, tier: str | None, why: str) -> None:
    if tier is None or TIERS.index(tier) > TIERS.index(config.min_tier):
        raise ResourceError(
            f"The sandbox ({_place(config)}) has tier {tier or 'none'}, and sandbox.min_tier asks for "
            f"{config.min_tier}{': ' + why if why else ''}"
        )


def _place(config: SandboxConfig) -> str:
    return config.url or "this machine"
