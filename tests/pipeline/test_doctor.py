"""The examination of installation and machine."""

import importlib.metadata
import json
import subprocess

import pytest
import typer.testing

from pipeline import doctor
from pipeline.cli import app
from pipeline.sandboxes import Examination
from rewards.sandbox import AttackResult


@pytest.fixture
def checks_of(monkeypatch, tmp_path):
    """All checks by name, without starting a torch; `torch` is what its probe would say."""

    def run(torch: dict | str | None = None):
        facts = torch or {"version": "2.13.0", "cuda_build": None, "threads": 2, "gpus": []}
        answer = (
            facts if isinstance(facts, str) else subprocess.CompletedProcess([], 0, json.dumps(facts), "")
        )
        monkeypatch.setattr(doctor, "_probe", lambda code: answer)
        return {check.name: check for check in doctor.run_checks(tmp_path)}

    return run


@pytest.fixture(autouse=True)
def sandbox(monkeypatch):
    """What the examination of the sandbox would find; the real one takes seconds."""
    found = {"tier": "bubblewrap", "url": None, "why_not_higher": "", "limits": (), "attacks": (attack("fork"),)}

    def examine():
        if isinstance(found["tier"], Exception):
            raise found["tier"]
        return Examination(**found)

    monkeypatch.setattr("pipeline.sandboxes.examine", examine)
    return found


def attack(name, stopped=True, area="processes"):
    return AttackResult(area, name, stopped, "runtime_error: [Errno 1]")


def test_a_sound_machine(checks_of, sandbox):
    sandbox |= {"tier": "landlock", "why_not_higher": "bubblewrap is not installed", "limits": ("no cgroup",)}
    sandbox["attacks"] = (attack("fork"), attack("exec"), attack("read", area="files"))
    checks = checks_of()
    assert checks["torch build"].detail == "2.13.0, CPU build, threads: 2"
    assert vars(checks["sandbox"]) == {
        "name": "sandbox",
        "verdict": "ok",
        "detail": "landlock; not stopped by it: no cgroup",
        "advice": "bubblewrap is not installed",
    }
    assert checks["sandbox: processes"].detail == "2 of 2 attacks stopped"
    assert checks["sandbox: files"].detail == "1 of 1 attacks stopped"
    assert checks["disk"].verdict == "ok"


def test_an_attack_that_gets_through_fails_and_is_named(checks_of, sandbox):
    sandbox["attacks"] = (attack("fork"), attack("exec", stopped=False))
    check = checks_of()["sandbox: processes"]
    assert (check.verdict, check.detail) == (
        "failed",
        "1 of 2 attacks stopped; processes: exec (runtime_error: [Errno 1])",
    )
    shown = typer.testing.CliRunner().invoke(app, ["doctor", "--attacks"])
    assert shown.exit_code == 3 and "exec" in shown.output and "[Errno 1]" in shown.output
    rows = json.loads(typer.testing.CliRunner().invoke(app, ["doctor", "--attacks", "--json"]).stdout)["attacks"]
    assert [row["stopped"] for row in rows] == [True, False]


def test_a_broken_sandbox_and_torch_are_findings_not_crashes(checks_of, sandbox):
    sandbox["tier"] = OSError("no namespaces")
    checks = checks_of("ImportError: libtorch.so")
    assert checks["sandbox"].verdict == "failed"
    assert "no namespaces" in checks["sandbox"].detail
    assert checks["torch build"].verdict == "failed"
    sandbox |= {"tier": None, "why_not_higher": "no Landlock either", "attacks": ()}
    assert checks_of()["sandbox"].advice == "no Landlock either"


def test_a_gpu_that_torch_can_not_use_is_a_warning(checks_of, monkeypatch):
    monkeypatch.setattr(doctor, "gpus", lambda: 2)
    assert checks_of()["GPU"].verdict == "warning"


def test_packages_are_held_against_their_ranges(checks_of, monkeypatch):
    wanted = ["rich>=14", "omegaconf<2", "no-such-package>=1", "absent-extra>=1; extra == 'gpu'"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: wanted)
    checks = checks_of()
    assert checks["rich"].verdict == "ok"
    assert checks["omegaconf"].verdict == "failed"
    assert checks["no-such-package"].detail == "not installed"
    assert "absent-extra" not in checks


def test_the_probe_gives_the_last_line_of_complaint():
    assert doctor._probe("raise ImportError('broken  build')") == "ImportError: broken build"
    done = doctor._probe("print(42)")
    assert not isinstance(done, str)
    assert done.stdout == "42\n"


def test_exit_code_and_json(monkeypatch):
    bad = doctor.Check("disk", "failed", "0.1 GiB free", "Free at least 1 GiB.")
    good = doctor.Check("Python", "ok", "3.12.1")
    runner = typer.testing.CliRunner()
    monkeypatch.setattr(doctor, "run_checks", lambda folder, ray: [good, bad])
    result = runner.invoke(app, ["doctor", "--json"])
    assert result.exit_code == 3
    assert json.loads(result.stdout)["checks"][1]["advice"] == "Free at least 1 GiB."
    assert "1 of 2 checks failed" in runner.invoke(app, ["doctor"]).output
    monkeypatch.setattr(doctor, "run_checks", lambda folder, ray: [good])
    assert runner.invoke(app, ["doctor"]).exit_code == 0
