"""The attack list: each attack is stopped in each tier, as this user and as an ordinary one; and a hole is noticed."""

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

import rewards
from rewards.sandbox import Limits, SandboxWorker, self_test, selftest, tiers
from rewards.sandbox.attack import ESCAPED, Attack, Bait
from rewards.sandbox.attacks import attacks, cpp_attacks
from rewards.sandbox.records import Job, JobResult
from rewards.sandbox.selftest import descendants

SHORT = Limits(cpu_seconds=1, wall_seconds=1.0)
NOBODY = 65534

AS_ORDINARY_USER = """
import json, os, sys
from rewards.sandbox import Limits, SandboxWorker, self_test
with SandboxWorker(sys.argv[1], Limits(cpu_seconds=1, wall_seconds=1.0)) as worker:
    report = self_test(worker)
print(json.dumps([os.getuid(), worker.tier, len(report), [vars(a) for a in report if not a.stopped]]))
"""


@pytest.mark.parametrize("tier", tiers.TIERS)
def test_every_attack_is_stopped(tier, tiers_here):
    if tier not in tiers_here:
        pytest.skip(f"the machine can not do {tier}")
    with SandboxWorker(tier, SHORT, parallel=3) as worker:
        report = self_test(worker)
    assert [attack for attack in report if not attack.stopped] == []
    counts = Counter(attack.area for attack in report)
    assert min(counts.values()) >= 3
    areas = "processes memory files secrets network kernel time output aftermath"
    assert set(counts) >= set(areas.split())
    assert ("C++" in counts) == (tier == "bubblewrap" and shutil.which("g++", path="/usr/bin:/bin") is not None)


@pytest.mark.parametrize(
    ("first", "again", "stopped", "tries"),
    [
        (JobResult("wall_limit"), JobResult("ok", stdout="[Errno 1]"), True, 1),
        (JobResult("cpu_limit"), JobResult("cpu_limit"), False, 2),
        (JobResult("wall_limit"), JobResult("ok", stdout=ESCAPED), False, 1),
        (JobResult("wall_limit", stdout=ESCAPED), JobResult("ok"), False, 0),
        (JobResult("sandbox_error"), JobResult("ok"), False, 0),
        (JobResult("runtime_error"), JobResult("ok", stdout=ESCAPED), True, 0),
    ],
)
def test_an_attack_that_the_clock_ended_is_tried_again(first, again, stopped, tries):
    asked = []
    worker = SimpleNamespace(limits=SHORT, run=lambda job: asked.append(job) or again)
    report = selftest._judged(worker, "memory", Attack("a pipe", Job.program("")), first)
    assert (report.stopped, len(asked)) == (stopped, tries)


@pytest.mark.skipif(os.getuid() != 0, reason="this run is an ordinary user already")
@pytest.mark.parametrize("tier", tiers.TIERS)
def test_every_attack_of_an_ordinary_user_is_stopped(tier, tiers_here):
    python = interpreter_for_all()
    if tier not in tiers_here or python is None or shutil.which("setpriv") is None:
        pytest.skip("needs the tier, setpriv and a Python that everybody may start")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        shutil.copytree(Path(rewards.__file__).parent, Path(folder) / "rewards")
        subprocess.run(["chmod", "-R", "a+rX", folder], check=True)
        user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all"]
        done = subprocess.run(
            [*user, python, "-c", AS_ORDINARY_USER, tier],
            env={"PATH": "/usr/bin:/bin", "HOME": "/tmp", "PYTHONPATH": folder}, cwd=folder,
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
    user_id, reached, count, failed = json.loads(done.stdout)
    assert (user_id, reached, failed) == (NOBODY, tier, []) and count > 100


def interpreter_for_all():
    """A Python that is not below a folder of root's."""
    for path in (tiers.interpreter(), shutil.which("python3", path="/usr/bin:/usr/local/bin")):
        if path and all(parent.stat().st_mode & 0o001 for parent in Path(path).resolve().parents):
            asked = [path, "-c", "import sys; print(sys.version_info >= (3, 11))"]
            if subprocess.run(asked, capture_output=True).stdout.strip() == b"True":
                return path
    return None


HOLES = {
    # A system call that the filter forgets (the namespace still keeps the host's network away).
    "sockets": ("inside/syscalls.py", r'"socket": \d+, ', "", "netlink"),
    "memfd": ("inside/syscalls.py", r'"memfd_create": \d+, ', "", "system call memfd_create"),
    "flags": ("inside/filters.py", r'"F_SETPIPE_SZ": 1031', "", "a large pipe"),
    "box": ("inside/watch.py", r'entries > limits\["box_entries"\]', "False", "fill the box with empty files"),
    "size": ("inside/watch.py", r'size > limits\["box_bytes"\]', "False", "fill the box"),
    "memory": ("inside/confine.py", r"resource.RLIMIT_AS, ", "resource.RLIMIT_CORE, ", "shared memory"),
    "reading": ("inside/confine.py", r"self._allow\(ruleset, path, ", 'self._allow(ruleset, "/", ', "list processes"),
    "descriptors": ("inside/jobs.py", r"os.closerange\(.*\)", "pass", "use inherited descriptors"),
    "output": ("inside/confine.py", r"resource.RLIMIT_FSIZE, ", "resource.RLIMIT_CORE, ", "flood"),
}


@pytest.mark.parametrize("hole", HOLES)
def test_a_hole_is_noticed(hole, tiers_here, monkeypatch):
    """Each wall taken away in a copy of the sandbox's inner code, in the tier where nothing else can be harmed."""
    if "bubblewrap" not in tiers_here:
        pytest.skip("the machine can not do bubblewrap")
    file, pattern, replacement, name = HOLES[hole]
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(tiers.HERE, Path(folder) / "sandbox")
        target = Path(folder) / "sandbox" / file
        text = target.read_text()
        target.write_text(re.sub(pattern, replacement, text))
        assert target.read_text() != text
        monkeypatch.setattr(tiers, "HERE", Path(folder) / "sandbox")
        with SandboxWorker("bubblewrap", Limits(cpu_seconds=3, wall_seconds=6.0)) as worker:
            bait = Bait("/tmp/none", 99, 1, "none", "0123456789abcdef")
            listed = [attack for found in attacks(bait).values() for attack in found if name in attack.name]
            assert listed
            results = worker.run_many([attack.job for attack in listed])
    stopped = [
        "ESCAPED" not in result.stdout and result.status in attack.ends
        for attack, result in zip(listed, results, strict=True)
    ]
    assert not all(stopped)


def test_attacks_have_names_of_their_own():
    bait = Bait("/tmp/none", 99, 1, "none", "0123456789abcdef")
    names = [(area, attack.name) for area, found in attacks(bait).items() for attack in found]
    names += [("C++", attack.name) for attack in cpp_attacks()]
    assert len(set(names)) == len(names) > 100


def test_the_weaknesses_of_a_tier_are_named():
    assert tiers.limits_of("bubblewrap", 7, "", True) == ()
    (no_cgroup,) = tiers.limits_of("bubblewrap", 7, "Permission denied", True)
    assert "memory is bounded per process times the one process that seccomp allows" in no_cgroup
    weak = " ".join(tiers.limits_of("landlock", 3, "none", False))
    for word in ("threads are not counted", "whether a path exists", "watching", "signals", "TCP"):
        assert word in weak


@pytest.mark.usefixtures("sandbox_here")
def test_descendants_are_counted():
    with SandboxWorker(limits=SHORT) as worker:
        worker.run_many([])
        idle = descendants(worker)
        assert worker.zygote_pids["code"] not in idle
    assert descendants(worker) == set()
