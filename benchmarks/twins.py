"""The sparse policy beside its dense twin: held-out quality, and RL under the same seeds.

Two runs of the pipeline that differ in one setting, `sparsify.attention`: the same base, the same continued training on
the same batches, the same specialists' RL. They share the stages that the setting does not touch.
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.drawing import BLUE, DARK, ORANGE, save, smooth_curve, style
from pipeline.report import domain_rate, domains_of

COLOURS = {"dense": ORANGE, "sparse": BLUE}
CHECKED = {"sparsified": "After sparse training", "specialists": "After the specialists' RL"}
SETTING = "evaluate.checkpoints=[base,sparsified,specialists]"
SHARED = ("base", "judge")


def run_twins(folder: Path, preset: str, settings: list[str]) -> dict[str, Any]:
    """Runs both (or goes on with them) and returns what they measured."""
    found: dict[str, Any] = {}
    for kind in ("sparse", "dense"):
        run = folder / kind
        if kind == "dense" and not run.exists():
            # The same stage keys, so that the second run finds them done.
            for stage in SHARED:
                shutil.copytree(folder / "sparse" / stage, run / stage)
        command = ["run", "evaluate", "--preset", preset, "--run", str(run), SETTING, f"sparsify.attention={kind}"]
        subprocess.run([sys.executable, "-m", "pipeline.cli", *command, *settings], check=True)
        found[kind] = _measured(run)
    return found


def _measured(run: Path) -> dict[str, Any]:
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    steps: dict[str, dict[str, list[Any]]] = {}
    seen: dict[tuple[str, int], Mapping[str, Any]] = {}
    for line in (run / "events.jsonl").read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        if event.get("stage") == "specialists":
            seen[event["domain"], event["step"]] = event
    for (domain, _), event in sorted(seen.items(), key=lambda item: item[0]):
        curve = steps.setdefault(domain, {"step": [], "reward": [], "tokens": []})
        curve["step"].append(event["step"])
        curve["reward"].append(event["reward"])
        curve["tokens"].append(event["tokens"])
    rates: dict[str, dict[str, list[float]]] = {}
    for checkpoint in ("base", "sparsified", "specialists"):
        for domain in domains_of(report):
            rate, (low, high) = domain_rate(report, checkpoint, domain) or (math.nan, (math.nan, math.nan))
            rates.setdefault(checkpoint, {})[domain] = [rate, low, high]
    return {"rates": rates, "curves": steps}


def table(twins: Mapping[str, Any]) -> str:
    """Held-out pass rates of both, per domain, before and after RL, in per cent with 95 % intervals."""
    head = "".join(f"{kind:>22}" for _ in CHECKED for kind in COLOURS)
    lines = [f"{'':15}{'after sparse training':>44}{'after RL':>44}", f"{'domain':15}{head}"]
    for domain in twins["sparse"]["rates"]["sparsified"]:
        cells = [twins[kind]["rates"][checkpoint][domain] for checkpoint in CHECKED for kind in COLOURS]
        row = "".join(f"{f'{100 * rate:.1f} ({100 * low:.0f} to {100 * high:.0f})':>22}" for rate, low, high in cells)
        lines.append(f"{domain:15}{row}")
    return "\n".join(lines)


def draw_quality(twins: Mapping[str, Any], folder: Path, name: str) -> list[Path]:
    """Bars: held-out pass rate of each domain, dense beside sparse, after sparse training and after RL."""
    domains = list(twins["sparse"]["rates"]["sparsified"])
    place = np.arange(len(domains))
    with style() as plt:
        figure, panels = plt.subplots(1, 2, figsize=(11, 3.8), sharey=True)
        for axes, (checkpoint, title) in zip(panels, CHECKED.items(), strict=True):
            for shift, (kind, colour) in zip((-0.2, 0.2), COLOURS.items(), strict=True):
                rates = 100 * np.array([twins[kind]["rates"][checkpoint][domain] for domain in domains])
                around = np.abs(rates[:, 1:].T - rates[:, 0])
                axes.bar(place + shift, rates[:, 0], 0.38, yerr=around, color=colour, ecolor=DARK, label=kind)
            axes.set(title=title, xticks=place)
            axes.set_xticklabels(domains, rotation=20, ha="right")
        panels[0].set(ylabel="held-out tasks passed, %", ylim=(0, 118), yticks=range(0, 101, 20))
        panels[0].legend(loc="upper left", ncols=2)
        return save(figure, folder, name)


def draw_curves(twins: Mapping[str, Any], folder: Path, name: str) -> list[Path]:
    """Reward and tokens of an answer over the steps of each specialist, dense and sparse under the same seeds."""
    domains = list(twins["sparse"]["curves"])
    with style() as plt:
        size = (max(6, 2.9 * len(domains)), 5.2)
        figure, panels = plt.subplots(2, len(domains), figsize=size, squeeze=False, sharex="col")
        for column, domain in enumerate(domains):
            for row, key in enumerate(("reward", "tokens")):
                for kind, colour in COLOURS.items():
                    curve = twins[kind]["curves"][domain]
                    steps, values = np.array(curve["step"]), np.array(curve[key], dtype=float)
                    smooth_curve(panels[row][column], steps, values, colour, kind)
            panels[0][column].set_title(domain)
            panels[1][column].set_xlabel("step")
        panels[0][0].set_ylabel("mean reward")
        panels[1][0].set_ylabel("tokens of an answer")
        panels[0][0].legend()
        return save(figure, folder, name)
