"""`audit-rewards`: what the rewards pay that they must not, and what they refuse that they must pay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from pipeline.commands.common import command
from pipeline.errors import UsageError

EXIT_PAID = 1
"""An exploit is paid, a policy that knows nothing earns too much, or too many honest answers are refused."""


@command
def audit_rewards(
    area: Annotated[
        list[str] | None, typer.Option("--area", help="Only this area (math, code, agents, …); may be repeated.")
    ] = None,
    case: Annotated[
        list[str] | None, typer.Option("--case", help="Only cases whose id contains this; may be repeated.")
    ] = None,
    reward: Annotated[
        str | None, typer.Option("--reward", help="Audit your own reward function (TRL's signature): module:function.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Your tasks for --reward, JSONL or Parquet; without it, sums.")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option("--column", help="FIELD=NAME: column of --data that holds a task's field; may be repeated."),
    ] = None,
    environment: Annotated[
        str | None, typer.Option("--environment", help="Audit your own domain class: module:Class.")
    ] = None,
    floor: Annotated[
        float | None, typer.Option("--floor", help="The most that knowing nothing may earn in your own target.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write everything to this file (schema in docs/audit.md).")
    ] = None,
) -> None:
    """Try to be paid for nothing: exploits, honest answers, policies that know nothing. Exit 1 where something pays."""
    if reward and environment:
        raise UsageError("--reward and --environment are two targets; audit one after the other.")
    if (reward or environment) and (area or case):
        raise UsageError("--area and --case choose among the built-in cases; they do not go with your own target.")
    if data is not None and reward is None:
        raise UsageError("--data gives the tasks of --reward; there is no --reward.")
    if column and data is None:
        raise UsageError("--column names columns of --data; there is no --data.")
    if floor is not None and not (reward or environment):
        raise UsageError("--floor is for --reward and --environment; the built-in floors are fixed.")
    if json_file is not None and not json_file.absolute().parent.is_dir():
        raise UsageError(f"--json {json_file}: there is no folder {json_file.absolute().parent}.")
    from pipeline.audit import builtin, own
    from pipeline.audit.report import print_report, report_json
    from pipeline.audit.workbench import Bench
    from pipeline.config.schema import DataConfig

    tasks = DataConfig(train=str(data), columns=_columns(column or [])) if data is not None else None
    columns = (TextColumn("auditing"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    total = None if reward or environment else builtin.size(area or [], case or [])
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=total)

        def tick(what: str) -> None:
            progress.update(bar, advance=1, description=what[:40])

        if reward is not None:
            report, tier = own.audit_reward(reward, tasks, floor or 0.0, tick)
        elif environment is not None:
            report, tier = own.audit_environment(environment, floor, tick)
        else:
            with Bench() as bench:
                report, tier = builtin.audit_builtin(bench, tick, area or [], case or []), bench.sandbox.tier
    print_report(report, Console(highlight=False), tier)
    if json_file is not None:
        record = report_json(report, tier)
        json_file.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if not report.ok:
        raise typer.Exit(EXIT_PAID)


def _columns(pairs: list[str]) -> dict[str, str]:
    """Field of a task -> column, of `FIELD=NAME`."""
    for pair in pairs:
        if not all(pair.partition("=")):
            raise UsageError(f"--column {pair}: expected FIELD=NAME, such as prompt=question.")
    return dict(pair.split("=", 1) for pair in pairs)
