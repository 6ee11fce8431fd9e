"""The attack list: programs that print ESCAPED where they get through, each with the ways in which it may end.

What is attacked outside of the sandbox is a bait (a file, a process, a listener), so that an attack that succeeds does
no harm. What can not be written as a program of one job stands in `selftest`.
"""

from __future__ import annotations

import platform

from rewards.sandbox.attack import C_LIBRARY, ESCAPED, LIMITS, Attack, Attacks, Bait, asked, program, refused
from rewards.sandbox.attacks_outside import outside_attacks
from rewards.sandbox.inside.syscalls import ALWAYS_UNKNOWN, ARCHITECTURES
from rewards.sandbox.records import Job


def attacks(bait: Bait) -> Attacks:
    """Every attack of one job in Python."""
    return {
        "processes": _processes(bait),
        "memory": _memory(),
        **outside_attacks(bait),
        "time": _time(),
        "output": _output(),
    }


def cpp_attacks() -> list[Attack]:
    """Attacks on the compiler's step and by a compiled program."""
    body = "\n".join(
        f'if ({call} >= 0) puts("{ESCAPED}"); else puts("refused");'
        for call in (
            "fork()",
            "socket(AF_INET, SOCK_STREAM, 0)",
            'open("/etc/passwd", O_RDONLY)',
            'open("/tmp/left", O_CREAT | O_WRONLY, 0600)',
            "kill(-1, 0)",
        )
    )
    headers = "".join(f"#include <{name}>\n" for name in ("cstdio", "csignal", "fcntl.h", "unistd.h", "sys/socket.h"))
    started = f'{headers}int main() {{ execl("/bin/echo", "echo", "{ESCAPED}", (char*)0); }}'
    return [
        Attack("fork, connect, read, write, kill", Job.cpp(f"{headers}int main() {{ {body} }}"), ("ok",)),
        Attack("start a program", Job.cpp(started)),
        Attack("include /etc/passwd", Job.cpp('#include "/etc/passwd"\nint main() {}'), ("compile_error",)),
        Attack(
            "assemble /etc/passwd into the program",
            Job.cpp('asm(".incbin \\"/etc/passwd\\"");\nint main() {}'),
            ("compile_error",),
        ),
    ]


def _processes(bait: Bait) -> list[Attack]:
    forks = f"""
        made = 0
        for _ in range(200):
            try:
                pid = os.fork()
            except OSError:
                continue
            if pid == 0:
                time.sleep(30)
                os._exit(0)
            made += 1
        if made: print('{ESCAPED}', made)
    """
    daemon = f"""
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                time.sleep(600)
            os._exit(0)
        print('{ESCAPED}')
    """
    eaters = f"""
        for _ in range(8):
            if os.fork() == 0:
                memory = bytearray(300 << 20)
                time.sleep(30)
        print('{ESCAPED}')
    """
    threads = """
        threading.stack_size(32768)
        while True: threading.Thread(target=time.sleep, args=(60,)).start()
    """
    machine = ARCHITECTURES[platform.machine()]
    victims = (bait.pid, "os.getppid()")
    # A timer's signal is no kill(2): the stop of its own process must end at the wall limit.
    stop = f"""
        {C_LIBRARY}
        event = ctypes.create_string_buffer(64)
        ctypes.memmove(event, (0).to_bytes(8, 'little') + int(signal.SIGSTOP).to_bytes(4, 'little') + bytes(4), 16)
        timer = ctypes.c_void_p()
        assert libc.timer_create(1, event, ctypes.byref(timer)) == 0
        libc.timer_settime(timer, 0, (ctypes.c_long * 4)(0, 0, 0, 1000), None)
        time.sleep(600)
    """
    by_descriptor = f"""
        import fcntl
        try:
            fcntl.fcntl(0, fcntl.F_SETOWN, {bait.pid})
            fcntl.fcntl(0, fcntl.F_SETSIG, 9)
            print('{ESCAPED}')
        except OSError as e: print(e)
    """
    return [
        program("200 forks", forks),
        program("8 processes of 300 MB", eaters),
        program("a daemon (double fork, setsid)", daemon),
        refused("setsid", "os.setsid()"),
        refused("subprocess", "subprocess.run(['/bin/true'])"),
        refused("execve", f"os.execv('/bin/sh', ['sh', '-c', 'echo {ESCAPED}'])"),
        refused("execve of an own file", "open('x', 'w').write('#!/bin/sh'); os.execv('./x', ['x'])", files=True),
        asked("raw clone", f"libc.syscall({machine.clone}, 17, 0, 0, 0, 0)"),
        asked("raw clone3", f"libc.syscall({ALWAYS_UNKNOWN['clone3']}, ctypes.create_string_buffer(88), 88)"),
        program("thread bomb", threads, ("runtime_error", *LIMITS)),
        *(refused(f"kill {victim}", f"os.kill({victim}, 9)") for victim in victims),
        # Signal 0 asks whether a signal would be allowed: one that gets through must not end everything.
        refused("signal everybody", "os.kill(-1, 0)"),
        program("signal through a descriptor", by_descriptor),
        *(asked(f"ptrace {pid}", f"libc.ptrace(16, {pid}, 0, 0)") for pid in victims),
        refused("stop itself", "os.kill(os.getpid(), signal.SIGSTOP)"),
        program("stop itself by a timer", stop, ("wall_limit",)),
        asked("clear the death signal", "libc.prctl(1, 0, 0, 0, 0)"),
    ]


def _memory() -> list[Attack]:
    in_c = f"""
        {C_LIBRARY}
        libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
        got = 0
        for _ in range(64):
            block = libc.malloc(64 << 20)
            if not block: break
            ctypes.memset(block, 1, 64 << 20)
            got += 64
        print('{ESCAPED}' if got >= 1024 else got)
    """
    in_python = "def f(n): return f(n + 1) + f(n + 1)\nf(0)"
    deep = """
        sys.setrecursionlimit(10 ** 9)
        nested = []
        for _ in range(400_000): nested = [nested]
        repr(nested)
    """
    shared = f"import mmap\ntry:\n    mmap.mmap(-1, 4 << 30)\n    print('{ESCAPED}')\nexcept OSError as e: print(e)"
    return [
        program("2 GB in one process", f"x = bytearray(2 << 30)\nprint('{ESCAPED}')", ("memory",)),
        program("huge allocations in C", in_c, ("ok", "runtime_error", *LIMITS)),
        program("shared memory", shared),
        program("deep recursion", in_python, ("runtime_error", *LIMITS)),
        program("deep recursion in C", deep, ("runtime_error", "memory", *LIMITS)),
        refused("a large pipe", "import fcntl; fcntl.fcntl(os.pipe()[1], 1031, 1 << 20)"),
    ]


def _time() -> list[Attack]:
    deaf = "signal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass"
    return [
        program("an endless loop", "while True: pass", LIMITS),
        program("an endless loop deaf to signals", deaf, LIMITS),
        program("sleep", "time.sleep(600)", ("wall_limit",)),
    ]


def _output() -> list[Attack]:
    channel = f"""
        written = 0
        for number in range(3, 256):
            try:
                written += os.write(number, b'[{{"value": 1}}]')
                if number > 3: print('{ESCAPED}', number)
            except OSError: pass
        os._exit(0)
    """

    def forged(name: str, said: str) -> Attack:
        body = f"import os\ndef f():\n    os.write(3, {said})\n    os._exit(0)"
        return Attack(f"forge the result: {name}", Job.function(body, "f", [[]]), ("runtime_error", "output_limit"))

    def flood(number: int, other: int) -> str:
        written = f"for _ in range(1000): os.write({number}, b'x' * 65536)"
        return f"{written}\nos.write({other}, b'{ESCAPED}')\nos._exit(0)"

    return [
        program("flood stdout", flood(1, 2), ("output_limit", *LIMITS)),
        program("flood stderr", flood(2, 1), ("output_limit", *LIMITS)),
        program("flood the result", flood(3, 1), ("output_limit", *LIMITS)),
        program("a sparse output", "os.lseek(1, 1 << 40, 0)\nos.write(1, b'x')", ("runtime_error", "output_limit")),
        program("exit 0 without an answer", "os._exit(0)", ("ok",)),
        program("write to all descriptors", channel, ("ok", "output_limit")),
        program("NUL and invalid UTF-8", "os.write(1, bytes(range(256)))", ("ok",)),
        forged("no JSON", "b'ok'"),
        forged("not a list", """b'{"value": 1}'"""),
        forged("NaN", """b'[{"value": NaN}]'"""),
        forged("deep nesting", "b'[' * 100000 + b']' * 100000"),
        forged("a number of many digits", """b'[{"value": ' + b'9' * 100000 + b'}]'"""),
        forged("invalid UTF-8", """b'[{"value": "\\xff"}]'"""),
    ]


