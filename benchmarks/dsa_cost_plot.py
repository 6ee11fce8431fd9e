"""The picture of `benchmarks.dsa_cost`: cost against position, prefill beside decode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.drawing import BLUE, DARK, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION, save, style

PARTS = {"indexer": SKY, "top-k": PURPLE, "attention": GREEN}
DENSE = (VERMILION, ORANGE, GREY)


def draw(result: dict[str, Any], path: Path) -> list[Path]:
    """Writes `path` as PNG and as SVG; gives the files."""
    with style() as plt:
        figure, axes = plt.subplots(1, 2, figsize=(11, 4.2))
        for panel, phase in zip(axes, ("prefill", "decode"), strict=True):
            _panel(panel, phase, result[phase])
        axes[0].set_ylabel("µs of one GPU for one token, one layer")
        title = (
            f"Attention of DeepSeek-V3.2's shape ({result['heads']} heads, k {result['k']}) on one {result['device']}"
        )
        figure.suptitle(f"{title}, {result['date'][:10]}", x=0.01, ha="left", fontsize=11)
        return save(figure, path.parent, path.stem)


def _panel(axes: Any, phase: str, found: dict[str, Any]) -> None:
    points = found["points"]
    positions = [p["position"] for p in points]
    names = [name for name in points[0] if name.startswith("dense")]
    for name, colour in zip(names, DENSE, strict=False):
        axes.plot(positions, [p[name] for p in points], color=colour, marker="o", markersize=3, label=name)
    axes.plot(positions, [p["dsa"] for p in points], color=BLUE, marker="o", markersize=3, label="DSA")
    for name, colour in PARTS.items():
        values = [p[name] for p in points]
        axes.plot(positions, values, color=colour, linewidth=1.2, linestyle="--", label=f"its {name}")
    where = found["crossover"]
    if where:
        axes.axvline(where, color=DARK, linewidth=0.8, linestyle=":")
        axes.annotate(
            f"DSA is cheaper\nfrom {where / 1024:.1f}K on",
            (where, axes.get_ylim()[1]),
            xytext=(5, -4),
            textcoords="offset points",
            va="top",
            fontsize=9,
        )
    axes.set_xscale("log", base=2)
    ticks = [p for p in positions if p & (p - 1) == 0]
    axes.set_xticks(ticks, [f"{t // 1024}K" if t >= 1024 else str(t) for t in ticks])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("token position")
    count = found["tokens_at_once"]
    axes.set_title(f"{phase}, " + (f"{count} queries at a time" if phase == "prefill" else f"batch {count}"))
    # Below the note at the line of the crossover, and over the line.
    place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (0.0, 0.82)} if where else {"loc": "upper left"}
    axes.legend(fontsize=8.5, frameon=True, facecolor="white", edgecolor="none", framealpha=1.0, **place)
