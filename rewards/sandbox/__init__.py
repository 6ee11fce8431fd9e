"""One killable worker for everything that must not run in our own process (see `docs` of `worker` and
`tiers`).
"""

from rewards.sandbox.records import Call, CallResult, Job, JobResult, Limits, SandboxUnavailable
from rewards.sandbox.selftest import AttackResult, self_test
from rewards.sandbox.tiers import Tier, TierReport
from rewards.sandbox.worker import SandboxWorker, detect_tier

__all__ = [
    "AttackResult",
    "Call",
    "CallResult",
    "Job",
    "JobResult",
    "Limits",
    "SandboxUnavailable",
    "SandboxWorker",
    "Tier",
    "TierReport",
    "detect_tier",
    "self_test",
]
