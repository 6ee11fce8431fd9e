"""Attacks on what lies outside of a job: files, secrets, the network, the rest of the kernel."""

from __future__ import annotations

import platform

from rewards.sandbox.attack import C_LIBRARY, ESCAPED, LIMITS, Attack, Attacks, Bait, asked, program, refused
from rewards.sandbox.inside.syscalls import ARCHITECTURES


def outside_attacks(bait: Bait) -> Attacks:
    """All of this file."""
    return {"files": _files(bait), "secrets": _secrets(bait), "network": _network(bait), "kernel": _kernel()}


def _files(bait: Bait) -> list[Attack]:
    # What is bounded by watching is overshot by some 20 ms of work, far below these sizes.
    fill = f"for n in range(2000): open(str(n), 'wb').write(bytes(100_000))\nprint('{ESCAPED}')"
    many = f"for n in range(20_000): open(str(n), 'wb').close()\nprint('{ESCAPED}')"
    anywhere = f"""
        for place in ('/', '/tmp', '/var/tmp', '/dev', '/dev/shm', '/run', '/usr', os.path.expanduser('~root')):
            try:
                path = place + '/polymath-was-here'
                open(path, 'w').close()
                os.unlink(path)
                print('{ESCAPED}', place)
            except OSError: pass
            try:
                os.mkdir(path)
                os.rmdir(path)
                print('{ESCAPED}', place)
            except OSError: pass
    """
    link = "os.symlink('/etc/passwd', 'l'); open('l').read()"
    file = repr(bait.file)
    return [
        program("fill the box", fill, ("output_limit", *LIMITS), files=True),
        program("fill the box with empty files", many, ("output_limit", *LIMITS), files=True),
        refused("one large file", "open('x', 'wb').truncate(1 << 40)", files=True),
        program("write in all usual places", anywhere),
        refused("write outside", f"open({file}, 'w').write('x')"),
        refused("truncate outside", f"os.truncate({file}, 0)"),
        refused("empty a file by opening it for reading", f"os.open({file}, os.O_RDONLY | os.O_TRUNC)"),
        refused("remove outside", f"os.unlink({file})"),
        refused("rename outside", f"os.rename({file}, {file} + '-moved')"),
        refused("bring a file into the box by a link", f"os.link({file}, 'mine'); open('mine').read()", files=True),
        refused("read through a link", link, files=True),
        refused("read above the box", "open('../' * 20 + 'etc/passwd').read()", files=True),
        refused("change a mode outside", f"os.chmod({file}, 0o777)"),
        refused("change times outside", f"os.utime({file}, (0, 0))"),
        refused("make a device", "os.mknod('d', 0o20666, os.makedev(1, 1))", files=True),
        refused("make a FIFO for others", "os.mkfifo('f')", files=True),
    ]


def _secrets(bait: Bait) -> list[Attack]:
    inside = f"""
        import gc
        half = {bait.secret[:8]!r}
        found = [o for o in gc.get_objects() if isinstance(o, dict) for o in o.values()
                 if isinstance(o, str) and o.startswith(half) and len(o) > len(half)]
        if found or any(value.startswith(half) for value in os.environ.values()): print('{ESCAPED}')
    """
    descriptors = f"""
        for number in range(4, 1024):
            try:
                os.fstat(number)
                print('{ESCAPED}', number)
            except OSError: pass
    """
    owner = bait.pid
    return [
        refused("read /etc/passwd", "open('/etc/passwd').read()"),
        refused("read /etc/shadow", "open('/etc/shadow').read()"),
        refused("read the expected outputs", f"open({bait.file!r}).read()"),
        program("find the expected outputs in its own memory", inside),
        refused("read its memory by file", "open('/proc/self/mem', 'rb')"),
        *(
            refused(f"read /proc of {pid}", f"open(f'/proc/{{{pid}}}/environ', 'rb').read()")
            for pid in (owner, "os.getppid()", 1)
        ),
        refused("list processes", "os.listdir('/proc')"),
        refused("list homes", "os.listdir('/root') + os.listdir('/home')"),
        refused("read the graders", f"open({__file__!r}).read()"),
        program("use inherited descriptors", descriptors),
    ]


def _network(bait: Bait) -> list[Attack]:
    udp = f"socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {bait.port}))"
    abstract = f"socket.socket(socket.AF_UNIX).connect('\\0{bait.abstract}')"
    return [
        refused("connect to loopback", f"socket.create_connection(('127.0.0.1', {bait.port}), 1)"),
        refused("connect to an abstract socket", abstract),
        refused("send a datagram", udp),
        refused("listen", "socket.create_server(('127.0.0.1', 0))"),
        refused("netlink", "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)"),
        refused("raw packets", "socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)"),
    ]


_ASKED = (
    "memfd_create", "io_uring_setup", "setns", "keyctl", "add_key", "bpf", "perf_event_open", "userfaultfd", "mount",
    "open_tree", "fsopen", "pivot_root", "chroot", "personality", "open_by_handle_at", "seccomp", "setrlimit",
    "mq_open", "msgget", "semget", "shmget", "pidfd_open", "process_vm_readv", "init_module", "syslog", "quotactl",
    "sync",
)  # fmt: skip


def _kernel() -> list[Attack]:
    numbers = dict(ARCHITECTURES[platform.machine()].denied)
    # Arguments that most kernels take: a refusal must come from the filter, so the error is looked at.
    calls = [
        program(
            f"system call {name}",
            f"{C_LIBRARY}libc.syscall({numbers[name]}, b'/', 0, 0, 0, 0)\n"
            f"if ctypes.get_errno() != 1: print('{ESCAPED}')",
        )
        for name in _ASKED
    ]
    more = [
        asked("a user namespace", f"libc.syscall({numbers['unshare']}, 0x10000000)"),
        refused("raise a limit", "resource.setrlimit(resource.RLIMIT_CPU, (99, 99))"),
        asked("an unknown system call", "libc.syscall(5000, 0)"),
    ]
    if ARCHITECTURES[platform.machine()].has_x32:
        thirty_two = f"""
            import mmap
            code = mmap.mmap(-1, 4096, prot=7)
            code.write(bytes.fromhex('b814000000cd80c3'))  # mov eax, 20 (getpid); int 0x80; ret
            address = ctypes.addressof(ctypes.c_char.from_buffer(code))
            if ctypes.CFUNCTYPE(ctypes.c_int)(address)() > 0: print('{ESCAPED}')
        """
        more += [
            asked("a call by its x32 number", "libc.syscall(0x40000000 + 39)"),
            program("a call of the 32-bit kind", thirty_two),
        ]
    return calls + more
