"""distill: every specialist answers its domain's training tasks, verified answers become a dataset, and the generalist
is fine-tuned on it from the sparse base."""

from __future__ import annotations

import shutil
import time
from typing import Any

from pipeline.distillation import Candidate, Selection, select, to_row
from pipeline.errors import StageError
from pipeline.learning.rl import grade
from pipeline.progress import Task
from pipeline.runs import commit_folder, write_json
from pipeline.runtime import Handle
from pipeline.sampler import Sampler
from pipeline.sft_worker import SFTSpec, SFTState, SFTWorker, sft_steps
from pipeline.stages import StageContext, StageResult
from pipeline.stages.common import (
    artifact,
    device,
    each_in_parallel,
    input_path,
    needs_sandbox,
    specialist_rl,
    start_grader,
    threads,
)
from pipeline.stages.specialists import specialist_modes, specialist_name
from pipeline.tasks import TaskSource, enabled_domains, find_domain, task_sources, turn_limit
from rollout.conversation import Trial
from rollout.records import MODES, Mode, Trajectory
from rollout.seeding import seed_for

WORKERS = 2
"""Samplers that work at the same time."""

TASKS_PER_REQUEST = 64

LOOK_S = 2.0
"""How often the driver looks at the fine-tuning."""


def run(context: StageContext) -> StageResult:
    """Artifacts: `dataset` (a `datasets` folder), `checkpoint` (the generalist)."""
    config, folder = context.config, context.folder
    dataset = folder / "dataset"
    if not dataset.is_dir():
        selection = _collect(context)
        _write_dataset(context, selection)
    import datasets

    rows = datasets.load_from_disk(str(dataset))
    checkpoint = folder / "checkpoint"
    if not checkpoint.is_dir():
        _fine_tune(context, str(dataset), len(rows), str(checkpoint))
    counts: dict[str, int] = {"rows": len(rows)}
    for domain, mode in zip(rows["domain"], rows["mode"], strict=True):
        counts[f"{domain}/{mode}"] = counts.get(f"{domain}/{mode}", 0) + 1
    return StageResult(
        {
            "dataset": artifact(context, dataset, "dataset"),
            "checkpoint": artifact(context, checkpoint, "checkpoint"),
        },
        counts,
        {"rows": len(rows), "tokens": sum(map(len, rows["input_ids"])), "seed": config.seed},
    )


def _collect(context: StageContext) -> Selection:
    config, domains = context.config, enabled_domains(context.config)
    sources = task_sources(config)
    workers = WORKERS if context.runtime.parallel else 1
    cells: list[tuple[str, Mode, int]] = [
        (domain, mode, start)
        for domain in domains
        for mode in MODES
        for start in range(0, config.distill.tasks_per_domain, TASKS_PER_REQUEST)
    ]
    found: dict[tuple[str, Mode, int], list[Candidate]] = {}
    arguments = (config, threads(config, workers), device(config), needs_sandbox(config, domains))
    samplers: list[Handle] = []
    with start_grader(context, domains) as grader, context.progress.task("sampling", len(cells)) as bar:
        try:
            for number in range(workers):
                samplers.append(
                    context.runtime.spawn(Sampler, *arguments, name=f"sampler {number}", num_cpus=0.3)
                )

            def collect(cell: tuple[str, Mode, int], worker: int) -> None:
                found[cell] = _candidates(context, sources[cell[0]], *cell, samplers[worker], grader)
                bar.advance(kept=sum(bool(c.reward.passed) for c in found[cell]) / max(1, len(found[cell])))

            each_in_parallel(cells, collect, workers)
        finally:
            for sampler in samplers:
                sampler.stop()
    tasks = config.evaluate.tasks
    heldout = [task for name in domains for mode in MODES for task in sources[name].heldout(tasks, mode)]
    return select(
        [candidate for cell in cells for candidate in found[cell]],
        heldout,
        config.distill.keep_per_task,
        config.distill.max_rows_per_cell,
        config.distill.decontamination_ngram,
    )


def _candidates(
    context: StageContext, source: TaskSource, domain: str, mode: Mode, start: int, sampler: Handle, grader: Handle
) -> list[Candidate]:
    config = context.config
    modes = next(m for m in specialist_modes(config.specialists.modes) if mode in m)
    name = specialist_name(domain, modes)
    found = find_domain(domain, config.domains[domain])
    limit = turn_limit(config, domain)
    count = min(TASKS_PER_REQUEST, config.distill.tasks_per_domain - start)
    trials = [
        Trial(
            task, sample, seed_for(config.seed, "distill", task.id, sample), limit, tuple(found.tools), found.max_turns
        )
        for task in source.training("distill", start // TASKS_PER_REQUEST, count, (mode,))
        for sample in range(config.distill.samples_per_task)
    ]
    checkpoint = str(input_path(context, "specialists", name))
    played: list[Trajectory] = sampler.call("sample", checkpoint, trials, config.sampling.temperature).result()
    step = specialist_rl(config, domain).steps
    return [
        Candidate(trajectory, reward, name, step, seed_for(config.seed, "distill", group.task.id, n))
        for group in grade(played, grader)
        for n, (trajectory, reward) in enumerate(zip(group.trajectories, group.rewards, strict=True))
    ]


def _write_dataset(context: StageContext, selection: Selection) -> None:
    import datasets

    if not selection.kept:
        raise StageError(f"no sample of the specialists could be verified; dropped: {selection.dropped}")
    write_json(context.folder / "dropped.json", selection.dropped)
    rows: list[dict[str, Any]] = [to_row(candidate) for candidate in selection.kept]
    temporary = context.folder / ".dataset.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    datasets.disable_progress_bars()
    datasets.Dataset.from_list(rows).save_to_disk(str(temporary))
    commit_folder(temporary, context.folder / "dataset")


def _fine_tune(context: StageContext, dataset: str, rows: int, checkpoint: str) -> None:
    config = context.config
    spec = SFTSpec(
        checkpoint=str(input_path(context, "sparsify", "checkpoint")),
        dataset=dataset,
        work=str(context.folder / "sft_state"),
        out=checkpoint,
        config=config.distill.sft,
        seed=config.seed,
        threads=threads(config),
        device=device(config),
    )
    worker = context.runtime.spawn(SFTWorker, spec, name="SFT", num_cpus=0.3)
    try:
        with context.progress.task("SFT", sft_steps(rows, config.distill.sft)) as bar:
            _watch(context, worker, bar)
    finally:
        worker.stop()


def _watch(context: StageContext, worker: Handle, bar: Task) -> None:
    """Logs and shows the fine-tuning until it is done.

    Raises:
        StageError: if the trainer takes no step within `runtime.step_deadline_s`.
    """
    patience = context.config.runtime.step_deadline_s
    step, logged, moved = 0, 0, time.monotonic()
    while True:
        state: SFTState = worker.call("follow", LOOK_S).result()
        for entry in state.log[logged:]:
            context.events.log("distill", int(entry["step"]), domain="sft", loss=entry["loss"])
        logged = len(state.log)
        if state.step != step:
            step, moved = state.step, time.monotonic()
            bar.advance(step=step, **({"loss": state.log[-1]["loss"]} if state.log else {}))
        if state.done:
            return
        if time.monotonic() - moved > patience:
            raise StageError(
                f"the driver waited {patience:g} s for step {step + 1} of the fine-tuning; raise "
                "runtime.step_deadline_s if a step is that long"
            )
