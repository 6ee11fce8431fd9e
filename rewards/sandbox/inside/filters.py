"""The seccomp filters as BPF programs: what a job, a compiler and a compiled program may ask of the kernel.

A program is 8 bytes per instruction, `struct sock_filter {u16 code; u8 jt, jf; u32 k}`, over
`struct seccomp_data {int nr; u32 arch; u64 instruction_pointer; u64 args[6]}` (Linux `uapi/linux/seccomp.h`,
`uapi/linux/filter.h`). Only the low halves of arguments are compared where the kernel reads an int.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable
from typing import Literal

from .syscalls import ALWAYS_UNKNOWN, COMPILER_MAY, LAST_KNOWN, Architecture

Profile = Literal["job", "compiler", "binary"]

ALLOW, KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
EPERM, ENOSYS = _ERRNO | errno.EPERM, _ERRNO | errno.ENOSYS
BINARY_FD = 5
"""Where a compiled program waits to be started."""

_LOAD, _JUMP_EQUAL, _JUMP_GREATER, _JUMP_SET, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x06
_NUMBER_AT, _ARCH_AT = 0, 4
_X32_BIT = 0x40000000
_CLONE_THREAD = 0x00010000
_O_ACCMODE, _O_TRUNC = 0o3, 0o1000
_AT_EMPTY_PATH = 0x1000
# Signals sent on behalf of a descriptor reach any process of the same user, and large pipes are memory of the kernel's.
_FCNTL_REFUSED = {"F_SETOWN": 8, "F_SETSIG": 10, "F_SETOWN_EX": 15, "F_SETPIPE_SZ": 1031}
_IOCTL_REFUSED = {"TIOCSTI": 0x5412, "FIOSETOWN": 0x8901, "SIOCSPGRP": 0x8902}

_Instruction = tuple[int, int, int, int]


def _argument(index: int, high: bool = False) -> int:
    return 16 + 8 * index + 4 * high


def filter_program(architecture: Architecture, profile: Profile) -> bytes:
    """The program of a profile.

    Refused calls get EPERM; unknown ones, clone3 and openat2 (whose arguments lie in memory that a filter can not
    read) get ENOSYS, so that glibc falls back to calls whose flags the filter sees. A foreign architecture or x32
    numbers kill the process. A `job` may start threads and nothing else; the `compiler` may start processes; a `binary`
    may be started once it waits at `BINARY_FD`, and then has the rights of a job.
    """
    program: list[_Instruction] = [
        (_LOAD, 0, 0, _ARCH_AT),
        (_JUMP_EQUAL, 1, 0, architecture.audit),
        (_RETURN, 0, 0, KILL_PROCESS),
        (_LOAD, 0, 0, _NUMBER_AT),
    ]
    if architecture.has_x32:
        program += [(_JUMP_GREATER, 0, 1, _X32_BIT - 1), (_RETURN, 0, 0, KILL_PROCESS)]
    program += [(_JUMP_GREATER, 0, 1, LAST_KNOWN), (_RETURN, 0, 0, ENOSYS)]
    for number in ALWAYS_UNKNOWN.values():
        program += _when(number, [(_RETURN, 0, 0, ENOSYS)])
    if profile != "compiler":
        program += _when(architecture.clone, _with_flag(0, _CLONE_THREAD))
    if profile == "binary":
        program += _when(architecture.execveat, _start_binary())
    # Reading one's limits is harmless (the pointer to a new limit is null); setting them is not.
    program += _when(architecture.prlimit64, _null_pointer(2))
    program += _when(architecture.fcntl, _none_of(1, _FCNTL_REFUSED.values()))
    program += _when(architecture.ioctl, _none_of(1, _IOCTL_REFUSED.values()))
    for number, flags in architecture.opens:
        program += _when(number, _no_truncating_reader(flags))
    # One instruction each, with one return for all of them: a filter is checked and compiled anew in every child.
    denied = [n for name, n in architecture.denied if not (profile == "compiler" and name in COMPILER_MAY)]
    program += [(_JUMP_EQUAL, len(denied) - index, 0, number) for index, number in enumerate(denied)]
    program += [(_RETURN, 0, 0, ALLOW), (_RETURN, 0, 0, EPERM)]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def _when(number: int, body: list[_Instruction]) -> list[_Instruction]:
    """`body`, which ends in a return on every path, for one system call."""
    return [(_JUMP_EQUAL, 0, len(body), number), *body]


def _with_flag(index: int, flag: int) -> list[_Instruction]:
    return [(_LOAD, 0, 0, _argument(index)), (_JUMP_SET, 0, 1, flag), (_RETURN, 0, 0, ALLOW), (_RETURN, 0, 0, EPERM)]


def _null_pointer(index: int) -> list[_Instruction]:
    return [
        (_LOAD, 0, 0, _argument(index)), (_JUMP_EQUAL, 0, 3, 0),
        (_LOAD, 0, 0, _argument(index, high=True)), (_JUMP_EQUAL, 0, 1, 0),
        (_RETURN, 0, 0, ALLOW), (_RETURN, 0, 0, EPERM),
    ]  # fmt: skip


def _none_of(index: int, refused: Iterable[int]) -> list[_Instruction]:
    body: list[_Instruction] = [(_LOAD, 0, 0, _argument(index))]
    for value in refused:
        body += [(_JUMP_EQUAL, 0, 1, value), (_RETURN, 0, 0, EPERM)]
    return [*body, (_RETURN, 0, 0, ALLOW)]


def _no_truncating_reader(index: int) -> list[_Instruction]:
    """O_RDONLY with O_TRUNC empties a file that one may only read; Landlock sees that from ABI 3 on alone."""
    return [
        (_LOAD, 0, 0, _argument(index)), (_JUMP_SET, 0, 2, _O_TRUNC), (_JUMP_SET, 1, 0, _O_ACCMODE),
        (_RETURN, 0, 0, EPERM), (_RETURN, 0, 0, ALLOW),
    ]  # fmt: skip


def _start_binary() -> list[_Instruction]:
    return [
        (_LOAD, 0, 0, _argument(0)), (_JUMP_EQUAL, 0, 3, BINARY_FD),
        (_LOAD, 0, 0, _argument(4)), (_JUMP_EQUAL, 0, 1, _AT_EMPTY_PATH),
        (_RETURN, 0, 0, ALLOW), (_RETURN, 0, 0, EPERM),
    ]  # fmt: skip
