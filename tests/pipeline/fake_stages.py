"""The command line with stages that take no time: `python fake_stages.py run all …` is `pipeline run all …`.

Each stage takes a few steps, commits every one, and chains a hash through them: the result tells whether a
step was lost or done twice. Environment: FAKE_DELAY seconds per step, FAKE_FAIL the stage that fails.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
import types
from collections.abc import Callable

from pipeline.runs import Artifact, write_json
from pipeline.stages import STAGES, StageContext, StageResult


class FakeRuntime:
    def shutdown(self) -> None:
        pass


class FakeExamination:
    def record(self) -> dict[str, object]:
        return {"tier": "fake", "attacks": 0, "not_stopped": []}


def run_fake(name: str, context: StageContext) -> StageResult:
    steps = context.config.base.steps if name == "base" else 3
    state_file = context.folder / "state.json"
    state = json.loads(state_file.read_text()) if state_file.exists() else {"step": 0, "value": ""}
    inputs = sorted(artifact.sha256 for needed in context.inputs.values() for artifact in needed.values())
    with context.progress.task("training", total=steps, start=state["step"]) as task:
        for step in range(state["step"] + 1, steps + 1):
            time.sleep(float(os.environ.get("FAKE_DELAY", "0")))
            if os.environ.get("FAKE_FAIL") == name and step == 2:
                raise ValueError("the fake stage was told to fail")
            value = hashlib.sha256(f"{state['value']} {step} {inputs}".encode()).hexdigest()
            with (context.folder.parent / "calls.log").open("a") as calls:
                calls.write(f"{name} {step}\n")
            context.events.log(name, step, domain="math", reward=step / steps)
            state = {"step": step, "value": value}
            write_json(state_file, state)
            task.advance(step, reward=step / steps, tokens_per_s=1000.0)
    write_json(context.folder / "result.json", state["value"])
    artifact = Artifact.of(context.folder / "result.json", "value", context.folder.parent)
    return StageResult({"result": artifact}, {"steps": steps}, {"reward": 1.0})


def install(set_item: Callable[[dict, str, types.ModuleType], None] = dict.__setitem__) -> None:
    """Puts the fakes where the real stages and the runtime would be imported from; tests pass
    `monkeypatch.setitem`, so that they go again."""
    for spec in STAGES:
        module = types.ModuleType(f"pipeline.stages.{spec.name}")
        module.run = lambda context, name=spec.name: run_fake(name, context)  # type: ignore[attr-defined]
        set_item(sys.modules, module.__name__, module)
    runtime = types.ModuleType("pipeline.runtime")
    runtime.create_runtime = lambda config: FakeRuntime()  # type: ignore[attr-defined]
    set_item(sys.modules, runtime.__name__, runtime)
    sandboxes = types.ModuleType("pipeline.sandboxes")
    sandboxes.require = lambda config: FakeExamination()  # type: ignore[attr-defined]
    set_item(sys.modules, sandboxes.__name__, sandboxes)


if __name__ == "__main__":
    from pipeline.cli import main

    install()
    main()
