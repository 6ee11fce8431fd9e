"""Every random draw has a name, never a place in a global stream: retries and other worker counts draw the same."""

from __future__ import annotations

import hashlib
import random


def seed_for(*parts: str | int) -> int:
    """A 63-bit seed from the names of a draw, e.g. `seed_for(run_seed, "grpo", "math", step, task_id, sample)`."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def rng_for(*parts: str | int) -> random.Random:
    """A `random.Random` seeded by `seed_for(*parts)`."""
    return random.Random(seed_for(*parts))
