"""The tables of `python -m benchmarks.kernels`: for a terminal of 120 columns, and for the README."""

from __future__ import annotations

from typing import Any

from benchmarks.rivals import NOT_COMPARABLE

HEAD = (
    f"{'':<31}{'ms':>8} {'rate':>9} {'share':>5}  {'rival':<16} {'ms':>8} {'ratio':>6} {'error':>8} {'scratch':>8}"
    f" {'first':>6} bits"
)
WIDTH = 120
STATES = {True: "yes", False: "no", None: "unknown"}


def table(result: dict[str, Any]) -> str:
    """One line for each row, then the targets, then the rivals that did not start."""
    rows = [{"title": name, **row} for name, row in result["rows"].items()]
    lines = [result["device"], *_ceilings(rows), HEAD, *map(_line, rows)]
    lines += ["", f"{'':<31}{'must':<30}{'':>18}  aim"]
    lines += [
        f"{row['title']:<31}{_target(row.get('must')):<48}{_target(row.get('aim'))}"
        for row in rows
        if "must" in row or "aim" in row
    ]
    profiles = [(row["title"], row["kernels_ms"]) for row in rows if row.get("kernels_ms")]
    lines += ["", "Kernels of the calls that miss a target:"] if profiles else []
    for title, times in profiles:
        lines += [f"{title if not i else '':<31}{ms:>8.3f}  {name}" for i, (name, ms) in enumerate(times.items())]
    missing = {
        f"{name}, {row['title']}: {entry['state']}"
        for row in rows
        for name, entry in row.get("rivals", {}).items()
        if entry["state"] != "measured"
    }
    if any(row.get("ratio") and row["ratio"]["noted"] for row in rows):
        lines += ["", "* The rival was not measured here; its time is one noted on an H200 on 2026-11-22."]
    lines += ["", "Rivals that did not run:", *sorted(missing)]
    lines += [f"{name}: {why}" for name, why in NOT_COMPARABLE.items()]
    return "\n".join(line[:WIDTH] for line in lines)


def markdown(result: dict[str, Any]) -> str:
    """The README's table."""
    columns = "kernel, shape", "ours", "ceiling", "rival", "ratio", "error", "scratch", "first call", "must", "aim"
    lines = [f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]
    for row in result["rows"].values():
        if "failed" in row:
            continue
        ours, ratio = row["ours"], row["ratio"]
        cells = [
            f"{row['title']}, {row['shape']}",
            f"{_ms(ours['ms'])}, {_rate(ours['rate'])} {row['unit']}",
            _percent(row["share"]),
            f"{ratio['to']} {_ms(ratio['ms'])}{_star(ratio)}" if ratio else "",
            f"{ratio['value']:.2f}" if ratio else "",
            f"{ours['error']:.1e}",
            _bytes(ours["scratch_bytes"]),
            f"{ours['first_call_s']:.1f} s",
            *(f"{t['target']}: {STATES[t['reached']]}" if (t := row.get(which)) else "" for which in ("must", "aim")),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _ms(value: float) -> str:
    return f"{value:.0f} ms" if value >= 100 else f"{value:.3g} ms"


def _ceilings(rows: list[dict[str, Any]]) -> list[str]:
    best = rows[-1]["measured"]["ceilings"] if rows and "measured" in rows[-1] else None
    if best is None:
        return []
    fp8 = f", FP8 {best['fp8_tflops']:.0f} TFLOPS" if best["fp8_tflops"] else ""
    return [f"ceilings: copy {best['copy_tbs']:.2f} TB/s, GEMM BF16 {best['bf16_tflops']:.0f} TFLOPS{fp8}", ""]


def _line(row: dict[str, Any]) -> str:
    if "failed" in row:
        return f"{row['title']:<31}FAILED: {row['failed']}"
    ours, ratio = row["ours"], row["ratio"]
    unit = {"TFLOPS": "TF", "TB/s": "TB"}[row["unit"]]
    rival = (
        f"{ratio['to'][:16]:<16} {ratio['ms']:>8.3f} {ratio['value']:>5.2f}{_star(ratio) or ' '}" if ratio else " " * 32
    )
    return (
        f"{row['title']:<31}{ours['ms']:>8.3f} {_rate(ours['rate']):>6} {unit} {_percent(row['share']):>5}  {rival}"
        f" {ours['error']:>8.1e} {_bytes(ours['scratch_bytes']):>8} {ours['first_call_s']:>4.1f} s"
        f" {'same' if ours['same_bits'] else 'DIFFER'}"
    )


def _target(target: dict[str, Any] | None) -> str:
    if target is None:
        return ""
    value = "" if target["value"] is None else f" ({target['value']:.3g})"
    return f"{target['target']}: {STATES[target['reached']]}{value}"


def _star(ratio: dict[str, Any]) -> str:
    return "*" if ratio["noted"] else ""


def _rate(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2f}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %"


def _bytes(count: int | None) -> str:
    if count is None:
        return ""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
