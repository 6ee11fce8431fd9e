"""Writes how long the stages of a preset take, as `pipeline plan` estimates it, from a finished run of this machine.

    python scripts/write_timings.py RUN_FOLDER PRESET

It sets the entry of the preset in configs/timings.json and leaves those of other presets:

    {"tiny": {"base": 415.2, "sparsify": 97.0, …, "device": "<CPU>, 2 cores", "date": "2026-11-23"}}

Numbers are seconds of all attempts at a stage.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from pipeline.config import load_config
from pipeline.machine import device_name
from pipeline.runs import Run, write_json
from pipeline.runs.manifest import stage_settings
from pipeline.stages import STAGES

FILE = Path(__file__).resolve().parents[1] / "configs" / "timings.json"


def timings(run: Run, preset: str) -> dict[str, float | str]:
    """The entry of a preset.

    Raises:
        ValueError: if a stage of the run is not done, or ran with other settings than those of the preset.
    """
    config, _ = load_config(preset)
    entry: dict[str, float | str] = {}
    dates = []
    for spec in STAGES:
        manifest = run.stage_manifest(spec.name)
        if manifest is None or manifest.state != "done":
            raise ValueError(f"{run.path}: stage {spec.name} is {manifest.state if manifest else 'missing'}, not done")
        wanted = stage_settings(spec, config)
        others = [key for key in wanted | manifest.settings if wanted.get(key) != manifest.settings.get(key)]
        if others:
            named = ", ".join(others)
            raise ValueError(f"{run.path}: {spec.name} ran with other settings than preset {preset}: {named}")
        entry[spec.name] = round(manifest.seconds, 1)
        dates.append((manifest.finished or "")[:10])
    return entry | {"device": device_name(), "date": max(dates)}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("preset", help="the preset that it ran with")
    parser.add_argument("--file", type=Path, default=FILE, help="the file to write (default: %(default)s)")
    given = parser.parse_args(arguments)
    try:
        entry = timings(Run(given.run), given.preset)
    except ValueError as error:
        sys.exit(str(error))
    known = json.loads(given.file.read_text(encoding="utf-8")) if given.file.is_file() else {}
    write_json(given.file, known | {given.preset: entry})
    print(f"{given.file}: {given.preset} {json.dumps(entry, ensure_ascii=False)}")


if __name__ == "__main__":
    main()
