"""`export` and `chat`: a checkpoint of a run put to use."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.common import AsJson, RunFolder, command, existing_run, print_json
from pipeline.config import load_config
from pipeline.errors import UsageError

Checkpoint = Annotated[
    str,
    typer.Argument(
        help="base, sparsified, distilled, final, specialists/DOMAIN, or a folder of a checkpoint."
    ),
]
MODES = ("thinking", "direct")


@command
def export(
    checkpoint: Checkpoint = "final",
    folder: RunFolder = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Where to write it (without it RUN/export/CHECKPOINT).", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a checkpoint as a Hugging Face folder."""
    run = existing_run(folder)
    from pipeline.export import export_checkpoint

    written = export_checkpoint(
        run.path, checkpoint, out or run.path / "export" / checkpoint.replace("/", "_")
    )
    if as_json:
        print_json({"checkpoint": checkpoint, "path": str(written)})
    else:
        print(f"{checkpoint} is in {written}")


@command
def chat(
    checkpoint: Checkpoint = "final",
    folder: RunFolder = None,
    mode: Annotated[str, typer.Option(help="thinking or direct.")] = "thinking",
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", help="Ask this once instead of talking.")
    ] = None,
) -> None:
    """Talk to a checkpoint of a run."""
    if mode not in MODES:
        raise UsageError(f"Expected --mode {' or '.join(MODES)}, got {mode!r}.")
    run = existing_run(folder)
    config, _ = load_config(None, [run.path / "config.yaml"])
    from pipeline.chat import chat as talk

    talk(run.path, checkpoint, mode, prompt, config)
