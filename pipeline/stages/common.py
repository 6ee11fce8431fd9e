"""What several stages share: devices, artifacts, and the driver's side of a text run."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from pipeline.config.schema import Config, RLConfig
from pipeline.errors import StageError
from pipeline.grader import Grader
from pipeline.judge import JudgeServer
from pipeline.machine import gpus
from pipeline.runs import Artifact
from pipeline.runtime import Handle
from pipeline.stages import StageContext
from pipeline.tasks import find_domain, is_judged
from pipeline.text_worker import TextSpec, TextTrainer

T = TypeVar("T")

ADVANCE = 10
"""Packed batches asked for in one call: how often a text run reports."""


def device(config: Config) -> str:
    """`cpu` or `cuda`. `auto` takes the GPU where this process may use one and torch is no CPU build."""
    if config.device != "auto":
        return config.device
    return "cuda" if gpus() > 0 and not version("torch").endswith("+cpu") else "cpu"


def cpus(config: Config) -> int:
    """CPUs that the run may use."""
    return config.runtime.num_cpus or len(os.sched_getaffinity(0))


def threads(config: Config, workers: int = 1) -> int:
    """Torch threads of each of `workers` workers that run at the same time."""
    return max(1, (config.runtime.threads or cpus(config)) // workers)


def artifact(context: StageContext, path: Path, kind: str, **meta: Any) -> Artifact:
    return Artifact.of(path, kind, context.folder.parent, **meta)


def input_path(context: StageContext, stage: str, name: str) -> Path:
    """Where an input artifact lies."""
    return context.inputs[stage][name].at(context.folder.parent)


def text_run(
    context: StageContext,
    label: str,
    spec: TextSpec,
    checkpoint: Path,
    measure: str | None = "auto",
    before: Callable[[Handle, int], None] | None = None,
    after: Callable[[Handle], None] | None = None,
) -> dict[str, Any]:
    """Trains to the end in an actor, logs each step, writes the checkpoint, and returns what `measure` says of it.

    `before(worker, done)` is called first, with the number of steps that are done already, and `after(worker)` last.
    """
    advance = max(1, ADVANCE // spec.accumulation)
    worker = context.runtime.spawn(TextTrainer, spec, name=label, num_cpus=1)
    try:
        done = worker.call("committed").result()
        if before is not None:
            before(worker, done)
        began, trained = time.monotonic(), 0.0
        with context.progress.task(label, spec.steps) as bar:
            for start in range(0, spec.steps, advance):
                for offset, metrics in enumerate(worker.call("advance", start, advance).result()):
                    context.events.log(context.folder.name, start + offset, domain=label, **metrics)
                    if start + offset >= done:
                        trained += metrics["tokens"]
                        bar.advance(step=start + offset + 1, **_shown(metrics))
        peak = worker.call("peak_memory").result()
        if peak and trained:
            speed = trained / (time.monotonic() - began)
            context.progress.say(f"{label}: {speed:,.0f} tokens/s, at most {peak / 2**30:.1f} GiB of the GPU's memory")
        measured: dict[str, Any] = worker.call("measure", measure).result() if measure else {}
        if after is not None:
            after(worker)
        worker.call("export", str(checkpoint)).result()
        return measured
    finally:
        worker.stop()


def specialist_rl(config: Config, domain: str) -> RLConfig:
    """Settings of the RL run of a domain's specialist."""
    rl, steps = config.specialists.rl, config.domains[domain].specialist_steps
    return rl if steps is None else replace(rl, steps=steps)


def needs_sandbox(config: Config, domains: Sequence[str]) -> bool:
    """Whether an environment of these domains may run code."""
    return any(find_domain(name, config.domains[name]).tools for name in domains)


def needs_judge(config: Config, domains: Sequence[str]) -> bool:
    """Whether the GenRM pays any of these domains."""
    return any(is_judged(config, name) for name in domains)


def _refuse_policy_as_judge(context: StageContext) -> None:
    """The judge's weights are frozen, and never those that the policy begins with: a policy that is its own judge is
    paid for what it believes already. Raises `StageError`; `judge.may_be_policy` allows it."""
    judge = context.inputs["judge"]["checkpoint"]
    same = [
        f"{stage}/{name}"
        for stage, artifacts in context.inputs.items()
        for name, found in artifacts.items()
        if stage != "judge" and found.sha256 == judge.sha256
    ]
    if same and not context.config.judge.may_be_policy:
        raise StageError(
            f"the judge's checkpoint holds the same weights as the policy's ({same[0]}): train a judge of its own "
            "(pipeline run judge), name one in judge.base_url, or allow it with judge.may_be_policy=true"
        )


@contextmanager
def start_grader(context: StageContext, domains: Sequence[str]) -> Iterator[Handle]:
    """A grader, and the judge behind it where one of the domains needs it."""
    config = context.config
    judge: Handle | None = None
    grader: Handle | None = None
    try:
        url = None
        if needs_judge(config, domains):
            url = config.judge.base_url
            if url is None:
                _refuse_policy_as_judge(context)
                checkpoint = str(input_path(context, "judge", "checkpoint"))
                judge = spawn_judge(context, checkpoint, 1)
                url = judge.call("url").result(config.runtime.start_deadline_s)
        grader = context.runtime.spawn(Grader, config, url, name="grader", num_cpus=0.1)
        yield grader
    finally:
        for handle in (grader, judge):
            if handle is not None:
                handle.stop()


def spawn_judge(context: StageContext, checkpoint: str, threads: int) -> Handle:
    """The server of a judge's checkpoint; its method `url` tells where it answers."""
    config = context.config
    return context.runtime.spawn(
        JudgeServer, checkpoint, config.judge.model, device(config), threads, free_port(), config.judge.host,
        name="judge", num_cpus=0.1,
    )  # fmt: skip


def each_in_parallel(items: Sequence[T], work: Callable[[T, int], None], workers: int) -> None:
    """Calls `work(item, worker)` for all items, `workers` at a time; each worker number works on one item at once.

    The first error ends it: items under way are finished, the others are left.
    """
    waiting, lock, stop = iter(items), threading.Lock(), threading.Event()

    def loop(worker: int) -> None:
        while not stop.is_set():
            with lock:
                item = next(waiting, None)
            if item is None:
                return
            try:
                work(item, worker)
            except BaseException:
                stop.set()
                raise

    with ThreadPoolExecutor(workers) as pool:
        try:
            for future in [pool.submit(loop, worker) for worker in range(workers)]:
                future.result()
        except BaseException:
            stop.set()
            raise


def free_port() -> int:
    """A port that is free now. Chosen by the driver, so that a restarted server is found where the first one was."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _shown(metrics: dict[str, float]) -> dict[str, float]:
    return {name: metrics[name] for name in ("loss", "indexer_kl", "tokens") if name in metrics}
