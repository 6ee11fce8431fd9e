"""`status`, `list` and `doctor`: they look and write nothing."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.commands.common import AsJson, RunFolder, command, existing_run, print_json
from pipeline.config.schema import Config
from pipeline.errors import EXIT_RESOURCES
from pipeline.plan import step_text
from pipeline.progress import duration, number_text
from pipeline.runs import Manifest, Run, find_runs
from pipeline.runs.events import Event, last_steps, read_alarms
from pipeline.stages import STAGES

if TYPE_CHECKING:
    from rewards.sandbox import AttackResult

KEY_NUMBERS = ("reward", "rewards/mean", "loss")
"""The metric that stands for a stage under way: the first of these in its last event."""


@command
def status(folder: RunFolder = None, as_json: AsJson = False) -> None:
    """Show how far each stage of a run is."""
    run = existing_run(folder)
    driver = run.driver()
    rows = stage_rows(run)
    if as_json:
        print_json({"run": str(run.path), "driver": driver.pid if driver else None, "stages": rows})
        return
    console = Console(highlight=False)
    held = f"running in process {driver.pid} on {driver.host}" if driver else "not running"
    console.print(f"{run.path}: {held}", markup=False)
    table = Table("stage", "state", "last step", "key number", "time")
    for row in rows:
        table.add_row(
            row["stage"],
            row["state"],
            step_text(row["steps"], row["stage"]),
            row["key number"],
            _time(row["seconds"]),
        )
    console.print(table)
    for row in rows:
        if row["alarms"]:
            last, more = row["alarms"][-1], len(row["alarms"]) - 1
            console.print(f"alarm: {last}" + (f" ({more} before it)" if more else ""), markup=False, soft_wrap=True)
        if row["error"]:
            console.print(
                f"{row['stage']}: {row['error']}  (details: {run.log(row['stage'])})",
                markup=False,
                soft_wrap=True,
            )


@command
def list_runs(
    root: Annotated[Path, typer.Argument(help="Folder that holds the runs.")] = Path(Config.run).parent,
    as_json: AsJson = False,
) -> None:
    """Show the runs below a folder."""
    rows: list[dict[str, Any]] = []
    for run in find_runs(root):
        stages = stage_rows(run)
        done = [row["stage"] for row in stages if row["state"] == "done"]
        open_row = next((row for row in stages if row["state"] not in ("done", "missing")), None)
        rows.append(
            {
                "run": str(run.path),
                "state": f"{open_row['stage']} {open_row['state']}"
                if open_row
                else "done"
                if done
                else "new",
                "done": done,
                "updated": run.info().get("updated"),
            }
        )
    if as_json:
        print_json(rows)
        return
    if not rows:
        print(f"There are no runs below {root}. `pipeline run all --run {root / 'NAME'}` begins one.")
        return
    table = Table("run", "state", "stages done", "last command")
    for row in rows:
        table.add_row(row["run"], row["state"], f"{len(row['done'])} of {len(STAGES)}", _moment(row["updated"]))
    Console(highlight=False).print(table)


@command
def doctor(
    folder: RunFolder = None,
    ray: Annotated[bool, typer.Option("--ray", help="Also start a local Ray and stop it.")] = False,
    attacks: Annotated[bool, typer.Option("--attacks", help="Also show every attack on the sandbox.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check the installation and the machine."""
    from pipeline.doctor import run_checks

    checks = run_checks(Path(folder or Config.run), ray)
    failed = [check for check in checks if check.verdict == "failed"]
    if as_json:
        rows = {"attacks": [vars(attack) for attack in sandbox_attacks()]} if attacks else {}
        print_json({"ok": not failed, "checks": [vars(check) for check in checks], **rows})
    else:
        console = Console(highlight=False)
        table = Table("check", "verdict", "found", "to do")
        colours = {"ok": "green", "warning": "yellow", "failed": "red"}
        for check in checks:
            verdict = f"[{colours[check.verdict]}]{check.verdict}[/]"
            table.add_row(check.name, verdict, check.detail, check.advice)
        console.print(table)
        if attacks:
            console.print(attack_table())
        console.print("All is well." if not failed else f"{len(failed)} of {len(checks)} checks failed.")
    if failed:
        raise typer.Exit(EXIT_RESOURCES)


def sandbox_attacks() -> tuple[AttackResult, ...]:
    """The sandbox's self-test; the checks have run it already."""
    from pipeline.sandboxes import examine

    return examine().attacks


def attack_table() -> Table:
    """Every attack of the sandbox's self-test."""
    table = Table("area", "attack", "stopped", "what the attacker saw")
    for attack in sandbox_attacks():
        stopped = "[green]yes[/]" if attack.stopped else "[red]no[/]"
        table.add_row(attack.area, attack.name, stopped, escape(attack.how))
    return table


def stage_rows(run: Run) -> list[dict[str, Any]]:
    """State, steps, key number, time and alarms of every stage of a run."""
    events, alarms = run.events.read(), read_alarms(run.events.path)
    steps = last_steps(events)
    alive = run.driver() is not None
    rows = []
    for spec in STAGES:
        manifest = run.stage_manifest(spec.name)
        state = "missing" if manifest is None else manifest.state
        if state == "running" and not alive:
            state = "interrupted"
        mine = [event for event in events if event["stage"] == spec.name]
        rows.append(
            {
                "stage": spec.name,
                "state": state,
                "steps": {domain or "": step for (name, domain), step in steps.items() if name == spec.name},
                "key number": _key_number(manifest.summary if manifest else {}, mine),
                "seconds": _seconds(run, manifest, state) if manifest else None,
                "error": manifest.error if manifest else None,
                "alarms": [alarm["alarm"] for alarm in alarms if alarm["stage"] == spec.name],
            }
        )
    return rows


def _key_number(summary: dict[str, Any], events: list[Event]) -> str:
    for name, value in summary.items():
        if not isinstance(value, dict | list):
            return f"{name} {number_text(value)}"
    for name in KEY_NUMBERS:
        if events and name in events[-1]:
            return f"{name} {number_text(events[-1][name])}"
    return ""


def _seconds(run: Run, manifest: Manifest, state: str) -> float:
    """Time of all attempts; of one under way too, whose manifest was written when it began."""
    if state != "running":
        return manifest.seconds
    began = (run.folder(manifest.stage) / "manifest.json").stat().st_mtime
    return manifest.seconds + max(0.0, time.time() - began)


def _moment(stamp: str | None) -> str:
    """`2026-11-23 09:36:08 UTC` of an ISO time."""
    return (stamp or "").replace("T", " ").replace("+00:00", " UTC")


def _time(seconds: float | None) -> str:
    return "" if not seconds else duration(seconds)
