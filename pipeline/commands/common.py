"""What all commands share: options, where settings come from, and how errors and exit codes are told."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.config import DEFAULT_PRESET, Config, ConfigError, Origins, load_config, presets
from pipeline.config.schema import Config as Schema
from pipeline.errors import EXIT_INTERRUPTED, PipelineError, StageError, UsageError
from pipeline.runs import Run, Sources

Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings, e.g. grpo.steps=10.")
]
Preset = Annotated[
    str | None, typer.Option(
        "--preset",
        help=f"A preset ({', '.join(presets())}; without it {DEFAULT_PRESET}), or a YAML file.",
        show_default=False,
    ),
]
Files = Annotated[
    list[Path] | None, typer.Option("-c", "--config", help="YAML file of settings; later ones win.")
]
Sets = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="The same as KEY=VALUE.")]
RunFolder = Annotated[
    str | None, typer.Option("--run", help=f"Folder of the run (without it {Schema.run}).", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@dataclass(frozen=True)
class Settings:
    """Resolved settings with their origins, and whether a run remembered them."""

    config: Config
    origins: Origins
    sources: Sources
    remembered: bool

    def told(self) -> str:
        """One line for people: where the settings come from."""
        parts = [f"preset {self.sources.preset}", *self.sources.files]
        if self.sources.overrides:
            parts.append(" ".join(self.sources.overrides))
        line = f"settings: {', '.join(parts)}"
        return (
            f"{line} (remembered by {self.config.run}; --preset or -c starts over)"
            if self.remembered
            else line
        )


def command(body: Callable[..., None]) -> Callable[..., None]:
    """Tells errors as sentences (or JSON) on standard error and turns them into the exit code."""

    @functools.wraps(body)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            body(*args, **kwargs)
        except PipelineError as error:
            print_error(error, bool(kwargs.get("as_json")))
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            raise typer.Exit(EXIT_INTERRUPTED) from None

    return guarded


def print_error(error: PipelineError, as_json: bool) -> None:
    log = error.log if isinstance(error, StageError) else None
    if as_json:
        row: dict[str, Any] = {"error": error.message, "exit_code": error.exit_code, "go_on": error.go_on}
        if log is not None:
            row["log"] = str(log)
        if isinstance(error, ConfigError):
            row["problems"] = [
                {
                    "key": problem.key,
                    "message": problem.message,
                    "suggestion": problem.suggestion,
                    "origin": str(problem.origin) if problem.origin else None,
                }
                for problem in error.problems
            ]
        print(json.dumps(row, indent=2, ensure_ascii=False), file=sys.stderr)
        return
    print(error.message, file=sys.stderr)
    if log is not None:
        print(f"Details: {log}", file=sys.stderr)
    if error.go_on is not None:
        print(f"Go on with: {error.go_on}", file=sys.stderr)


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def split(arguments: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """Names of stages, and settings as key=value."""
    arguments = arguments or []
    return [word for word in arguments if "=" not in word], [word for word in arguments if "=" in word]


def only_overrides(arguments: Sequence[str] | None) -> list[str]:
    """Arguments that must all be settings."""
    names, overrides = split(arguments)
    if names:
        raise UsageError(f"Expected settings as key=value, got {names[0]!r}.")
    return overrides


def settings(
    preset: str | None, files: Sequence[Path] | None, overrides: Sequence[str], run: str | None
) -> Settings:
    """Resolves the settings of a command.

    With `--preset` or `-c` they come from there. Without, a run that exists is asked where its own came from,
    so that `pipeline run all --run X` goes on with what X began with; new overrides come on top of them.
    """
    in_overrides = [word.partition("=")[2] for word in overrides if word.startswith("run=")]
    overrides = [word for word in overrides if not word.startswith("run=")]
    folder = run or (in_overrides[-1] if in_overrides else None)
    before = Run(folder or Schema.run).sources() if preset is None and not files else None
    if before is not None:
        sources = Sources(before.preset, before.files, _last_of_each((*before.overrides, *overrides)))
    else:
        given = tuple(str(file.absolute()) for file in files or ())
        sources = Sources(preset or DEFAULT_PRESET, given, _last_of_each(overrides))
    try:
        config, origins = load_config(sources.preset, sources.files, sources.overrides)
    except ConfigError as error:
        if before is not None:
            name = folder or Schema.run
            error.message += (
                f"\nThe settings are those that {name} remembers; --preset or -c starts them over."
            )
        raise
    if folder is not None:
        config.run = folder
    return Settings(config, origins, sources, before is not None)


def existing_run(folder: str | None) -> Run:
    """The run in a folder; a usage error if there is none."""
    run = Run(folder or Schema.run)
    if not run.exists:
        raise UsageError(f"There is no run in {run.path}. `pipeline list` shows what there is.")
    return run


def _last_of_each(overrides: Sequence[str]) -> tuple[str, ...]:
    """The overrides without those that a later one of the same key replaces."""
    return tuple({word.partition("=")[0]: word for word in overrides}.values())
