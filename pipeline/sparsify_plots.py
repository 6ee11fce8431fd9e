"""The pictures of sparsify: its layers over both phases, and the needle test. PNG and SVG in `runs/<run>/plots/`."""

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
    VERMILION,
    Curve,
    Event,
    legend_above,
    save,
    series,
    smooth_curve,
    style,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PHASES = {"warm-up": "warmup", "sparse": "sparse_training"}
"""Phases as `domain` of the events names them, and what the report holds at the end of each."""

PRECISIONS = {
    "bf16": ("bf16", BLUE, "s"),
    "fp8": ("fp8", VERMILION, "v"),
    "fp8_hadamard": ("fp8, rotated", GREEN, "^"),
}

NAMED_LAYERS = 3
"""Up to so many layers have a legend; more have a colour bar."""


def plot_sparsify(run_folder: Path, report: Mapping[str, Any], events: Iterable[Event]) -> list[Path]:
    """Draws what the stage measured; `report` is its own `report.json`. Gives the files."""
    rows = [event for event in events if event.get("stage") == "sparsify"]
    folder = run_folder / "plots"
    return [*_plot_layers(folder, report, rows), *plot_needles(folder, report.get("needle", {}))]


def _plot_layers(folder: Path, report: Mapping[str, Any], rows: Sequence[Event]) -> list[Path]:
    if not rows:
        return []
    with style() as plt:
        figure, ((kl, mass, loss), (ties, margin, precision)) = plt.subplots(2, 3, figsize=(13.2, 7.2))
        _draw_layers(kl, rows, report, "kl", measured=False)
        kl.set(title="Indexer against attention", ylabel="KL, nats per token", yscale="log")
        _draw_layers(mass, rows, report, "topk_mass", scale=100)
        mass.set(title="Dense attention on the selected keys", ylabel="share of the mass, %")
        mass.set_ylim(top=101)
        _draw_losses(loss, rows, report)
        _draw_layers(ties, rows, report, "tie_rate", scale=100)
        ties.set(title="Ties at the k-th score", ylabel="share of the queries, %")
        ties.set_ylim(bottom=0)
        _draw_layers(margin, rows, report, "margin")
        margin.set(title="Margin of the k-th score", ylabel="distance to the next", yscale="log")
        _draw_precisions(precision, report.get("recall_by_precision", {}))
        for axes in (kl, mass, loss, ties, margin):
            _mark_phases(axes, rows)
        for axes in (kl, mass, loss, ties, margin, precision):
            axes.set_title(axes.get_title(loc="left"), pad=26)  # one height, with room for a legend
        figure.get_layout_engine().set(h_pad=0.12, w_pad=0.08)
        return save(figure, folder, "sparsify")


def _draw_layers(
    axes: Axes, rows: Sequence[Event], report: Mapping[str, Any], figure: str, scale: float = 1.0, measured: bool = True
) -> None:
    """One line for each layer: of the training batches, or `measured` on held-out texts with the phase's end."""
    prefix = f"heldout/{figure}/layer_" if measured else f"{figure}/layer_"
    layers = sorted({name.removeprefix(prefix) for row in rows for name in row if name.startswith(prefix)})
    colours, width = _layer_colours(len(layers)), 2.0 if len(layers) <= NAMED_LAYERS else 1.0
    for place, (layer, colour) in enumerate(zip(layers, colours, strict=True)):
        curve = _both_phases(rows, f"{prefix}{layer}")
        if measured:
            curve = _with_end(curve, rows, report, place, figure)
            axes.plot(curve[0], scale * curve[1], color=colour, linewidth=width, marker="o", markersize=1.2 * width)
        else:
            smooth_curve(axes, *curve, colour=colour)
    if 0 < len(layers) <= NAMED_LAYERS:
        lines = [axes.plot([], [], color=colour)[0] for colour in colours]
        named = [f"layer {int(layer)}" for layer in layers]
        axes.legend(
            lines, named, loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=3, columnspacing=1.0, handlelength=1
        )
    elif layers:
        _colour_bar(axes, len(layers))


def _draw_losses(axes: Axes, rows: Sequence[Event], report: Mapping[str, Any]) -> None:
    """The sparse model on held-out texts, and the dense twin on the same ones."""
    curve = _both_phases(rows, "heldout/loss")
    if len(curve[0]):
        steps, values = curve
        end = report.get("sparse_training", {}).get("loss")
        if end is not None:
            steps, values = np.append(steps, _steps(rows)), np.append(values, end)
        axes.plot(steps, values, color=BLUE, marker="o", markersize=2.5, label="sparse")
    twin = report.get("dense", {}).get("loss")
    if twin is not None:
        axes.axhline(twin, color=DARK, linewidth=1.2, linestyle=(0, (4, 2)), label="dense twin")
    axes.set(title="LM loss on held-out texts", ylabel="nats per token")
    legend_above(axes)


def _draw_precisions(axes: Axes, recall: Mapping[str, Sequence[float]]) -> None:
    """What the selection keeps of the dense attention when the indexer is rounded, against the indexer as trained."""
    from matplotlib.ticker import MaxNLocator

    axes.set(title="Rounding the indexer", xlabel="layer", ylabel="attention mass kept, change in points")
    trained = np.array(recall.get("unrounded", ()))
    if not len(trained):
        axes.text(0.5, 0.5, "no sequence has more keys than top-k", ha="center", color=GREY, transform=axes.transAxes)
        return
    for name, (label, colour, marker) in PRECISIONS.items():
        if name in recall:
            change = 100 * (np.array(recall[name]) - trained)
            axes.plot(range(len(change)), change, marker=marker, color=colour, label=label, linewidth=1.2)
    axes.axhline(0, color=GREY, linewidth=1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_above(axes)


def plot_needles(folder: Path, needle: Mapping[str, Sequence[Mapping[str, Any]]], name: str = "needle") -> list[Path]:
    """Heat maps over length and depth: how often the dense twin and the sparse model find the needle, and the share
    of layers whose indexer selected it."""
    panels = [
        ("Dense twin finds it", needle.get("dense", ()), "accuracy"),
        ("Sparse model finds it", needle.get("sparse", ()), "accuracy"),
        ("Layers that select it", needle.get("sparse", ()), "selected"),
    ]
    panels = [panel for panel in panels if panel[1]]
    if not panels:
        return []
    with style() as plt:
        figure, drawn = plt.subplots(1, len(panels), figsize=(1.2 + 3.9 * len(panels), 3.7), squeeze=False, sharey=True)
        for axes, (title, rows, figure_name) in zip(drawn.flat, panels, strict=True):
            image = _draw_map(axes, rows, figure_name)
            axes.set_title(title, pad=10)
        drawn[0, 0].set_ylabel("depth of the needle, %")
        bar = figure.colorbar(image, ax=drawn, ticks=[0, 0.5, 1], pad=0.015)
        bar.ax.set_yticklabels(["0 %", "50 %", "100 %"])
        bar.outline.set_visible(False)
        samples = panels[0][1][0]["n"]
        figure.suptitle(
            f"A number hidden in a haystack, {samples} samples a cell; guessing finds 10 %", x=0.01, ha="left"
        )
        return save(figure, folder, name)


def _draw_map(axes: Axes, rows: Sequence[Mapping[str, Any]], name: str) -> Any:
    lengths, depths = (sorted({row[key] for row in rows}) for key in ("length", "depth"))
    values = np.full((len(depths), len(lengths)), np.nan)
    for row in rows:
        values[depths.index(row["depth"]), lengths.index(row["length"])] = row[name]
    image = axes.imshow(values, cmap="viridis", vmin=0, vmax=1, aspect="auto")
    for (y, x), value in np.ndenumerate(values):
        axes.text(x, y, f"{100 * value:.0f}", ha="center", va="center", color="white" if value < 0.6 else DARK)
    axes.set(
        xlabel="length, tokens",
        xticks=range(len(lengths)),
        xticklabels=[f"{n // 1024}K" if n % 1024 == 0 else str(n) for n in lengths],
        yticks=range(len(depths)),
        yticklabels=[f"{100 * depth:.0f}" for depth in depths],
    )
    axes.grid(visible=False)
    for side in axes.spines.values():
        side.set_visible(False)
    return image


def _both_phases(rows: Sequence[Event], key: str) -> Curve:
    """A metric over both phases, the steps of the second after those of the first."""
    first, second = (series([row for row in rows if row.get("domain") == phase], key) for phase in PHASES)
    second = second[0] + _steps(rows, "warm-up"), second[1]
    return np.concatenate([first[0], second[0]]), np.concatenate([first[1], second[1]])


def _with_end(curve: Curve, rows: Sequence[Event], report: Mapping[str, Any], layer: int, figure: str) -> Curve:
    """The curve with what was measured after the last step."""
    layers = report.get("sparse_training", {}).get("layers", [])
    if layer >= len(layers) or not len(curve[0]):
        return curve
    return np.append(curve[0], _steps(rows)), np.append(curve[1], layers[layer][figure])


def _steps(rows: Sequence[Event], phase: str | None = None) -> int:
    """Steps of a phase, or of both."""
    phases = PHASES if phase is None else (phase,)
    return sum(max((row["step"] + 1 for row in rows if row.get("domain") == name), default=0) for name in phases)


def _mark_phases(axes: Axes, rows: Sequence[Event]) -> None:
    axes.set_xlabel("step: dense warm-up | sparse training")
    axes.axvline(_steps(rows, "warm-up"), color=GREY, linewidth=1)


def _layer_colours(count: int) -> list[Any]:
    """Told apart where there are few, in order where there are many."""
    if count <= NAMED_LAYERS:
        return [BLUE, ORANGE, GREEN][:count]
    import matplotlib

    return list(matplotlib.colormaps["viridis"](np.linspace(0.0, 0.92, count)))


def _colour_bar(axes: Axes, count: int) -> None:
    import matplotlib
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize
    from matplotlib.ticker import MaxNLocator

    colours = ListedColormap(matplotlib.colormaps["viridis"](np.linspace(0.0, 0.92, 256)))
    bar = axes.figure.colorbar(
        ScalarMappable(Normalize(0, count - 1), colours),
        ax=axes,
        pad=0.02,
        label="layer",
        ticks=MaxNLocator(integer=True),
    )
    bar.outline.set_visible(False)
