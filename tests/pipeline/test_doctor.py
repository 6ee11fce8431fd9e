"""The examination of installation and machine."""

import importlib.metadata
import json
import subprocess
import sys
import types

import pytest
import typer.testing

from pipeline import doctor
from pipeline.cli import app


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


def fake_sandbox(monkeypatch, detect):
    module = types.ModuleType("rewards.sandbox")
    module.detect_tier = detect
    monkeypatch.setitem(sys.modules, "rewards.sandbox", module)


def test_a_sound_machine(checks_of, monkeypatch):
    report = types.SimpleNamespace(tier="landlock", details={}, why_not_higher="bubblewrap is not installed")
    fake_sandbox(monkeypatch, lambda: report)
    checks = checks_of()
    assert checks["torch build"].detail == "2.13.0, CPU build, threads: 2"
    assert (checks["sandbox"].verdict, checks["sandbox"].detail) == ("ok", "landlock")
    assert checks["disk"].verdict == "ok"


def test_a_broken_sandbox_and_torch_are_findings_not_crashes(checks_of, monkeypatch):
    def broken():
        raise OSError("no namespaces")

    fake_sandbox(monkeypatch, broken)
    checks = checks_of("ImportError: libtorch.so")
    assert checks["sandbox"].verdict == "failed"
    assert "no namespaces" in checks["sandbox"].detail
    assert checks["torch build"].verdict == "failed"
    fake_sandbox(monkeypatch, lambda: types.SimpleNamespace(tier=None, why_not_higher="no Landlock either"))
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
