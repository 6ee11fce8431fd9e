"""All targets by name."""

from __future__ import annotations

from fuzz import graders, readers
from fuzz.target import Target

TARGETS: dict[str, Target] = {target.name: target for target in (*graders.TARGETS, *readers.TARGETS)}
