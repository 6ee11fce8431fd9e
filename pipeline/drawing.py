"""How the pictures of a run look: colours, style, curves and files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Event = Mapping[str, Any]
Curve = tuple[np.ndarray, np.ndarray]

# Okabe and Ito's palette: told apart by people with any kind of colour vision.
ORANGE, SKY, GREEN, BLUE, VERMILION, PURPLE = "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7"
GREY, DARK = "#9AA0A6", "#30343B"

STYLE: Any = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": DARK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E8EB",
    "text.color": DARK,
    "xtick.color": DARK,
    "ytick.color": DARK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "lines.linewidth": 2.0,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 160,
    "svg.fonttype": "none",
    "svg.hashsalt": "polymath",
}


@contextmanager
def style() -> Iterator[Any]:
    """pyplot in this project's style, without a screen."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with plt.rc_context(STYLE):
        yield plt


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{name}.{suffix}" for suffix in ("png", "svg")]
    for file in files:
        figure.savefig(file, facecolor="white", metadata={"Date": None} if file.suffix == ".svg" else None)
    plt.close(figure)
    return files


def series(rows: Iterable[Event], key: str) -> Curve:
    """Steps and values of a metric, where it was measured."""
    chosen = [row for row in rows if row.get(key) is not None]
    return np.array([row["step"] for row in chosen]), np.array([row[key] for row in chosen], dtype=float)


def after(first: Curve, second: Curve) -> Curve:
    """The second curve moved to where the first ends."""
    return second[0] + (first[0][-1] + 1 if len(first[0]) else 0), second[1]


def smooth_curve(axes: Axes, steps: np.ndarray, values: np.ndarray, colour: str, label: str | None = None) -> None:
    """The values, faint, under their centred moving mean over a tenth of the run."""
    if not len(steps):
        return
    window = max(1, len(values) // 10) | 1
    padded = np.pad(values, window // 2, mode="edge")
    mean = np.convolve(padded, np.full(window, 1 / window), mode="valid")
    if window > 1:
        axes.plot(steps, values, color=colour, linewidth=0.9, alpha=0.3)
    axes.plot(steps, mean, color=colour, label=label)


def legend_above(axes: Axes) -> None:
    """One row between the title (which leaves room for it) and the axes."""
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=8, columnspacing=1.2, handlelength=1)
