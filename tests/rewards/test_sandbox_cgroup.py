"""The control group of a sandbox: made where it may be, told why where not, gone afterwards."""

import os
import subprocess
from pathlib import Path

import pytest

from rewards.sandbox import Job, Limits, SandboxWorker
from rewards.sandbox import cgroup as cgroup_module
from rewards.sandbox.cgroup import Cgroup, make_cgroup


@pytest.fixture
def group():
    made = make_cgroup(256 << 20, 16)
    if not isinstance(made, Cgroup):
        pytest.skip(f"no cgroup may be made here: {made}")
    yield made
    made.remove()


@pytest.fixture
def pretended(tmp_path, monkeypatch):
    """A cgroup v2 that is an ordinary folder: files appear as they are written."""

    def pretend(own, handed_on):
        mount = tmp_path / "cgroup"
        for folder, controllers in handed_on.items():
            (mount / folder).mkdir(parents=True, exist_ok=True)
            (mount / folder / "cgroup.subtree_control").write_text(controllers)
        monkeypatch.setattr(cgroup_module, "_mounts", lambda: {"v2": mount})
        monkeypatch.setattr(cgroup_module, "_own_groups", lambda: {"": own})
        return mount

    return pretend


def test_the_command_runs_inside_and_the_group_goes(group):
    shown = subprocess.run(
        group.command(["cat", "/proc/self/cgroup"]), capture_output=True, text=True, timeout=10, check=True
    )
    assert group.folders[0].name in shown.stdout
    group.remove()
    assert not any(folder.exists() for folder in group.folders)


def test_processes_are_counted(group):
    many = "for i in $(seq 40); do sleep 1 & done 2>&1"
    done = subprocess.run(
        group.command(["sh", "-c", many]), capture_output=True, text=True, timeout=30
    )
    assert done.returncode != 0 and "fork" in (done.stdout + done.stderr).lower()


def test_a_worker_is_inside_one_and_leaves_none(group):
    with SandboxWorker(limits=Limits(threads=8)) as worker:
        made = worker._zygotes["code"].cgroup
        assert isinstance(made, Cgroup)
        pids = set((made.folders[0] / "cgroup.procs").read_text().split())
        assert str(worker.zygote_pids["code"]) in pids
        assert worker.run(Job.program("print(1)")).stdout == "1\n"
    assert not any(folder.exists() for folder in made.folders)


def test_v2_is_made_beside_this_process_where_controllers_are_handed_on(pretended):
    mount = pretended("/user/app/me", {"user/app": "cpu memory pids", "user/app/me": ""})
    made = make_cgroup(1000, 7)
    assert isinstance(made, Cgroup)
    assert made.folders[0].parent == mount / "user/app"
    assert (made.folders[0] / "memory.max").read_text() == "1000"
    assert (made.folders[0] / "pids.max").read_text() == "7"


def test_without_controllers_or_rights_the_reason_is_told(pretended, monkeypatch):
    pretended("/user/me", {"user": "cpu", "user/me": ""})
    assert make_cgroup(1000, 7) == "no cgroup with the controllers memory and pids is mounted"
    mount = pretended("/user/me", {"user": "memory pids", "user/me": ""})

    def refuse(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert "Permission denied" in make_cgroup(1000, 7) and str(mount) in make_cgroup(1000, 7)


def test_groups_of_the_dead_are_swept_and_those_of_the_living_are_not(pretended):
    mount = pretended("/", {"": "memory pids"})
    dead = mount / "polymath-sandbox-999999999-0"
    living = mount / f"polymath-sandbox-{os.getpid()}-x"
    dead.mkdir()
    living.mkdir()
    assert isinstance(make_cgroup(1000, 7), Cgroup)
    assert not dead.exists() and living.exists()
