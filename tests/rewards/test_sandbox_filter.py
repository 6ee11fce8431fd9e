"""The seccomp programs of both architectures, run by an interpreter of the classic BPF that seccomp allows."""

import errno
import re
import struct
from pathlib import Path

import pytest

from rewards.sandbox.inside.filters import ALLOW, BINARY_FD, ENOSYS, EPERM, KILL_PROCESS, filter_program
from rewards.sandbox.inside.syscalls import ALWAYS_UNKNOWN, ARCHITECTURES, COMPILER_MAY, LAST_KNOWN

HEADERS = {
    "x86_64": ("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "/usr/include/asm/unistd_64.h"),
    "aarch64": ("/usr/include/asm-generic/unistd.h",),
}
# Newer than many installed headers: Linux include/uapi/asm-generic/unistd.h of 6.10.
NEW = {"fchmodat2": 452, "statmount": 457, "listmount": 458}
I386, ARM = 0x40000003, 0x40000028
CLONE_THREAD, AT_EMPTY_PATH, O_TRUNC = 0x10000, 0x1000, 0o1000


def verdict(program: bytes, audit: int, number: int, *arguments: int) -> int:
    """What the kernel would do: `struct sock_filter` run over `struct seccomp_data`."""
    padded = [*arguments, 0, 0, 0, 0, 0, 0][:6]
    data = struct.pack("=iIQ6Q", number - (1 << 32) if number >= 1 << 31 else number, audit, 0, *padded)
    instructions = list(struct.iter_unpack("=HBBI", program))
    at = accumulator = 0
    while True:
        code, jump_true, jump_false, k = instructions[at]
        at += 1
        if code == 0x20:
            assert k % 4 == 0
            (accumulator,) = struct.unpack_from("=I", data, k)
        elif code == 0x06:
            return k
        else:
            taken = {0x15: accumulator == k, 0x25: accumulator > k, 0x45: bool(accumulator & k)}[code]
            at += jump_true if taken else jump_false


@pytest.fixture(params=sorted(ARCHITECTURES))
def machine(request):
    return request.param


@pytest.fixture
def ask(machine):
    architecture = ARCHITECTURES[machine]
    programs = {profile: filter_program(architecture, profile) for profile in ("job", "compiler", "binary")}

    def ask(number, *arguments, profile="job", audit=architecture.audit):
        return verdict(programs[profile], audit, number, *arguments)

    return ask


def numbers_of(machine):
    """Numbers by name from the kernel's own header; skipped where it is not installed."""
    for path in map(Path, HEADERS[machine]):
        if path.exists():
            found = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)\b", path.read_text())
            return NEW | {name: int(number) for name, number in found}
    pytest.skip(f"the kernel's headers are not installed: {HEADERS[machine]}")


def test_the_numbers_are_the_kernels(machine):
    architecture = ARCHITECTURES[machine]
    header = numbers_of(machine)
    mine = dict(architecture.denied) | ALWAYS_UNKNOWN
    mine |= {name: getattr(architecture, name) for name in ("clone", "prlimit64", "execveat", "fcntl", "ioctl")}
    assert mine == {name: header[name] for name in mine}
    opens = dict(architecture.opens)
    assert opens == ({header["open"]: 1, header["openat"]: 2} if machine == "x86_64" else {header["openat"]: 2})


def test_both_tables_refuse_the_same():
    for architecture in ARCHITECTURES.values():
        numbers = [number for _, number in architecture.denied]
        assert len(set(numbers)) == len(numbers)
    names = {machine: {name for name, _ in arch.denied} for machine, arch in ARCHITECTURES.items()}
    # What aarch64 lacks are the old calls that newer ones replaced there.
    replaced = (
        "fork vfork uselib mknod chmod chown lchown utime utimes futimesat inotify_init iopl ioperm modify_ldt"
    )
    assert names["x86_64"] - names["aarch64"] == set(replaced.split())
    assert not names["aarch64"] - names["x86_64"]


def test_every_denied_call_is_refused_and_reading_is_not(machine, ask):
    header = numbers_of(machine)
    for name, number in ARCHITECTURES[machine].denied:
        assert ask(number) == EPERM, name
    for name in ("read", "write", "mmap", "futex", "brk", "exit_group", "close", "rt_sigaction", "getrandom"):
        assert ask(header[name]) == ALLOW, name
    assert EPERM & 0xFFFF == errno.EPERM


def test_other_architectures_and_x32_are_killed(machine, ask):
    for audit in (I386, ARM, 0):
        assert ask(0, audit=audit) == KILL_PROCESS
    other = next(a for name, a in ARCHITECTURES.items() if name != machine)
    assert ask(0, audit=other.audit) == KILL_PROCESS
    if ARCHITECTURES[machine].has_x32:
        assert ask(0x40000000) == ask(0x40000000 + 520) == ask(0xFFFFFFFF) == KILL_PROCESS


def test_unknown_calls_do_not_exist(ask):
    assert ask(LAST_KNOWN + 1) == ask(10**6) == ENOSYS
    assert all(ask(number) == ENOSYS for number in ALWAYS_UNKNOWN.values())


def test_threads_but_no_processes(machine, ask):
    clone = ARCHITECTURES[machine].clone
    assert ask(clone, 0x3D0F00) == ALLOW and 0x3D0F00 & CLONE_THREAD
    assert ask(clone, 0x11) == ask(clone, 0x10000000) == EPERM
    # CLONE_THREAD in the upper half is not the flag.
    assert ask(clone, CLONE_THREAD << 32) == EPERM


def test_limits_are_read_and_never_set(machine, ask):
    prlimit = ARCHITECTURES[machine].prlimit64
    assert ask(prlimit, 0, 7, 0, 0x7FFF0000) == ALLOW
    assert ask(prlimit, 0, 7, 0x7FFF0000) == ask(prlimit, 0, 7, 1 << 40) == EPERM


def test_signals_by_descriptor_and_large_pipes(machine, ask):
    architecture = ARCHITECTURES[machine]
    for command in (8, 10, 15, 1031):
        assert ask(architecture.fcntl, 0, command) == EPERM
    for command in (1, 2, 3, 4, 1030, 1032):
        assert ask(architecture.fcntl, 0, command) == ALLOW
    assert ask(architecture.ioctl, 0, 0x5412) == ask(architecture.ioctl, 0, 0x8901) == EPERM
    assert ask(architecture.ioctl, 0, 0x5401) == ALLOW


def test_nobody_empties_a_file_that_is_opened_for_reading(machine, ask):
    for number, index in ARCHITECTURES[machine].opens:
        flags = [0] * index
        assert ask(number, *flags, O_TRUNC) == EPERM
        assert ask(number, *flags, O_TRUNC | 1) == ask(number, *flags, O_TRUNC | 2) == ask(number, *flags, 0) == ALLOW


def test_only_a_compiler_starts_programs_and_a_binary_only_itself(machine, ask):
    architecture = ARCHITECTURES[machine]
    for name, number in architecture.denied:
        assert ask(number, profile="compiler") == (ALLOW if name in COMPILER_MAY else EPERM), name
    assert ask(architecture.clone, 0x11, profile="compiler") == ALLOW
    start = (BINARY_FD, 0x1000, 0, 0, AT_EMPTY_PATH)
    assert ask(architecture.execveat, *start, profile="binary") == ALLOW
    assert ask(architecture.execveat, *start) == ask(architecture.execveat, *start, profile="compiler") == EPERM
    for other in ((1, 0, 0, 0, AT_EMPTY_PATH), (BINARY_FD, 0, 0, 0, 0), (BINARY_FD, 0, 0, 0, AT_EMPTY_PATH | 0x100)):
        assert ask(architecture.execveat, *other, profile="binary") == EPERM
    execve = dict(architecture.denied)["execve"]
    assert ask(execve, profile="binary") == ask(architecture.clone, 0x11, profile="binary") == EPERM
