"""Taking rights away from one process: rlimits, capabilities, Landlock and a seccomp filter, by ctypes.

`Confinement` is prepared once in the zygote (opening rule paths, building the filter) and applied in each
forked child, where it costs a handful of system calls. Every step raises `OSError` when the kernel refuses
it: a child that is not fully confined never runs a job.

Sources: Linux `uapi/linux/landlock.h` (ABI 1 to 7), `Documentation/userspace-api/landlock.rst`; the seccomp programs
come from `filters`.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import resource
import stat
import struct
from collections.abc import Mapping, Sequence

from .filters import Profile, filter_program
from .syscalls import ARCHITECTURES

_libc = ctypes.CDLL(None, use_errno=True)
# Looked up once, in the zygote: a look-up in each child costs more than the call.
_libc_syscall, _libc_prctl, _libc_capset = _libc.syscall, _libc.prctl, _libc.capset

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

FIRST_OWN_FD = 50


def _call(name: str, result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def _syscall(name: str, number: int, *arguments: object) -> int:
    return _call(name, _libc_syscall(ctypes.c_long(number), *arguments))


def _prctl(name: str, *arguments: int) -> None:
    _call(name, _libc_prctl(*(ctypes.c_ulong(argument) for argument in arguments)))


def landlock_abi() -> int:
    """The kernel's Landlock version; raises `OSError` where there is none."""
    return _syscall("landlock", _LANDLOCK_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(1))


class _Filter(ctypes.Structure):
    """`struct sock_fprog` of a program, which it keeps alive."""

    _fields_ = [("length", ctypes.c_ushort), ("program", ctypes.c_void_p)]

    def __init__(self, program: bytes):
        self.buffer = ctypes.create_string_buffer(program, len(program))
        super().__init__(len(program) // 8, ctypes.addressof(self.buffer))


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
        self._architecture = ARCHITECTURES[machine]
        self._readable = tuple(path for path in readable if os.path.exists(path))
        # Out of the way of the low numbers, which the child gives to the job.
        self._ruleset = fcntl.fcntl(self._new_ruleset(), fcntl.F_DUPFD_CLOEXEC, FIRST_OWN_FD)
        # A job's filter is made once, those of the rare profiles where they are needed.
        self._job_filter = _Filter(filter_program(self._architecture, "job"))

    def apply(self, box: str | None, profile: Profile = "job") -> None:
        """Confine the calling process for good. `box` is a folder it may write in; a `compiler` may start what it may
        read.
        """
        drop_capabilities()
        _prctl("no_new_privs", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        plain = box is None and profile != "compiler"
        ruleset = self._ruleset if plain else self._new_ruleset(box, profile == "compiler")
        _syscall("landlock_restrict_self", _LANDLOCK_RESTRICT, ctypes.c_int(ruleset), ctypes.c_uint32(0))
        chosen = self._job_filter if profile == "job" else _Filter(filter_program(self._architecture, profile))
        _prctl("seccomp", _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(chosen), 0, 0)

    def _new_ruleset(self, box: str | None = None, executes: bool = False) -> int:
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
            self._allow(ruleset, path, _FS_READ | (_FS_EXECUTE if executes else 0), handled)
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


def drop_capabilities() -> None:
    """Give up every capability (they matter where the worker runs as root)."""
    header = struct.pack("=Ii", 0x20080522, 0)
    _call("capset", _libc_capset(header, bytes(24)))


def die_with_parent(parent: int) -> None:
    """Be killed when the zygote dies. `parent` is its process id, to close the race with its death before
    the call.
    """
    _prctl("pdeathsig", _PR_SET_PDEATHSIG, 9, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def set_limits(limits: Mapping[str, int]) -> None:
    """The limits of `records.Limits` that the kernel keeps for us. One second lies between the soft CPU limit (SIGXCPU)
    and the hard one (SIGKILL).

    RLIMIT_NPROC counts all that its user has in this user namespace, and root is never held to it: it is set far above
    what other jobs of this worker may need, where the namespace is the sandbox's own.
    """
    cpu, files, stack = limits["cpu_seconds"], limits["output_bytes"], limits["stack_bytes"]
    for limit, soft, hard in (
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_CPU, cpu, cpu + 1),
        (resource.RLIMIT_FSIZE, files, files),
        (resource.RLIMIT_NOFILE, limits["open_files"], limits["open_files"]),
        (resource.RLIMIT_STACK, stack, stack),
        (resource.RLIMIT_AS, limits["memory_bytes"], limits["memory_bytes"]),
    ):
        _lower(limit, soft, hard)
    if "processes" in limits:
        _lower(resource.RLIMIT_NPROC, limits["processes"], limits["processes"])


def _lower(limit: int, soft: int, hard: int) -> None:
    _, ceiling = resource.getrlimit(limit)
    if ceiling != resource.RLIM_INFINITY:
        soft, hard = min(soft, ceiling), min(hard, ceiling)
    resource.setrlimit(limit, (soft, hard))
