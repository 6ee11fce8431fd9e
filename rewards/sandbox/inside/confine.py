"""Taking rights away from one process: rlimits, capabilities, Landlock and a seccomp filter, by ctypes.

`Confinement` is prepared once in the zygote (opening rule paths, building the filter) and applied in each
forked child, where it costs a handful of system calls. Every step raises `OSError` when the kernel refuses
it: a child that is not fully confined never runs a job.

Sources: Linux `uapi/linux/landlock.h` (ABI 1 to 7), `uapi/linux/seccomp.h`,
`Documentation/userspace-api/landlock.rst`.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import resource
import stat
import struct
from collections.abc import Sequence

from .syscalls import ARCHITECTURES, CLONE3, LAST_KNOWN, Architecture

_libc = ctypes.CDLL(None, use_errno=True)

_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 22, 38
_SECCOMP_MODE_FILTER = 2
_LANDLOCK_CREATE, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT = 444, 445, 446
_RULE_PATH_BENEATH = 1

_FS_EXECUTE, _FS_WRITE_FILE, _FS_READ_FILE, _FS_READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_FS_MAKE_CHAR, _FS_MAKE_SOCK, _FS_MAKE_FIFO, _FS_MAKE_BLOCK = 1 << 6, 1 << 9, 1 << 10, 1 << 11
_FS_TRUNCATE, _FS_IOCTL_DEV = 1 << 14, 1 << 15
_FS_READ = _FS_READ_FILE | _FS_READ_DIR
_FS_FILE_ONLY = _FS_EXECUTE | _FS_WRITE_FILE | _FS_READ_FILE | _FS_TRUNCATE | _FS_IOCTL_DEV
_FS_NEVER = _FS_EXECUTE | _FS_MAKE_CHAR | _FS_MAKE_SOCK | _FS_MAKE_FIFO | _FS_MAKE_BLOCK | _FS_IOCTL_DEV
_NET_ALL = 0b11  # bind and connect TCP
_SCOPE_ALL = 0b11  # abstract UNIX sockets and signals

_CLONE_THREAD = 0x00010000

FIRST_OWN_FD = 50


def _call(name: str, result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def _syscall(name: str, number: int, *arguments: object) -> int:
    return _call(name, _libc.syscall(ctypes.c_long(number), *arguments))


def _prctl(name: str, *arguments: int) -> None:
    _call(name, _libc.prctl(*(ctypes.c_ulong(argument) for argument in arguments)))


def landlock_abi() -> int:
    """The kernel's Landlock version; raises `OSError` where there is none."""
    return _syscall("landlock", _LANDLOCK_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(1))


class _Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("program", ctypes.c_void_p)]


class Confinement:
    """The rights of one kind of job: read `readable`, write `/dev/null` and (if given) one box, nothing else.

    Raises `OSError` where Landlock is missing and `NotImplementedError` on an architecture without a filter
    table.
    """

    def __init__(self, readable: Sequence[str]):
        machine = platform.machine()
        if machine not in ARCHITECTURES:
            raise NotImplementedError(f"no system call table for {machine}, only for {sorted(ARCHITECTURES)}")
        self.abi = landlock_abi()
        self._readable = tuple(path for path in readable if os.path.exists(path))
        # Out of the way of the low numbers, which the child gives to the job.
        self._ruleset = fcntl.fcntl(self._new_ruleset(), fcntl.F_DUPFD_CLOEXEC, FIRST_OWN_FD)
        self._program = filter_program(ARCHITECTURES[machine])
        self._buffer = ctypes.create_string_buffer(self._program, len(self._program))
        self._filter = _Filter(len(self._program) // 8, ctypes.addressof(self._buffer))

    def apply(self, box: str | None) -> None:
        """Confine the calling process for good. `box` is a folder it may write in."""
        drop_capabilities()
        _prctl("no_new_privs", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        ruleset = self._ruleset if box is None else self._new_ruleset(box)
        _syscall("landlock_restrict_self", _LANDLOCK_RESTRICT, ctypes.c_int(ruleset), ctypes.c_uint32(0))
        _prctl("seccomp", _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(self._filter), 0, 0)

    def _new_ruleset(self, box: str | None = None) -> int:
        bits = 13 + (self.abi >= 2) + (self.abi >= 3) + (self.abi >= 5)
        handled = (1 << bits) - 1
        attributes = [handled]
        if self.abi >= 4:
            attributes.append(_NET_ALL)
        if self.abi >= 6:
            attributes.append(_SCOPE_ALL)
        packed = struct.pack(f"={len(attributes)}Q", *attributes)
        ruleset = _syscall(
            "landlock_create_ruleset",
            _LANDLOCK_CREATE,
            packed,
            ctypes.c_size_t(len(packed)),
            ctypes.c_uint32(0),
        )
        for path in self._readable:
            self._allow(ruleset, path, _FS_READ, handled)
        self._allow(ruleset, "/dev/null", _FS_READ_FILE | _FS_WRITE_FILE, handled)
        self._allow(ruleset, "/dev/urandom", _FS_READ_FILE, handled)
        if box is not None:
            self._allow(ruleset, box, handled & ~_FS_NEVER, handled)
        return ruleset

    @staticmethod
    def _allow(ruleset: int, path: str, access: int, handled: int) -> None:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            if not stat.S_ISDIR(os.fstat(handle).st_mode):
                access &= _FS_FILE_ONLY
            rule = struct.pack("=Qi", access & handled, handle)
            _syscall(
                "landlock_add_rule",
                _LANDLOCK_ADD_RULE,
                ctypes.c_int(ruleset),
                ctypes.c_int(_RULE_PATH_BENEATH),
                rule,
                ctypes.c_uint32(0),
            )
        finally:
            os.close(handle)


def filter_program(architecture: Architecture) -> bytes:
    """The BPF program: 8 bytes per instruction, `struct sock_filter {u16 code; u8 jt, jf; u32 k}`.

    Refused calls get EPERM, unknown ones and clone3 ENOSYS (glibc then falls back to clone, whose flags the
    filter can see; threads stay possible, processes do not). A foreign architecture or x32 numbers kill the
    process.
    """
    load, jump_equal, jump_greater, jump_set, ret = 0x20, 0x15, 0x25, 0x45, 0x06
    allow, kill, refuse = 0x7FFF0000, 0x80000000, 0x00050000
    eperm, enosys = refuse | errno.EPERM, refuse | errno.ENOSYS
    number_at, arch_at, arg0_at, arg2_at = 0, 4, 16, 32
    x32_bit = 0x40000000
    program: list[tuple[int, int, int, int]] = [
        (load, 0, 0, arch_at),
        (jump_equal, 1, 0, architecture.audit),
        (ret, 0, 0, kill),
        (load, 0, 0, number_at),
    ]
    if architecture.has_x32:
        program += [(jump_greater, 0, 1, x32_bit - 1), (ret, 0, 0, kill)]
    program += [
        (jump_greater, 0, 1, LAST_KNOWN), (ret, 0, 0, enosys),
        (jump_equal, 0, 1, CLONE3), (ret, 0, 0, enosys),
        (jump_equal, 0, 4, architecture.clone),
        (load, 0, 0, arg0_at), (jump_set, 0, 1, _CLONE_THREAD), (ret, 0, 0, allow), (ret, 0, 0, eperm),
        # Reading one's limits is harmless (the pointer to a new limit is null); setting them is not.
        (jump_equal, 0, 6, architecture.prlimit64),
        (load, 0, 0, arg2_at), (jump_equal, 0, 3, 0),
        (load, 0, 0, arg2_at + 4), (jump_equal, 0, 1, 0), (ret, 0, 0, allow), (ret, 0, 0, eperm),
    ]  # fmt: skip
    for _, number in architecture.denied:
        program += [(jump_equal, 0, 1, number), (ret, 0, 0, eperm)]
    program.append((ret, 0, 0, allow))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def drop_capabilities() -> None:
    """Give up every capability (they matter where the worker runs as root)."""
    header = struct.pack("=Ii", 0x20080522, 0)
    _call("capset", _libc.capset(header, bytes(24)))


def die_with_parent(parent: int) -> None:
    """Be killed when the zygote dies. `parent` is its process id, to close the race with its death before
    the call.
    """
    _prctl("pdeathsig", _PR_SET_PDEATHSIG, 9, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def set_limits(
    cpu_seconds: int, memory_bytes: int, file_bytes: int, stack_bytes: int, open_files: int
) -> None:
    """One second lies between the soft CPU limit (SIGXCPU) and the hard one (SIGKILL)."""
    for limit, soft, hard in (
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_CPU, cpu_seconds, cpu_seconds + 1),
        (resource.RLIMIT_FSIZE, file_bytes, file_bytes),
        (resource.RLIMIT_NOFILE, open_files, open_files),
        (resource.RLIMIT_STACK, stack_bytes, stack_bytes),
        (resource.RLIMIT_AS, memory_bytes, memory_bytes),
    ):
        _, ceiling = resource.getrlimit(limit)
        if ceiling != resource.RLIM_INFINITY:
            soft, hard = min(soft, ceiling), min(hard, ceiling)
        resource.setrlimit(limit, (soft, hard))
