"""Training on programs of the policy is refused where the sandbox is too weak, and the manifest says what it was."""

import json
import sys

import pytest

from pipeline import sandboxes
from pipeline.conductor import run_stages
from pipeline.config import load_config
from pipeline.config.schema import SandboxConfig
from pipeline.errors import ResourceError
from pipeline.sandboxes import Examination
from rewards.sandbox import AttackResult, TierReport

STOPPED = AttackResult("processes", "fork", True, "runtime_error")
ESCAPED = AttackResult("files", "read /etc/passwd", False, "ok: ESCAPED")


def found(monkeypatch, tier="bubblewrap", attacks=(STOPPED,)):
    examination = Examination(tier, None, "bwrap is not installed", ("a limit",), attacks)
    monkeypatch.setattr(sandboxes, "examine", lambda url, token_env: examination)
    return examination


@pytest.mark.parametrize(
    ("tier", "min_tier", "refused"),
    [
        ("bubblewrap", "bubblewrap", False), ("bubblewrap", "landlock", False), ("landlock", "landlock", False),
        ("landlock", "bubblewrap", True), (None, "landlock", True),
    ],
)  # fmt: skip
def test_a_tier_below_the_configured_one_is_refused_with_the_reason(monkeypatch, tier, min_tier, refused):
    found(monkeypatch, tier)
    config = SandboxConfig(min_tier=min_tier)
    if not refused:
        assert sandboxes.require(config).tier == tier
        return
    with pytest.raises(ResourceError, match=f"tier {tier or 'none'}, .*asks for {min_tier}: bwrap is not installed"):
        sandboxes.require(config)
    monkeypatch.setattr(sandboxes, "detect_tier", lambda: TierReport(tier, {}, "bwrap is not installed"))
    with pytest.raises(ResourceError, match="bwrap is not installed"):
        sandboxes.open_sandbox(config)


def test_an_attack_that_gets_through_is_refused_and_named(monkeypatch):
    found(monkeypatch, attacks=(STOPPED, ESCAPED))
    with pytest.raises(ResourceError, match=r"files: read /etc/passwd \(ok: ESCAPED\).*doctor --attacks"):
        sandboxes.require(SandboxConfig())


@pytest.fixture
def config(fakes, monkeypatch, tmp_path):
    """Settings of a run whose stages are fakes, and whose sandbox is not."""
    monkeypatch.setitem(sys.modules, "pipeline.sandboxes", sandboxes)
    return load_config("tiny", overrides=[f"run={tmp_path / 'run'}", "base.steps=2"])[0]


def test_the_run_is_refused_before_its_first_stage(config, monkeypatch, tmp_path):
    found(monkeypatch, "landlock")
    config.sandbox.min_tier = "bubblewrap"
    with pytest.raises(ResourceError, match=r"sandbox\.min_tier asks for bubblewrap"):
        run_stages(config, ["grpo"])
    assert not (tmp_path / "run" / "base").exists()
    # What tries no tasks needs no sandbox.
    assert run_stages(config, ["base"])[0].state == "done"


def test_the_manifest_says_which_sandbox_it_was(config, monkeypatch, tmp_path):
    examination = found(monkeypatch)
    run_stages(config, ["specialists"])
    manifest = json.loads((tmp_path / "run" / "specialists" / "manifest.json").read_text())
    assert manifest["sandbox"] == json.loads(json.dumps(examination.record()))
    assert manifest["sandbox"] == {
        "tier": "bubblewrap", "url": None, "why_not_higher": "bwrap is not installed", "limits": ["a limit"],
        "attacks": 1, "not_stopped": [],
    }  # fmt: skip
    assert json.loads((tmp_path / "run" / "base" / "manifest.json").read_text())["sandbox"] == {}


def test_where_the_sandbox_is_does_not_change_what_comes_out(config, monkeypatch):
    found(monkeypatch)
    run_stages(config, ["specialists"])
    config.sandbox.url, config.sandbox.token_env = "http://elsewhere:1", "OTHER"
    assert {outcome.state for outcome in run_stages(config, ["specialists"])} == {"cached"}
    config.sandbox.cpu_s += 1
    assert run_stages(config, ["specialists"])[-1].state == "done"


def test_this_machine_is_examined_for_real(tmp_path):
    examination = sandboxes.examine()
    if examination.tier is None:
        pytest.skip("the machine can do no tier of the sandbox")
    assert examination.not_stopped == []
    assert sum(count for _, count in examination.areas().values()) == len(examination.attacks) > 100
    assert sandboxes.examine() is examination
