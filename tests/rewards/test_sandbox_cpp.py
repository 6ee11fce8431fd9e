"""C++: compiled once, in the strongest tier, and run with the rights of any other job."""

import os
import shutil
import time
from pathlib import Path

import pytest

from rewards.sandbox import Job, Limits, SandboxUnavailable, SandboxWorker
from rewards.sandbox import compiled as compiled_module
from rewards.sandbox.compiled import CompiledPrograms, compile_job, find_compiler, not_compiled
from rewards.sandbox.records import JobResult
from rewards.sandbox.selftest import descendants

FAST = Limits(cpu_seconds=1, wall_seconds=3.0, output_bytes=200_000)
SUM = "#include <iostream>\nint main() { long a, b; std::cin >> a >> b; std::cout << a + b << '\\n'; }"


@pytest.fixture(scope="module")
def cpp(tiers_here):
    if "bubblewrap" not in tiers_here or shutil.which("g++", path="/usr/bin:/bin") is None:
        pytest.skip("needs bubblewrap and g++")
    with SandboxWorker("bubblewrap", FAST) as worker:
        yield worker


def program(body, *headers):
    # Small headers: most of a test's time is the compiler's.
    return "".join(f"#include <{name}>\n" for name in ("cstdio", *headers)) + f"int main() {{ {body} }}"


def test_a_source_is_compiled_once_and_run_many_times(cpp, monkeypatch):
    compiled = []
    monkeypatch.setattr(
        "rewards.sandbox.worker.compile_job", lambda source, path: compiled.append(source) or compile_job(source, path)
    )
    results = cpp.run_many([Job.cpp(SUM, f"{n} 1") for n in range(8)])
    assert [result.stdout for result in results] == [f"{n + 1}\n" for n in range(8)]
    assert {result.status for result in results} == {"ok"}
    assert cpp.run(Job.cpp(SUM, "2 2")).stdout == "4\n"
    assert compiled == [SUM]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("return 3;", "runtime_error"),
        ("throw 1;", "runtime_error"),
        ("volatile int* p = nullptr; *p = 1;", "runtime_error"),
        ("volatile unsigned x = 0; for (;;) x = x + 1;", "cpu_limit"),
        ("sleep(60);", "wall_limit"),
        ("for (;;) puts(__FILE__);", "output_limit"),
        ("char* volatile p = new char[4ul << 30]; p[5] = 1;", "runtime_error"),
    ],
)
def test_how_programs_end(cpp, body, status):
    result = cpp.run(Job.cpp(program(body, "unistd.h")))
    assert result.status == status, result


def test_threads_work(cpp):
    body = "int s = 0; std::thread t([&] { s = 42; }); t.join(); return s == 42 ? 0 : 1;"
    assert cpp.run(Job.cpp(program(body, "thread"))).status == "ok"


def test_what_does_not_compile_says_why(cpp):
    good, bad, again = cpp.run_many([Job.cpp(SUM, "1 1"), Job.cpp("int main() { return nothing; }"), Job.cpp("")])
    assert good.stdout == "2\n"
    assert bad.status == again.status == "compile_error"
    assert "nothing" in bad.stderr and "was not declared" in bad.stderr
    assert "main" in again.stderr


@pytest.mark.parametrize(
    "source",
    [
        "template<int N> struct T { T<N + 1> t; }; T<0> t; int main() {}",
        '#include "/proc/self/environ"\nint main() {}',
        '#include "program.cpp"\n',
        "int a[1 << 30] = {1}; int main() {}",
    ],
    ids=["template", "environment", "itself", "large"],
)
def test_sources_that_attack_the_compiler(cpp, source):
    assert cpp.run(Job.cpp(source)).status == "compile_error"
    assert cpp.run(Job.program("print(1)")).stdout == "1\n" and cpp.restarts == 0


def test_a_compiler_that_never_ends_is_ended_with_all_it_started(cpp, monkeypatch):
    slow = Limits(cpu_seconds=20, wall_seconds=0.4, memory_bytes=2 << 30, output_bytes=16 << 20)
    monkeypatch.setattr("rewards.sandbox.worker.COMPILE_LIMITS", slow)
    result = cpp.run(Job.cpp("#include <bits/stdc++.h>\n#include <regex>\n" + SUM + "// slow"))
    assert result.status == "compile_error" and "0.4 s" in result.error
    deadline = time.monotonic() + 5
    while (left := compilers(cpp)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left


def compilers(worker):
    """Names of processes of the worker that belong to a compiler."""
    names = []
    for pid in descendants(worker):
        try:
            names.append(Path(f"/proc/{pid}/comm").read_text().strip())
        except OSError:
            continue
    return [name for name in names if name in ("g++", "cc1plus", "as", "ld", "collect2") or name.endswith("g++-12")]


def test_similar_sources_are_not_mixed_up(cpp):
    again = cpp.run_many([Job.cpp(program(f"puts({n} ? \"{n}\" : \"none\");")) for n in range(3)])
    assert [result.stdout for result in again] == ["none\n", "1\n", "2\n"]


@pytest.mark.usefixtures("sandbox_here")
def test_where_nothing_can_be_compiled_the_reason_is_told(tiers_here, monkeypatch):
    with pytest.raises(SandboxUnavailable, match="needs the sandbox tier bubblewrap"):
        find_compiler("landlock")
    monkeypatch.setattr(compiled_module.shutil, "which", lambda name, path: None)
    with pytest.raises(SandboxUnavailable, match="apt install g"):
        find_compiler("bubblewrap")
    with SandboxWorker(tiers_here[-1], FAST) as worker:
        results = worker.run_many([Job.cpp(SUM, "1 1"), Job.program("print(3)")])
    assert results[0].status == "sandbox_error" and "C++ needs" in results[0].error
    assert results[1].stdout == "3\n"


def test_programs_that_are_kept_are_the_newest(tmp_path):
    programs = CompiledPrograms()
    for number in range(20):
        programs.keep(str(number), os.open(tmp_path, os.O_RDONLY))
        programs.trim()
    programs.get("4")
    programs.keep("broken", JobResult("compile_error"))
    programs.keep("lost", JobResult("sandbox_error"))
    programs.trim()
    assert programs.get("3") is None and programs.get("lost") is None
    assert isinstance(programs.get("4"), int) and isinstance(programs.get("broken"), JobResult)
    programs.close()
    assert programs.get("19") is None


def test_what_the_sandbox_did_wrong_is_no_compile_error():
    lost = JobResult("sandbox_error", error="gone")
    assert not_compiled(lost) is lost
    assert not_compiled(JobResult("cpu_limit", error="used its 20 CPU seconds")).status == "compile_error"
