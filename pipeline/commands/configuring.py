"""`config show`, `config explain` and `config validate`."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.commands.common import (
    AsJson,
    Files,
    Overrides,
    Preset,
    RunFolder,
    Sets,
    command,
    only_overrides,
    print_json,
    settings,
    split,
)
from pipeline.config.explain import explain, to_dict, to_yaml, with_origins
from pipeline.errors import UsageError

app = typer.Typer(no_args_is_help=True, help="Show, explain and check the settings.")


@app.command()
@command
def show(
    words: Overrides = None,
    preset: Preset = None,
    files: Files = None,
    sets: Sets = None,
    folder: RunFolder = None,
    origin: Annotated[bool, typer.Option("--origin", help="Say where each value was set.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print the resolved settings."""
    chosen = settings(preset, files, [*only_overrides(words), *(sets or [])], folder)
    rows = list(with_origins(chosen.config, chosen.origins))
    if as_json and origin:
        print_json({key: {"value": value, "origin": where} for key, value, where in rows})
    elif as_json:
        print_json(to_dict(chosen.config))
    elif origin:
        width = max(len(f"{key}: {value}") for key, value, _ in rows if len(value) < 30)
        for key, value, where in rows:
            print(f"{f'{key}: {value}':{width}}  # {where}")
    else:
        print(to_yaml(chosen.config), end="")


@app.command("explain")
@command
def explain_key(
    words: Annotated[list[str], typer.Argument(metavar="KEY [KEY=VALUE]...", help="A setting or a section.")],
    preset: Preset = None,
    files: Files = None,
    sets: Sets = None,
    folder: RunFolder = None,
    as_json: AsJson = False,
) -> None:
    """Say what a setting means, its type, range, default and value, and where that was set."""
    keys, overrides = split(words)
    if len(keys) != 1:
        raise UsageError("Expected one key, e.g. pipeline config explain grpo.clip_high.")
    chosen = settings(preset, files, [*overrides, *(sets or [])], folder)
    row = explain(keys[0], chosen.config, chosen.origins)
    if as_json:
        print_json(row)
        return
    console = Console(highlight=False)
    console.print(f"[bold]{row['key']}[/]  ({row['type']})")
    if row["help"]:
        console.print(f"  {row['help']}", markup=False, soft_wrap=True)
    if "keys" in row:
        table = Table("key", "value", "type", "meaning", box=None, pad_edge=False)
        for inner in row["keys"]:
            value = _value(inner["value"]) if "value" in inner else ""
            table.add_row(*(Text(cell) for cell in (inner["key"], value, inner["type"], inner["help"])))
        console.print(table)
    for name, label in (
        ("must be", "must be"),
        ("default", "default"),
        ("value", "value"),
        ("set", "set in"),
    ):
        if name in row:
            console.print(f"  {label}: {_value(row[name])}", markup=False, soft_wrap=True)


@app.command()
@command
def validate(
    words: Overrides = None,
    preset: Preset = None,
    files: Files = None,
    sets: Sets = None,
    folder: RunFolder = None,
    as_json: AsJson = False,
) -> None:
    """Check the settings and name every mistake."""
    chosen = settings(preset, files, [*only_overrides(words), *(sets or [])], folder)
    if as_json:
        print_json({"ok": True, "problems": []})
    else:
        print(f"The settings are valid ({chosen.told().removeprefix('settings: ')}).")


def _value(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)
