"""`judge-report` and `rubrics`: the generative reward model looked at, and its rubrics written."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pipeline.commands.common import AsJson, Overrides, Preset, RunFolder, command, only_overrides, print_json, settings
from pipeline.errors import StageError
from pipeline.runs import Run


@command
def judge_report(
    words: Overrides = None,
    preset: Preset = None,
    folder: RunFolder = None,
    examples: Annotated[
        int | None, typer.Option(help="Labelled triples (without it judge.heldout).", min=1, show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure how far the judge can be trusted: agreement, order, length, repeats, canaries, cost."""
    config = settings(preset, None, only_overrides(words), folder).config
    from pipeline.judge_report import measure_judge, print_calibration

    file, report = measure_judge(config, Run(config.run), examples or config.judge.heldout)
    if as_json:
        print_json(report)
    else:
        print_calibration(report, Console(highlight=False))
        print(f"report: {file}")


@command
def rubrics(
    words: Overrides = None,
    data: Annotated[str, typer.Option("--data", help="JSONL or Parquet file, folder, or dataset of prompts.")] = "",
    out: Annotated[Path, typer.Option("--out", "-o", help="JSONL file to write; the same again goes on.")] = Path(
        "rubrics.jsonl"
    ),
    column: Annotated[str, typer.Option(help="Column of the prompt: a text or a list of messages.")] = "prompt",
    preset: Preset = None,
    folder: RunFolder = None,
    as_json: AsJson = False,
) -> None:
    """Let the model behind judge.base_url write a rubric for each prompt of a file."""
    config = settings(preset, None, only_overrides(words), folder).config
    from pipeline.rubrics import write_rubrics

    done = write_rubrics(config, data, out, column, lambda count: None if as_json else print(f"{count} prompts asked"))
    if as_json:
        print_json({"out": str(out), "written": done.written, "kept": done.kept, "problems": done.problems})
    else:
        print(f"{out}: {done.written} rubrics written, {done.kept} were there")
    if done.problems:
        raise StageError("\n".join([f"{len(done.problems)} prompts have no rubric:", *done.problems[:20]]))
