"""evaluate: every checkpoint on the same held-out tasks; the table, the plots and the report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.config.schema import Config
from pipeline.grader import Grader
from pipeline.plots import write_plots
from pipeline.report import build_report, summarize, write_report
from pipeline.runs import Manifest, write_json
from pipeline.runs.versions import versions
from pipeline.sampler import Sampler
from pipeline.stages import CHECKPOINTS, STAGES, StageContext, StageResult
from pipeline.stages.common import artifact, device, each_in_parallel, input_path, needs_sandbox, threads
from pipeline.stages.specialists import specialist_modes, specialist_name
from pipeline.tasks import TaskSource, enabled_domains, find_domain, turn_limit
from rollout.conversation import Trial
from rollout.records import MODES, Mode
from rollout.seeding import seed_for

WORKERS = 2
"""Samplers that work at the same time."""


def run(context: StageContext) -> StageResult:
    """Artifacts: `results`, one file per checkpoint, domain and mode; beside them `report.json` and the plots of the
    run. A cell that is there is not measured again."""
    config, folder = context.config, context.folder
    cells = [
        (checkpoint, domain, mode)
        for checkpoint in config.evaluate.checkpoints
        for domain in enabled_domains(config)
        for mode in MODES
    ]
    missing = [cell for cell in cells if not _file(folder, *cell).is_file()]
    if missing:
        _measure(context, missing)
    evaluations: dict[str, dict[str, dict[str, Any]]] = {}
    samples = 0
    for checkpoint, domain, mode in cells:
        outcomes = json.loads(_file(folder, checkpoint, domain, mode).read_text(encoding="utf-8"))
        samples += len(outcomes)
        evaluations.setdefault(checkpoint, {}).setdefault(domain, {})[mode] = summarize(outcomes)
    run_folder = folder.parent
    report = build_report(evaluations, _timings(run_folder), versions(), **_other_figures(context))
    write_report(run_folder, report)
    write_plots(run_folder, report, context.events.read())
    return StageResult(
        {"results": artifact(context, folder / "results", "results")},
        {"samples": samples},
        {"checks": report["checks"]},
    )


def _measure(context: StageContext, missing: list[tuple[str, str, Mode]]) -> None:
    config = context.config
    sources = {name: TaskSource(name, config.domains[name], config.seed) for name in enabled_domains(config)}
    workers = WORKERS if context.runtime.parallel else 1
    grader = context.runtime.spawn(Grader, config, None, name="grader", num_cpus=0.1)
    arguments = (config, threads(config, workers), device(config), needs_sandbox(config, list(sources)))
    samplers = [
        context.runtime.spawn(Sampler, *arguments, name=f"sampler {n}", num_cpus=0.3) for n in range(workers)
    ]
    try:
        with context.progress.task("evaluate", len(missing)) as bar:

            def measure(cell: tuple[str, str, Mode], worker: int) -> None:
                checkpoint, domain, mode = cell
                trials = _trials(config, sources[domain], domain, mode)
                folder = str(_checkpoint(context, checkpoint, domain, mode))
                played = samplers[worker].call("sample", folder, trials, config.evaluate.temperature).result()
                attempts = [trajectory.attempt for trajectory in played]
                graded = grader.call("evaluate", attempts).result()
                outcomes = [
                    {
                        "task": attempt.task.id,
                        "family": attempt.task.family,
                        "passed": passed,
                        "reason": reason,
                        "tokens": attempt.tokens,
                        "language_consistency": share,
                        "completions": list(attempt.completions),
                    }
                    for attempt, (passed, share, reason) in zip(attempts, graded, strict=True)
                ]
                write_json(_file(context.folder, *cell), outcomes)
                bar.advance(**{"pass": summarize(outcomes)["pass_rate"]})

            each_in_parallel(missing, measure, workers)
    finally:
        for handle in (*samplers, grader):
            handle.stop()


def _trials(config: Config, source: TaskSource, domain: str, mode: Mode) -> list[Trial]:
    found = find_domain(domain, config.domains[domain])
    limit = turn_limit(config, domain)
    return [
        Trial(task, 0, seed_for(config.seed, "evaluate", task.id), limit, tuple(found.tools), found.max_turns)
        for task in source.heldout(config.evaluate.tasks, mode)
    ]


def _checkpoint(context: StageContext, checkpoint: str, domain: str, mode: Mode) -> Path:
    if checkpoint == "specialists":
        modes = next(m for m in specialist_modes(context.config.specialists.modes) if mode in m)
        return input_path(context, "specialists", specialist_name(domain, modes))
    return input_path(context, CHECKPOINTS[checkpoint], "checkpoint")


def _file(folder: Path, checkpoint: str, domain: str, mode: Mode) -> Path:
    return folder / "results" / f"{checkpoint}-{domain}-{mode}.json"


def _timings(run_folder: Path) -> dict[str, float]:
    """Seconds of each stage that is done, from the manifests."""
    known = ((spec.name, Manifest.read(run_folder / spec.name)) for spec in STAGES)
    return {name: round(manifest.seconds, 1) for name, manifest in known if manifest and manifest.state == "done"}


def _other_figures(context: StageContext) -> Mapping[str, Any]:
    figures: dict[str, Any] = {}
    for stage in ("sparsify", "judge"):
        path = context.folder.parent / stage / "report.json"
        if path.is_file():
            figures[stage] = json.loads(path.read_text(encoding="utf-8"))
    manifest = Manifest.read(context.folder.parent / "distill")
    if manifest is not None:
        figures["distill"] = manifest.summary
    return figures
