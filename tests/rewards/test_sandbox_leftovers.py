"""Nothing is left of hundreds of jobs, killed ones among them: no process, file, mount, descriptor or control group."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from benchmarks.sandbox_worker import Traces, job_mix, traces
from rewards.sandbox import Limits, SandboxWorker

FAST = Limits(cpu_seconds=1, wall_seconds=0.3, output_bytes=200_000)


@pytest.mark.parametrize("tier", ["bubblewrap", "landlock"])
def test_nothing_is_left_of_five_hundred_jobs(tier, tiers_here, tmp_path, monkeypatch):
    if tier not in tiers_here:
        pytest.skip(f"the machine can not do {tier}")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = traces()
    with SandboxWorker(tier, FAST) as worker:
        idle = traces(worker)
        jobs = job_mix(500)
        results = worker.run_many(jobs)
        assert traces(worker) == idle
        zygote = worker.zygote_pids["code"]
        assert worker.restarts == 0
        os.killpg(zygote, signal.SIGKILL)
        assert worker.run(jobs[0]).status == "ok"
        assert worker.restarts == 1
    assert traces() == before
    statuses = {result.status for result in results}
    assert statuses >= {"ok", "runtime_error", "wall_limit", "output_limit", "memory"}
    assert "sandbox_error" not in statuses


@pytest.mark.usefixtures("sandbox_here")
@pytest.mark.parametrize("seconds", ["0.02", "0.05", "0.08", "0.6"])
def test_a_killed_owner_leaves_nothing(seconds, tmp_path):
    """The owner dies by SIGKILL while its helper is only starting, and while jobs run."""
    source = (
        "import os, sys, threading\nfrom rewards.sandbox import Job, SandboxWorker\n"
        "threading.Timer(float(sys.argv[1]), lambda: os.kill(os.getpid(), 9)).start()\n"
        "worker = SandboxWorker('landlock')\n"
        "worker.run_many([Job.program('import time; time.sleep(60)', files={'a': 'b'})] * 2)\n"
    )
    surroundings = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", source, seconds]
    owner = subprocess.Popen(command, cwd=Path(__file__).parents[2], env=surroundings)
    assert owner.wait(60) == -signal.SIGKILL
    deadline = time.monotonic() + 10
    while (os.listdir(tmp_path) or helpers(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert os.listdir(tmp_path) == [] and helpers(tmp_path) == []
    # Control groups can not go with their last process; the next worker sweeps them away.
    SandboxWorker("landlock").close()
    assert not list(Path("/sys/fs/cgroup").glob(f"**/polymath-sandbox-{owner.pid}-*"))


def helpers(folder):
    """Processes that were told to keep their boxes in a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and str(folder).encode() in (entry / "cmdline").read_bytes():
                found.append(entry.name)
        except OSError:
            continue
    return found


def test_traces_are_plain_numbers():
    found = traces()
    assert isinstance(found, Traces) and json.loads(json.dumps(vars(found))) == vars(found)
