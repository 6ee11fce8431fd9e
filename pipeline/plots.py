"""The pictures of a run, PNG and SVG in `runs/<run>/plots/`. Each function takes plain dicts and draws what
is there; it gives no file where nothing was measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.drawing import (
    BLUE,
    DARK,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    Curve,
    Event,
    after,
    legend_above,
    save,
    series,
    smooth_curve,
    style,
)
from pipeline.report import TITLES, domain_rate, domains_of
from pipeline.stages import CHECKPOINTS
from specialists import DOMAINS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PHASES = {
    "untrained_indexer": "untrained",
    "warmup": "after warm-up",
    "sparse_training": "after sparse training",
}
"""Measurements in the report of sparsify, and their titles."""

CHECKPOINT_COLOURS = dict(zip(CHECKPOINTS, (GREY, SKY, ORANGE, GREEN, BLUE), strict=True))
DOMAIN_COLOURS = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY)

def write_plots(run_folder: Path, report: Mapping[str, Any], events: Sequence[Event]) -> list[Path]:
    """Draws all that was measured; gives the files.

    `report` is `pipeline.report.build_report`'s. `events` have `stage`, `step`, `domain` and the stage's
    metrics: `reward` and `tokens` in `specialists` and `grpo`; `loss` in `base`; `loss` and `indexer_kl` in
    `sparsify`, whose two phases, `warm-up` and `sparse`, stand in `domain` and both count their steps from 0.
    """
    folder = run_folder / "plots"
    return [
        *plot_pass_rates(folder, report),
        *plot_specialists(folder, events),
        *plot_grpo(folder, events),
        *plot_base(folder, events, report.get("sparsify", {})),
    ]


def plot_pass_rates(folder: Path, report: Mapping[str, Any]) -> list[Path]:
    """Grouped bars: pass rate per domain (mean of modes) with 95 % interval, one bar for each checkpoint."""
    domains = domains_of(report)
    present = [name for name in CHECKPOINTS if report["evaluate"].get(name)]
    if not domains:
        return []
    with style() as plt:
        figure, axes = plt.subplots(figsize=(max(6.0, 1.0 + 1.55 * len(domains)), 4.4))
        width = 0.84 / len(present)
        for index, name in enumerate(present):
            rates = [(at, rate) for at, d in enumerate(domains) if (rate := domain_rate(report, name, d))]
            at = [place + (index - (len(present) - 1) / 2) * width for place, _ in rates]
            heights = np.array([100 * mean for _, (mean, _) in rates])
            limits = np.array([[100 * low, 100 * high] for _, (_, (low, high)) in rates]).T
            label, colour = TITLES.get(name, name), CHECKPOINT_COLOURS[name]
            axes.bar(at, heights, width * 0.92, label=label, color=colour)
            reach = np.abs(limits - heights)
            axes.errorbar(at, heights, reach, fmt="none", ecolor=DARK, elinewidth=1, capsize=2, alpha=0.75)
        axes.set(ylim=(0, 100), ylabel="pass rate, %", xticks=range(len(domains)), xticklabels=domains)
        axes.set_title("Held-out pass rate by domain", pad=30)
        axes.grid(axis="x", visible=False)
        legend_above(axes)
        return save(figure, folder, "pass_rate")


def plot_specialists(folder: Path, events: Iterable[Event]) -> list[Path]:
    """Small multiples, one panel for each specialist: reward and tokens per step."""
    curves = _by_domain(events, "specialists")
    if not curves:
        return []
    with style() as plt:
        columns = min(3, len(curves))
        rows = -(-len(curves) // columns)
        size = (3.7 * columns, 0.5 + 2.5 * rows)
        figure, panels = plt.subplots(rows, columns, figsize=size, squeeze=False, sharex=True, sharey=True)
        most = max(
            (row["tokens"] for by in curves.values() for row in by if row.get("tokens") is not None),
            default=1.0,
        )
        for panel in panels.flat[len(curves) :]:
            panel.set_visible(False)
        for index, (domain, rows_of) in enumerate(curves.items()):
            axes = panels.flat[index]
            smooth_curve(axes, *series(rows_of, "reward"), colour=BLUE)
            axes.set_title(domain)
            other = axes.twinx()
            other.plot(*series(rows_of, "tokens"), color=ORANGE, linewidth=1.4, linestyle=(0, (4, 1.5)))
            other.set_ylim(0, 1.15 * most)
            other.grid(visible=False)
            last = index % columns == columns - 1 or index == len(curves) - 1
            other.set_ylabel("tokens per answer" if last else "", color="#A66F00")
            other.tick_params(axis="y", labelright=last, labelcolor="#A66F00")
            if index % columns == 0:
                axes.set_ylabel("mean reward", color=BLUE)
            axes.tick_params(axis="y", labelcolor=BLUE)
            if index + columns >= len(curves):
                axes.set_xlabel("RL step")
                axes.tick_params(labelbottom=True)
        figure.suptitle(
            "Specialists: reward (solid) and answer length (dashed)", x=0.01, ha="left", weight="bold"
        )
        return save(figure, folder, "specialists")


def plot_grpo(folder: Path, events: Iterable[Event]) -> list[Path]:
    """The mixed stage: reward and tokens per step, one line for each domain."""
    curves = _by_domain(events, "grpo")
    if not curves:
        return []
    with style() as plt:
        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.9))
        for index, (domain, rows) in enumerate(curves.items()):
            colour = DOMAIN_COLOURS[index % len(DOMAIN_COLOURS)]
            smooth_curve(left, *series(rows, "reward"), colour=colour, label=domain)
            smooth_curve(right, *series(rows, "tokens"), colour=colour, label=domain)
        left.set(title="Mixed GRPO: reward", xlabel="RL step", ylabel="mean reward")
        right.set(title="Mixed GRPO: answer length", xlabel="RL step", ylabel="tokens per answer")
        right.set_ylim(bottom=0)
        right.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=1.2)
        return save(figure, folder, "grpo")


def plot_base(folder: Path, events: Iterable[Event], sparsify: Mapping[str, Any]) -> list[Path]:
    """Language-model loss of pre-training and sparse training, the indexer's KL, and the share of the dense
    attention mass that the selected keys hold in each layer (`sparsify` is the stage's report: for each phase
    in `PHASES` the `layers` with their `topk_mass`)."""
    chosen = [event for event in events if event.get("stage") in ("base", "sparsify")]
    base = series([event for event in chosen if event["stage"] == "base"], "loss")
    warmup, sparse = ([e for e in chosen if e.get("domain") == phase] for phase in ("warm-up", "sparse"))
    shares = {
        title: [layer["topk_mass"] for layer in sparsify[phase]["layers"]]
        for phase, title in PHASES.items()
        if sparsify.get(phase, {}).get("layers")
    }
    panels = [bool(len(base[0])), bool(warmup or sparse), bool(shares)]
    if not any(panels):
        return []
    with style() as plt:
        figure, drawn = plt.subplots(1, sum(panels), figsize=(0.6 + 4.2 * sum(panels), 3.7), squeeze=False)
        free = iter(drawn.flat)
        if panels[0]:
            _draw_losses(next(free), base, series(sparse, "loss"))
        if panels[1]:
            _draw_divergence(next(free), series(warmup, "indexer_kl"), series(sparse, "indexer_kl"))
        if panels[2]:
            _draw_shares(next(free), shares)
        for axes in drawn.flat:
            axes.set_title(axes.get_title(loc="left"), pad=26)  # one height, with room for a legend
        return save(figure, folder, "base")


def _draw_losses(axes: Axes, base: Curve, sparse: Curve) -> None:
    """Pre-training and, after it on the same axis, sparse training."""
    smooth_curve(axes, *base, colour=BLUE, label="pre-training")
    smooth_curve(axes, *after(base, sparse), colour=GREEN, label="sparse training")
    axes.set(title="Language-model loss", xlabel="optimizer step", ylabel="loss, nats per token")
    axes.set_ylim(bottom=0)
    legend_above(axes)


def _draw_divergence(axes: Axes, warmup: Curve, sparse: Curve) -> None:
    """KL from the dense attention to the indexer's, over both phases of sparsify."""
    smooth_curve(axes, *warmup, colour=PURPLE, label="dense warm-up")
    smooth_curve(axes, *after(warmup, sparse), colour=GREEN, label="sparse training")
    axes.set(
        title="Indexer against attention",
        xlabel="step of sparsify",
        ylabel="KL, nats per token",
        yscale="log",
    )
    legend_above(axes)


def _draw_shares(axes: Axes, shares: Mapping[str, Sequence[float]]) -> None:
    colours = (GREY, SKY, BLUE, GREEN)
    width = 0.8 / len(shares)
    layers = max(len(values) for values in shares.values())
    for index, (name, values) in enumerate(shares.items()):
        at = np.arange(len(values)) + (index - (len(shares) - 1) / 2) * width
        bars = axes.bar(at, 100 * np.array(values), width * 0.9, label=name, color=colours[index % 4])
        if layers * len(shares) <= 8:
            axes.bar_label(bars, fmt="%.0f", fontsize=8, padding=2)
    axes.set(
        title="Dense attention kept by the indexer",
        xlabel="layer",
        ylabel="attention mass in top-k, %",
        ylim=(0, 108),
        xticks=range(layers),
    )
    axes.set_yticks(range(0, 101, 20))
    axes.grid(axis="x", visible=False)
    legend_above(axes)


def _by_domain(events: Iterable[Event], stage: str) -> dict[str, list[Event]]:
    """Events of a stage that have a reward, by domain in the order of the registry, in the order of their steps."""
    found: dict[str, list[Event]] = {}
    for event in events:
        if event.get("stage") == stage and event.get("domain") and event.get("reward") is not None:
            found.setdefault(event["domain"], []).append(event)
    known = {domain: place for place, domain in enumerate(DOMAINS)}
    ordered = sorted(found.items(), key=lambda item: known.get(item[0].partition("-")[0], len(known)))
    return {domain: sorted(rows, key=lambda row: row["step"]) for domain, rows in ordered}


