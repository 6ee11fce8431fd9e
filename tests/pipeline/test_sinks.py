"""The metrics reach the viewers that were asked for, and a viewer that is down stops nothing."""

import logging
import types

import numpy as np
import pytest

from pipeline.conductor import run_stages
from pipeline.config import load_config
from pipeline.config.layers import ConfigError
from pipeline.config.validate import SINK_NAMES
from pipeline.errors import ResourceError, UsageError
from pipeline.progress import NullProgress
from pipeline.runs import Run
from pipeline.runs.events import Events
from pipeline.runs.sinks import SINKS, Sinks


class FakeRun:
    """What `init` of trackio and wandb gives back, as far as it is used."""

    def __init__(self, **arguments):
        self.arguments, self.logged, self.axes, self.finished = arguments, [], {}, False

    def log(self, metrics, step=None):
        self.logged.append((step, metrics))

    def define_metric(self, name, step_metric):
        self.axes[name] = step_metric

    def finish(self):
        self.finished = True


@pytest.fixture
def fake(monkeypatch):
    """`fake(name)` puts a package of that name in place and gives the list of the runs it began."""

    def install(name):
        begun = []
        module = types.ModuleType(name)
        module.__spec__ = types.SimpleNamespace(name=name)
        module.init = lambda **arguments: begun.append(FakeRun(**arguments)) or begun[-1]
        module.Settings = dict
        monkeypatch.setitem(__import__("sys").modules, name, module)
        return begun

    return install


def test_the_settings_know_every_sink():
    assert set(SINK_NAMES) == set(SINKS)


def test_trackio_gets_numbers_under_stage_and_domain(tmp_path, fake):
    begun = fake("trackio")
    events = Events(tmp_path / "events.jsonl")
    events.sinks = Sinks(["trackio"], tmp_path, "mine", {"seed": 1})
    events.log("specialists", 3, "math", reward=0.5, note="text", done=True, tokens=np.int64(7))
    events.log("base", 0, loss=np.float32(2.0))
    events.close()
    (run,) = begun
    assert run.logged == [
        (3, {"specialists/math/reward": 0.5, "specialists/math/tokens": 7.0}),
        (0, {"base/loss": 2.0}),
    ]
    assert run.finished
    assert (run.arguments["project"], run.arguments["resume"], run.arguments["config"]) == (
        "mine", "allow", {"seed": 1},
    )  # fmt: skip
    assert len(events.read()) == 2


def test_wandb_gets_an_axis_per_stage_and_domain_and_the_same_run_again(tmp_path, fake):
    begun = fake("wandb")
    for _ in range(2):
        sinks = Sinks(["wandb"], tmp_path, "mine")
        for step in range(2):
            sinks.log("grpo", "mixed", step, {"reward": 0.25})
        sinks.close()
    first, second = begun
    assert first.arguments["id"] == second.arguments["id"]
    assert first.axes == {"grpo/mixed/*": "grpo/mixed/step"}
    assert first.logged[1] == (None, {"grpo/mixed/step": 1, "grpo/mixed/reward": 0.25})


def test_tensorboard_writes_what_its_own_reader_finds(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    sinks = Sinks(["tensorboard"], tmp_path)
    for step in range(3):
        sinks.log("grpo", "math", step, {"reward": step / 4})
    sinks.close()
    found = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(one.step, one.value) for one in found.Scalars("grpo/math/reward")] == [(0, 0.0), (1, 0.25), (2, 0.5)]


def test_trackio_itself_takes_them(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio")
    for step in range(2):  # the second time it goes on with the first's run
        sinks = Sinks(["trackio"], tmp_path / "run", "mine", {"seed": 1})
        sinks.log("grpo", "math", step, {"reward": 0.5})
        sinks.close()
    assert list((tmp_path / "trackio").glob("mine*"))


def test_wandb_itself_takes_them_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    pytest.importorskip("wandb")
    sinks = Sinks(["wandb"], tmp_path, "mine", {"seed": 1})
    sinks.log("grpo", "math", 0, {"reward": 0.5})
    sinks.close()
    assert list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))


def test_a_sink_that_fails_is_named_and_left_out(tmp_path, fake, caplog):
    begun = fake("trackio")
    events = Events(tmp_path / "events.jsonl")
    events.sinks = Sinks(["trackio"], tmp_path)
    begun[0].log = lambda *_, **__: 1 / 0
    with caplog.at_level(logging.ERROR):
        for step in range(3):
            events.log("base", step, loss=1.0)
    assert [record.getMessage() for record in caplog.records] == [
        "metrics.sinks: trackio failed and gets nothing more in this run"
    ]
    assert len(events.read()) == 3


def test_a_sink_that_does_not_start_stops_before_the_first_stage(tmp_path, fake):
    begun = fake("trackio")
    fake("wandb")
    __import__("wandb").init = lambda **_: (_ for _ in ()).throw(RuntimeError("no login"))
    with pytest.raises(ResourceError, match="wandb did not start: no login"):
        Sinks(["trackio", "wandb"], tmp_path)
    assert begun[0].finished


def test_a_run_fills_its_sinks(tmp_path, fakes, fake):
    begun = fake("trackio")
    config, _ = load_config("smoke", [], ["metrics.sinks=[trackio]"])
    config.run = str(tmp_path / "run")
    run_stages(config, ["base"], progress=NullProgress())
    (run,) = begun
    assert run.finished
    assert {step for step, _ in run.logged} == {row["step"] for row in Run(config.run).events.read("base")}


def test_a_sink_that_is_not_installed_is_said_before_anything_is_written(tmp_path, monkeypatch):
    config, _ = load_config("smoke", [], ["metrics.sinks=[trackio,wandb]"])
    config.run = str(tmp_path / "run")
    monkeypatch.setattr("pipeline.runs.sinks.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"trackio, wandb are not installed; .*'polymath-rl\[trackio,wandb\]'"):
        run_stages(config, ["base"], progress=NullProgress())
    assert not (tmp_path / "run").exists()


def test_a_wrong_name_is_refused():
    with pytest.raises(ConfigError, match=r"must be a list of some of tensorboard, trackio, wandb, got .'tensorbord'"):
        load_config("smoke", [], ["metrics.sinks=[tensorbord]"])
