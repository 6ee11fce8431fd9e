"""What an attack of the self-test is, and short ways to write one."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from rewards.sandbox.records import Job, Status

ESCAPED = "ESCAPED"
QUIET: tuple[Status, ...] = ("ok", "runtime_error")
LIMITS: tuple[Status, ...] = ("cpu_limit", "wall_limit")
"""How what computes for long ends; which of them it is depends on how busy the machine is."""
C_LIBRARY = "libc = ctypes.CDLL(None, use_errno=True)\n"
_IMPORTS = "import ctypes, os, resource, signal, socket, subprocess, sys, threading, time\n"


@dataclass(frozen=True)
class Bait:
    """What attacks aim at: a file outside, a process of this user, a TCP port and an abstract UNIX socket."""

    file: str
    pid: int
    port: int
    abstract: str
    secret: str


@dataclass(frozen=True)
class Attack:
    """A job, and the statuses that it may end with; ESCAPED in its output is never one of the good ends."""

    name: str
    job: Job
    ends: tuple[Status, ...] = QUIET


Attacks = dict[str, list[Attack]]
"""Attacks by area."""


def program(
    name: str, source: str, ends: tuple[Status, ...] = QUIET, files: bool = False
) -> Attack:
    """A Python program; with `files` it has a box."""
    return Attack(name, Job.program(_IMPORTS + textwrap.dedent(source), files={"own.txt": ""} if files else None), ends)


def refused(name: str, action: str, files: bool = False) -> Attack:
    """`action` must raise."""
    tried = f"try:\n    {action}\n    print('{ESCAPED}')\nexcept (OSError, ValueError, RuntimeError) as e: print(e)"
    return program(name, tried, files=files)


def asked(name: str, call: str) -> Attack:
    """`call` is an expression over libc that must be negative (or kill the process)."""
    return program(name, f"{C_LIBRARY}if {call} >= 0: print('{ESCAPED}')")


