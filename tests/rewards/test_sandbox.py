import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from rewards.sandbox import (
    Call,
    Job,
    Limits,
    SandboxUnavailable,
    SandboxWorker,
    detect_tier,
    tiers,
)
from rewards.sandbox import worker as worker_module


def run(worker, source, stdin="", **more):
    return worker.run(Job.program(source, stdin, **more))


def test_programs_read_and_write(tier_worker):
    result = run(tier_worker, "import sys\nprint(sum(map(int, sys.stdin)), 'é')", "1\n2\n3\n")
    assert (result.status, result.stdout) == ("ok", "6 é\n")
    assert result.max_rss_bytes > 0 and result.wall_seconds > 0
    assert run(tier_worker, "if __name__ == '__main__':\n    print(1)\n    exit()").stdout == "1\n"


@pytest.mark.parametrize(
    ("source", "status"),
    [
        ("raise ValueError('x')", "runtime_error"),
        ("syntax error here", "runtime_error"),
        ("import sys; sys.exit(3)", "runtime_error"),
        ("def f(): f()\nf()", "runtime_error"),
        ("x = [0] * (1 << 34)", "memory"),
        ("while True: pass", "cpu_limit"),
        ("import time; time.sleep(60)", "wall_limit"),
        ("import signal; signal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass", "cpu_limit"),
        ("print('x' * 10_000_000)", "output_limit"),
        ("import sys; sys.stderr.write('x' * 10_000_000)", "output_limit"),
        ("import ctypes; ctypes.string_at(0)", "runtime_error"),
    ],
)
def test_how_programs_end(worker, source, status):
    started = time.monotonic()
    assert run(worker, source).status == status
    # Limits of 1 and 3 s, and a busy machine; what is not ended at all takes a minute or for ever.
    assert time.monotonic() - started < 20


def test_threads_and_asyncio_work(worker):
    threads = (
        "import threading, sys\nthreading.stack_size(1 << 26)\nsys.setrecursionlimit(10**6)\n"
        "def deep(n): return 0 if n == 0 else 1 + deep(n - 1)\n"
        "threading.Thread(target=lambda: print(deep(20000))).start()"
    )
    assert run(worker, threads).stdout == "20000\n"
    assert run(worker, "import asyncio\nasync def f(): print(7)\nasyncio.run(f())").stdout == "7\n"


ESCAPES = {
    "vfork by subprocess": "import subprocess; subprocess.run(['/bin/true']); print('OUT')",
    "multiprocessing": "import multiprocessing as m\np = m.Process(target=print)\np.start(); print('OUT')",
    "raw clone": "import ctypes\nif ctypes.CDLL(None).syscall(56, 17, 0, 0, 0, 0) > 0: print('OUT')",
    "raw clone3": "import ctypes\n"
    "if ctypes.CDLL(None).syscall(435, ctypes.create_string_buffer(88), 88) >= 0: print('OUT')",
    "memfd": "import os; os.memfd_create('x'); print('OUT')",
    "ptrace": "import ctypes, os\nif ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) == 0: print('OUT')",
    "unix socket": "import socket; socket.socket(socket.AF_UNIX); print('OUT')",
    "udp": "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM); print('OUT')",
    "list home": "import os; os.listdir(os.path.expanduser('~root')); print('OUT')",
    "list /proc": "import os; os.listdir('/proc'); print('OUT')",
    "list /etc": "import os; open('/etc/hostname'); print('OUT')",
    "mkdir in tmp": "import os; os.mkdir('/tmp/polymath-was-here'); print('OUT')",
    "symlink": "import os; os.symlink('/etc/passwd', '/tmp/polymath-link'); print('OUT')",
    "dev shm": "open('/dev/shm/polymath', 'w'); print('OUT')",
    "chroot": "import os; os.chroot('/tmp'); print('OUT')",
    "unshare": "import ctypes\nif ctypes.CDLL(None).unshare(0x10000000) == 0: print('OUT')",
    "setsid": "import os; os.setsid(); print('OUT')",
    "raise nofile": "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (9999, 9999)); print('OUT')",
    "control descriptors": "import os\nfor fd in range(4, 256):\n"
    "    try: os.fstat(fd); print('OUT')\n    except OSError: pass",
    "environment": "import os\n"
    "if set(os.environ) - {'PYTHONHASHSEED', 'PYTHONUTF8', "
    "'PYTHONDONTWRITEBYTECODE', 'TZ',"
    " 'LC_ALL', 'PWD', 'LC_CTYPE'}: print('OUT', os.environ)",
    "write the interpreter": "import os; open(os.__file__, 'a'); print('OUT')",
    "kill everybody": "import os, signal; os.kill(-1, 0); print('OUT')",
    "signal the parent": "import os, signal; os.kill(os.getppid(), signal.SIGKILL); print('OUT')",
    "clear the death signal": "import ctypes\nif ctypes.CDLL(None).prctl(1, 0, 0, 0, 0) == 0: print('OUT')",
}


@pytest.mark.parametrize("name", ESCAPES)
def test_escapes(tier_worker, name):
    result = run(tier_worker, ESCAPES[name])
    assert "OUT" not in result.stdout
    assert result.status in ("ok", "runtime_error")


def test_a_thousand_threads_do_not_outlive_the_job(worker):
    source = (
        "import threading, time\nfor _ in range(2000): threading.Thread(target=time.sleep, args=(9,)).start()"
    )
    assert run(worker, source).status in ("runtime_error", "wall_limit", "cpu_limit", "memory")
    assert run(worker, "print(1)").stdout == "1\n"


def test_functions_isolate_errors_per_call(worker):
    source = "def f(x):\n    if x == 2: raise KeyError(x)\n    return {'x': (x, True, None, 1.5)}"
    result = worker.run(Job.function(source, "f", [[1], [2], [3]]))
    assert [entry.ok for entry in result.results] == [True, False, True]
    assert result.results[0].value == {"x": [1, True, None, 1.5]}
    assert "KeyError" in (result.results[1].error or "")


@pytest.mark.parametrize(
    "body",
    [
        "return float('nan')",
        "return object()",
        "return {1, 2}",
        "x = []\n    x.append(x)\n    return x",
        "import sys; sys.exit(0)",
        "raise MemoryError",
        "return f(*args)",
    ],
)
def test_what_is_no_json_is_an_error_of_the_call(worker, body):
    result = worker.run(Job.function(f"def f(*args):\n    {body}", "f", [[1]]))
    assert result.status == "ok" and not result.results[0].ok


@pytest.mark.parametrize(
    "body", ["import os; os._exit(0)", "import os; os.write(3, b'[' * 100000); os._exit(0)"]
)
def test_no_or_forged_result_is_a_runtime_error(worker, body):
    assert worker.run(Job.function(f"def f():\n    {body}", "f", [[]])).status == "runtime_error"


def test_always_equal_comes_back_as_plain_json(worker):
    source = (
        "class E(int):\n    def __eq__(self, other): return True\n"
        "    __hash__ = int.__hash__\ndef f(): return E(3)"
    )
    value = worker.run(Job.function(source, "f", [[]])).results[0].value
    assert type(value) is int and value != 4


def test_files_are_written_into_a_fresh_box(tier_worker):
    files = {
        "pkg/__init__.py": "",
        "pkg/a.py": "def f(x):\n    return open('data.txt').read() + x",
        "data.txt": "d",
    }
    result = tier_worker.run(Job.in_files(files, [Call("f", ["x"], "pkg.a"), Call("g", [], "pkg.a")]))
    assert result.results[0].value == "dx" and not result.results[1].ok
    leave = (
        "import os\n"
        "os.makedirs('a/b'); open('a/b/c', 'w').write('x'); os.symlink('/', 'l'); print(os.listdir('.'))"
    )
    for _ in range(2):
        assert sorted(eval_list(run(tier_worker, leave, files={"t": ""}).stdout)) == ["a", "l", "t"]


def eval_list(text):
    return json.loads(text.replace("'", '"'))


def test_a_deep_and_locked_tree_is_cleaned_up(worker):
    deep = (
        "import os\nfor _ in range(900): os.mkdir('d', 0); os.chdir('d') if os.access('d', 1) else None\n"
        "print(1)"
    )
    run(worker, deep, files={"t": ""})
    nest = (
        "import os\ntry:\n  for _ in range(3000): os.mkdir('d'); os.chdir('d')\n"
        "except OSError as e: print(e)\nprint(1)"
    )
    # Deeper than a path may be long: whether the watch sees it before the job ends is a matter of milliseconds.
    assert run(worker, nest, files={"t": ""}).status in ("ok", "output_limit")
    assert run(worker, "print(1)", files={"t": ""}).stdout == "1\n"
    assert worker.restarts == 0


@pytest.mark.parametrize("path", ["/etc/x", "../x", "a/../../x", "", "a\0b"])
def test_paths_that_leave_the_box_are_refused(path):
    with pytest.raises(ValueError, match="relative path"):
        Job.program("", files={path: ""})


def test_an_oversized_file_is_the_jobs_fault(worker):
    assert run(worker, "print(1)", files={"big": "x" * 1_000_000}).status == "runtime_error"


def test_the_next_job_finds_nothing_of_the_last(worker):
    run(worker, "import builtins, json; builtins.LEFT = 1; json.LEFT = 1; SECRET = 'hidden-needle'")
    look = (
        "import builtins, json, gc\nprint(hasattr(builtins, 'LEFT') or hasattr(json, 'LEFT'))\n"
        "needle = 'hidden-' + 'needle'\nprint(any(o is not needle and isinstance(o, str) and needle in o "
        "for d in gc.get_objects() if isinstance(d, dict) for o in d.values()))"
    )
    assert run(worker, look).stdout == "False\nFalse\n"


def test_verdicts_do_not_depend_on_luck(worker):
    source = "import random\nprint(random.random(), hash('a'), list({'a', 'b', 'c'}))"
    assert len({run(worker, source).stdout for _ in range(3)}) == 1


def test_many_jobs_keep_their_order(worker):
    results = worker.run_many([Job.program("print(int(input()) ** 2)", str(i)) for i in range(60)])
    assert [int(result.stdout) for result in results] == [i * i for i in range(60)]


def test_threads_share_a_worker(worker):
    outputs = {}

    def task(number):
        outputs[number] = run(worker, "print(input())", str(number)).stdout.strip()

    threads = [threading.Thread(target=task, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert outputs == {number: str(number) for number in range(8)}


@pytest.mark.usefixtures("sandbox_here")
def test_a_thread_that_ends_does_not_take_the_worker_with_it():
    opened = []
    thread = threading.Thread(target=lambda: opened.append(detect_worker()))
    thread.start()
    thread.join(30)
    with opened[0] as worker:
        assert run(worker, "print(1)").stdout == "1\n" and worker.restarts == 0


def detect_worker():
    return SandboxWorker(limits=Limits(cpu_seconds=1, wall_seconds=3.0))


@pytest.mark.usefixtures("sandbox_here")
def test_a_killed_zygote_is_replaced_and_its_job_tried_again():
    with detect_worker() as worker:
        timer = threading.Timer(0.3, lambda: os.killpg(worker.zygote_pids["code"], signal.SIGKILL))
        timer.start()
        results = worker.run_many(
            [Job.program("import time; time.sleep(1); print(1)"), Job.program("print(2)")]
        )
        assert [result.stdout for result in results] == ["1\n", "2\n"]
        assert worker.restarts == 1


@pytest.mark.usefixtures("sandbox_here")
def test_a_zygote_that_keeps_dying_makes_the_job_invalid():
    with detect_worker() as worker:
        stop = threading.Event()

        def killer():
            while not stop.wait(0.15):
                for pid in worker.zygote_pids.values():
                    try:
                        os.killpg(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        continue

        thread = threading.Thread(target=killer)
        thread.start()
        result = run(worker, "import time; time.sleep(2)")
        stop.set()
        thread.join()
        assert result.status == "sandbox_error"
        assert run(worker, "print(1)").stdout == "1\n"


@pytest.mark.usefixtures("sandbox_here")
def test_nothing_is_left_behind():
    def descriptors():
        return len(os.listdir("/proc/self/fd"))

    before = descriptors()
    for _ in range(3):
        with detect_worker() as worker:
            run(worker, "print(1)", files={"a": "b"})
            pids = list(worker.zygote_pids.values())
        for pid in pids:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)
    assert descriptors() == before
    with pytest.raises(RuntimeError, match="closed"):
        run(worker, "print(1)")


@pytest.mark.usefixtures("sandbox_here")
def test_the_zygote_ends_with_its_owner():
    source = (
        "from rewards.sandbox import SandboxWorker, Job\nimport os, threading\n"
        "w = SandboxWorker()\nprint(w.zygote_pids['code'], flush=True)\n"
        "threading.Timer(0.5, lambda: os.kill(os.getpid(), 9)).start()\n"
        "w.run(Job.program('import time; time.sleep(30)'))"
    )
    detect_worker().close()
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=30)
    pid = int(done.stdout)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and os.path.exists(f"/proc/{pid}"):
        time.sleep(0.05)
    assert not os.path.exists(f"/proc/{pid}") or "Z" in Path(f"/proc/{pid}/stat").read_text()


@pytest.mark.usefixtures("sandbox_here")
def test_trusted_calls_are_killed_too():
    limits = Limits(cpu_seconds=1, wall_seconds=1.5, memory_bytes=1 << 30)
    with SandboxWorker(trusted_limits=limits, preload=()) as worker:
        assert worker.run(Job.trusted_call("math:gcd", 12, 18)).results[0].value == 6
        assert worker.run(Job.trusted_call("time:sleep", 30)).status == "wall_limit"
        # A big-integer power holds the interpreter lock: no thread and no alarm could end it.
        assert worker.run(Job.trusted_call("operator:pow", 7, 10**9)).status in (
            "cpu_limit",
            "wall_limit",
            "memory",
        )
        assert worker.run(Job.trusted_call("builtins:open", "/etc/passwd")).status == "runtime_error"
        assert worker.run(Job.trusted_call("math:nothing")).status == "runtime_error"


def test_untrusted_code_cannot_see_the_graders(worker):
    result = run(worker, "import rewards")
    assert result.status == "runtime_error" and "No module named" in result.stderr


def test_the_working_copy_may_lie_below_tmp(tiers_here, monkeypatch):
    """A box has a /tmp of its own, which must not hide what is bound into it: the sandbox's own code, and packages."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        shutil.copytree(tiers.HERE, Path(folder) / "sandbox")
        (Path(folder) / "packages").mkdir()
        (Path(folder) / "packages" / "mine.py").write_text("def double(x): return 2 * x\n")
        monkeypatch.setattr(tiers, "HERE", Path(folder) / "sandbox")
        for tier in tiers_here:
            with SandboxWorker(tier, trusted_paths=[f"{folder}/packages"], preload=["mine"]) as worker:
                assert run(worker, "print(1)").stdout == "1\n"
                listed = run(worker, "import os; print(os.listdir('/tmp'))")
                assert listed.status == "runtime_error" or folder.split("/")[2] not in listed.stdout
                result = worker.run(Job.trusted_call("mine:double", 21))
                assert result.results[0].value == 42


def test_libraries_outside_of_site_packages_are_found(tmp_path, monkeypatch):
    (tmp_path / "math_verify").mkdir()
    (tmp_path / "math_verify" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "math_verify", raising=False)
    found = worker_module._site_packages.__wrapped__()
    assert str(tmp_path) in found and all(Path(path).is_dir() for path in found)


def test_detect_tier_tells_what_it_measured():
    report = detect_tier()
    assert set(report.details) == set(tiers.TIERS)
    assert (report.tier == "bubblewrap") == (report.why_not_higher == "")


def test_a_machine_without_bubblewrap_falls_back_and_says_why(monkeypatch):
    monkeypatch.setattr(tiers.shutil, "which", lambda name: None)
    with pytest.raises(SandboxUnavailable, match="not installed"):
        SandboxWorker("bubblewrap")
    report = detect_tier()
    assert report.tier in ("landlock", None) and "not installed" in report.why_not_higher


def test_a_machine_with_nothing_is_refused(monkeypatch):
    monkeypatch.setattr(tiers, "interpreter", lambda: "/nonexistent/python")
    monkeypatch.setattr(tiers.shutil, "which", lambda name: None)
    with pytest.raises(SandboxUnavailable, match="no sandbox for untrusted code works"):
        SandboxWorker()


def test_the_network_of_the_host_is_out_of_reach(tier_worker):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        result = run(
            tier_worker, f"import socket; socket.create_connection(('127.0.0.1', {port}), 1); print('OUT')"
        )
    assert "OUT" not in result.stdout and "PermissionError" in result.stderr
