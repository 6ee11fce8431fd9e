"""Runs stages in order: skips what is done, goes on with what was interrupted, leaves a manifest of each."""

from __future__ import annotations

import importlib
import os
import shlex
import shutil
import signal
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal

from pipeline.config.explain import to_dict
from pipeline.config.schema import Config
from pipeline.errors import (
    EXIT_INTERRUPTED,
    Interrupted,
    PipelineError,
    ResourceError,
    StageError,
    UsageError,
)
from pipeline.plan import Plan, Standing, all_or_names, blocked_by, make_plan, stand, step_text, with_needs
from pipeline.progress import Progress, make_progress
from pipeline.quiet import errors_to_log, stage_log
from pipeline.runs import Artifact, Manifest, Run, Sources, last_steps
from pipeline.runs.artifact import stat_signature
from pipeline.runs.sinks import Sinks, check_installed
from pipeline.runs.versions import versions
from pipeline.stages import STAGES, StageContext, StageResult, StageSpec

if TYPE_CHECKING:
    from pipeline.runtime import Runtime


@dataclass(frozen=True)
class StageOutcome:
    """What became of one stage: `cached` or `done`, with its time and figures."""

    name: str
    state: Literal["cached", "done"]
    seconds: float
    summary: dict[str, Any]


def run_stages(
    config: Config,
    targets: Sequence[str],
    *,
    sources: Sources | None = None,
    force: Collection[str] = (),
    deps: bool = True,
    progress: Progress | None = None,
) -> list[StageOutcome]:
    """Runs the targets and what they need, in order.

    Args:
        config: resolved settings; `config.run` is the folder.
        targets: names of stages.
        sources: where the settings came from; the run remembers them.
        force: stages to run again though nothing changed.
        deps: run needed stages too; without it, a needed stage that is not done is an error.
        progress: where to show what goes on.

    Raises:
        UsageError: before anything is written, if `deps` is false and a needed stage is not done.
        ResourceError: if the machine lacks something, or another process holds the run.
        StageError: if a stage fails; the log has the details.
        Interrupted: on SIGINT or SIGTERM; what was done is kept.
    """
    run = Run(config.run)
    progress = progress or make_progress()
    go_on = continue_command(targets, run.path)
    plan = make_plan(run, config, targets, force)
    if not deps:
        _refuse_missing(plan, targets, run, sources)
    _refuse_shortage(plan, continue_command(targets, run.path, sources))
    _refuse_bad_files(plan, config)
    _refuse_weak_sandbox(plan, config)
    check_installed(config.metrics.sinks)
    with run.lock():
        run.create(config, sources)
        sinks = config.metrics.sinks if plan.ahead else []
        run.events.on_alarm = progress.say
        run.events.sinks = Sinks(sinks, run.path, config.metrics.project, to_dict(config))
        conductor = _Conductor(run, config, progress, go_on)
        with _stop_on_signals(), errors_to_log():
            try:
                return [conductor.run(spec, spec.name in force) for spec in with_needs(targets, config)]
            except KeyboardInterrupt:
                raise Interrupted("Stopped between two stages.", go_on) from None
            finally:
                conductor.close()
                run.events.close()


def continue_command(targets: Sequence[str], run: Path, sources: Sources | None = None) -> str:
    """The command that goes on. A run that began remembers its settings; one that did not needs `sources`."""
    words = ["pipeline", "run", *all_or_names(targets), "--run", str(run)]
    if sources is not None:
        words += ["--preset", sources.preset] if sources.preset else []
        words += [word for file in sources.files for word in ("-c", file)]
        words += sources.overrides
    return shlex.join(words)


class _Conductor:
    """One pass over the stages of a run."""

    def __init__(self, run: Run, config: Config, progress: Progress, go_on: str) -> None:
        self._run = run
        self._config = config
        self._progress = progress
        self._go_on = go_on
        self._runtime: Runtime | None = None

    def run(self, spec: StageSpec, force: bool) -> StageOutcome:
        standing = stand(self._run, spec, self._config, force)
        if standing.state == "cached" and standing.before is not None:
            self._progress.say(f"{spec.name}: unchanged, skipped")
            return StageOutcome(spec.name, "cached", 0.0, standing.before.summary)
        self._announce(spec, standing)
        manifest = self._begin(spec, standing)
        folder, began = self._run.folder(spec.name), time.monotonic()
        spent = manifest.seconds
        try:
            with self._progress.stage(spec.name), stage_log(self._run.log(spec.name)):
                result = self._execute(spec, manifest)
        except BaseException as error:
            manifest.state = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            manifest.error = None if isinstance(error, KeyboardInterrupt) else _one_line(error)
            raise self._explained(spec, error) from error
        finally:
            manifest.seconds = spent + time.monotonic() - began
            manifest.finished = _now()
            if manifest.state != "running":
                # On a full disk the manifest goes on saying `running`, as after a kill; the stage's error matters more.
                with suppress(OSError):
                    manifest.write(folder)
        self._finish(manifest, result)
        return StageOutcome(spec.name, "done", manifest.seconds, manifest.summary)

    def close(self) -> None:
        """Ends the actors."""
        if self._runtime is not None:
            self._runtime.shutdown()

    def _announce(self, spec: StageSpec, standing: Standing) -> None:
        if standing.goes_on:
            last = last_steps(self._run.events.read(spec.name))
            steps = {domain or "": step for (_, domain), step in last.items()}
            at = f" (last step logged: {step_text(steps, spec.name)})" if steps else ""
            self._progress.say(f"{spec.name}: goes on{at}")
        elif standing.state == "stale":
            reasons = standing.reasons[:4]
            more = f" and {len(standing.reasons) - 4} more" if len(standing.reasons) > 4 else ""
            self._progress.say(f"{spec.name}: stale because {'; '.join(reasons)}{more}")

    def _begin(self, spec: StageSpec, standing: Standing) -> Manifest:
        manifest = standing.now
        if standing.goes_on and standing.before is not None:
            manifest.seconds, manifest.attempts = standing.before.seconds, standing.before.attempts
            manifest.started = standing.before.started
        else:
            aside = self._run.replace(spec.name)
            if aside is not None:
                self._progress.say(f"{spec.name}: what it left before is in {aside}")
            manifest.started = _now()
        manifest.attempts += 1
        manifest.versions = versions()
        if spec.tries:
            # Imported where it is needed: its HTTP client is slow to load, and `pipeline --help` is not.
            from pipeline.sandboxes import require

            manifest.sandbox = require(self._config.sandbox).record()
        manifest.write(self._run.folder(spec.name))
        return manifest

    def _execute(self, spec: StageSpec, manifest: Manifest) -> StageResult:
        stage = importlib.import_module(f"pipeline.stages.{spec.name}")
        if self._runtime is None:
            from pipeline.runtime import create_runtime

            self._runtime = create_runtime(self._config)
        self._runtime.log = self._run.log(spec.name)
        inputs: dict[str, dict[str, Artifact]] = {}
        for name in spec.needs_under(self._config):
            needed = self._run.stage_manifest(name)
            inputs[name] = dict(needed.outputs) if needed is not None else {}
        context = StageContext(
            self._config, self._run.folder(spec.name), inputs, self._run.events, self._progress, self._runtime
        )
        result: StageResult = stage.run(context)
        return result

    def _finish(self, manifest: Manifest, result: StageResult) -> None:
        manifest.state = "done"
        manifest.outputs = dict(result.artifacts)
        manifest.signatures |= {
            name: stat_signature(a.at(self._run.path)) for name, a in result.artifacts.items()
        }
        manifest.counts, manifest.summary = dict(result.counts), dict(result.summary)
        manifest.write(self._run.folder(manifest.stage))

    def _explained(self, spec: StageSpec, error: BaseException) -> BaseException:
        """The error as the command line tells it."""
        if isinstance(error, KeyboardInterrupt):
            return Interrupted(f"Stage {spec.name} was stopped; what it did is kept.", self._go_on)
        if isinstance(error, PipelineError):
            error.go_on = error.go_on or self._go_on
            if isinstance(error, StageError):
                error.message += self._full_disk(error)
                error.log = error.log or self._run.log(spec.name)
            return error
        if isinstance(error, Exception):
            message = f"Stage {spec.name} failed: {_one_line(error)}"
            return StageError(message + self._full_disk(error), self._go_on, self._run.log(spec.name))
        return error

    def _full_disk(self, error: BaseException) -> str:
        """What to do where the cause is a disk without room; empty for any other error."""
        if not any(sign in str(error) for sign in _SIGNS_OF_A_FULL_DISK):
            return ""
        free = shutil.disk_usage(self._run.path).free
        return f". The disk of {self._run.path} is full ({free / 2**20:.0f} MiB free): make room, then go on"


_SIGNS_OF_A_FULL_DISK = (
    "No space left on device",
    "Disk quota exceeded",
    # torch does not say why: as it writes, or as it finds that less is written than it thought.
    "PytorchStreamWriter failed writing file",
    "unexpected pos",
)


def _refuse_missing(plan: Plan, targets: Sequence[str], run: Run, sources: Sources | None) -> None:
    blocked = blocked_by(plan, targets)
    if blocked:
        names = [part.name for part in blocked]
        states = ", ".join(f"{part.name} ({part.state})" for part in blocked)
        raise UsageError(
            f"With --no-deps, {', '.join(targets)} can not run: needed and not done: {states}.",
            continue_command(names, run.path, sources),
        )


def _refuse_bad_files(plan: Plan, config: Config) -> None:
    """Own files are looked at before the first stage, not hours later when the first stage that reads them begins."""
    # Each is imported where it is needed: what stands behind them is slow to load, and few runs have own files.
    ahead = {part.name for part in plan.ahead}
    if config.model.path is not None and ahead & {"base", "sparsify"}:
        from pipeline.own_model import check_model

        check_model(config)
    if config.sparsify.data is not None and "sparsify" in ahead:
        from pipeline.own_texts import check_texts

        check_texts(config.sparsify.data)
    if config.judge.data is not None and "judge" in ahead:
        from pipeline.own_labels import read_labels

        for split in ("train", "heldout"):
            read_labels(config.judge.data, split)
    own = any(domain.data is not None or domain.reward is not None for domain in config.domains.values())
    if own and any(spec.tries for spec in STAGES if spec.name in ahead):
        from pipeline.tasks import check_own

        check_own(config, ("train", "heldout") if ahead & {"distill", "evaluate"} else ("train",))


def _refuse_weak_sandbox(plan: Plan, config: Config) -> None:
    """Programs that the policy writes run in a sandbox that was attacked before the first stage, or not at all."""
    ahead = {part.name for part in plan.ahead}
    if any(spec.tries for spec in STAGES if spec.name in ahead):
        from pipeline.sandboxes import require

        require(config.sandbox)


def _refuse_shortage(plan: Plan, go_on: str) -> None:
    short = [need for need in plan.resources if need.binding and need.short]
    if short and plan.ahead:
        lines = [f"  {need.name}: needed {need.needed:g}, there are {need.there:g}" for need in short]
        raise ResourceError("\n".join(["This machine can not give what the run needs:", *lines]), go_on)


@contextmanager
def _stop_on_signals() -> Iterator[None]:
    """SIGINT and SIGTERM raise `KeyboardInterrupt` (Ray passes on nothing else); the second ends at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            os._exit(EXIT_INTERRUPTED)
        asked = True
        os.write(2, b"\nStopping; once more to force.\n")
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _one_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
