"""`run` and `plan`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from pipeline.commands.common import (
    AsJson,
    Files,
    Preset,
    RunFolder,
    Sets,
    Settings,
    command,
    print_json,
    settings,
    split,
)
from pipeline.conductor import StageOutcome, continue_command, run_stages
from pipeline.errors import UsageError
from pipeline.plan import Plan, check_targets, make_plan, step_text
from pipeline.progress import PlainProgress, duration, make_progress, number_text
from pipeline.report import REPORT, print_table
from pipeline.runs import Run
from pipeline.stages import STAGES

STAGE_NAMES = ", ".join(spec.name for spec in STAGES)

Targets = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="STAGE... [KEY=VALUE]...",
        help=f"Stages ({STAGE_NAMES}, or all) and settings.",
        show_default=False,
    ),
]
Force = Annotated[
    list[str] | None, typer.Option("--force", metavar="STAGE", help="Run this stage again though nothing changed.")
]


@command
def run(
    words: Targets = None,
    preset: Preset = None,
    files: Files = None,
    sets: Sets = None,
    folder: RunFolder = None,
    force: Force = None,
    no_deps: Annotated[
        bool, typer.Option("--no-deps", help="Do not run needed stages; name what is missing.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="The same as pipeline plan.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run stages and what they need; the same command again goes on where it stopped."""
    names, overrides = split(words)
    if dry_run:
        _plan(names, settings(preset, files, [*overrides, *(sets or [])], folder), force, as_json)
        return
    if not names:
        raise UsageError(f"Which stages? One or more of {STAGE_NAMES}, all.", "pipeline run all")
    targets, again = check_targets(names), check_targets(force or [])
    chosen = settings(preset, files, [*overrides, *(sets or [])], folder)
    progress = PlainProgress(sys.stderr) if as_json else make_progress()
    progress.say(f"run: {chosen.config.run}")
    progress.say(chosen.told())
    outcomes = run_stages(
        chosen.config, targets, sources=chosen.sources, force=again, deps=not no_deps, progress=progress
    )
    if as_json:
        print_json({"run": chosen.config.run, "stages": outcomes_json(outcomes)})
    else:
        _print_outcomes(outcomes)
        if any(one.name == "evaluate" for one in outcomes) and (Path(chosen.config.run) / REPORT).is_file():
            _print_report(Path(chosen.config.run))


@command
def plan(
    words: Targets = None,
    preset: Preset = None,
    files: Files = None,
    sets: Sets = None,
    folder: RunFolder = None,
    force: Force = None,
    as_json: AsJson = False,
) -> None:
    """Show what a run would do, what is stale and why, what it needs and how long it takes."""
    names, overrides = split(words)
    _plan(names, settings(preset, files, [*overrides, *(sets or [])], folder), force, as_json)


def outcomes_json(outcomes: list[StageOutcome]) -> list[dict[str, object]]:
    return [
        {"stage": one.name, "state": one.state, "seconds": round(one.seconds, 3), "summary": one.summary}
        for one in outcomes
    ]


def _plan(names: list[str], chosen: Settings, force: list[str] | None, as_json: bool) -> None:
    targets, again = check_targets(names or ["all"]), check_targets(force or [])
    made = make_plan(Run(chosen.config.run), chosen.config, targets, again, chosen.sources.preset)
    if as_json:
        print_json(made.to_json())
    else:
        _print_plan(made, chosen, targets)


def _print_plan(made: Plan, chosen: Settings, targets: list[str]) -> None:
    console = Console(highlight=False)
    console.print(f"run: {made.run}", markup=False)
    console.print(chosen.told(), markup=False, soft_wrap=True)
    table = Table("stage", "state", "time", "what, and why")
    colours = {
        "cached": "green",
        "stale": "yellow",
        "interrupted": "yellow",
        "failed": "red",
        "running": "cyan",
    }
    for part in made.stages:
        state: str = part.state
        if part.steps and state in ("interrupted", "failed", "running"):
            state = f"{state} at step {step_text(part.steps, part.name)}"
        time = "" if part.state == "cached" else "unknown" if part.seconds is None else duration(part.seconds)
        colour = colours.get(part.state, "default")
        table.add_row(part.name, f"[{colour}]{state}[/]", time, "\n".join([part.does, *part.reasons]))
    console.print(table)
    needs = Table("resource", "needed (estimate)", "there", "enough?")
    for need in made.resources:
        unit = f" {need.unit}" if need.unit else ""
        needed = "unknown" if need.needed is None else f"{need.needed:.3g}{unit}"
        there = "the cluster's" if need.there is None else f"{need.there:.3g}{unit}"
        verdict = "[red]no[/]" if need.binding else "[yellow]perhaps not[/]"
        if not need.short:
            verdict = "" if need.needed is None or need.there is None else "yes"
        needs.add_row(need.name, needed, there, verdict)
    console.print(needs)
    if not made.ahead:
        console.print("Nothing to do: everything is done and unchanged.")
        return
    measured = dict.fromkeys(part.measured for part in made.ahead if part.measured)
    source = f" (measured: {'; '.join(measured)})" if measured else ""
    console.print(
        f"estimated time: {'unknown' if made.seconds is None else duration(made.seconds)}{source}",
        markup=False,
    )
    go = continue_command(targets, Path(made.run), chosen.sources)
    console.print(f"Run it with: {go}", markup=False, soft_wrap=True)


def _print_outcomes(outcomes: list[StageOutcome]) -> None:
    for one in outcomes:
        figures = "  ".join(
            f"{name} {number_text(value)}"
            for name, value in one.summary.items()
            if not isinstance(value, dict | list)
        )
        time = "unchanged" if one.state == "cached" else duration(one.seconds)
        print(f"{one.name:12} {time:>12}  {figures}".rstrip())


def _print_report(run: Path) -> None:
    """The evaluation's table, and where report and plots lie."""
    print()
    print_table(json.loads((run / REPORT).read_text(encoding="utf-8")), Console(highlight=False))
    print(f"\nreport: {run / REPORT}   plots: {run / 'plots'}   rollouts: {run / 'rollouts'}")
