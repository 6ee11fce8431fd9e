"""The figures of a run: `report.json`, the table people read, and the bars that a run has to pass.

The form of a report:

    {"evaluate": {checkpoint: {domain: {mode: {
         "pass_rate", "ci95", "n", "mean_tokens", "language_consistency"}}}},
     "timings": {stage: seconds}, "versions": {package: version},
     "checks": [{"name", "value", "bar", "ok"}], …}

Checkpoints are those of `pipeline.stages.CHECKPOINTS`; under `specialists` every domain has the figures of its own
specialist.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.runs.atomic import write_json
from pipeline.stages import CHECKPOINTS
from pipeline.statistics import Interval, mean_of_rates, wilson

REPORT = "report.json"
"""Its name in the run's folder."""

TITLES = {"specialists": "specialist"}

Cell = Mapping[str, Any]
Modes = Mapping[str, Cell]


class Check(NamedTuple):
    """A figure that has to reach `bar`; `value` and `ok` are None where it was not measured."""

    name: str
    value: float | None
    bar: float
    ok: bool | None


def summarize(outcomes: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The cell of one checkpoint, domain and mode from its held-out samples.

    An outcome has `passed` (None where no grader could tell: it is left out and counted as `invalid`),
    `tokens` written, and `language_consistency` in [0, 1] or None.
    """
    judged, invalid = [], 0
    for outcome in outcomes:
        if outcome["passed"] is None:
            invalid += 1
        else:
            judged.append(outcome)
    n, passes = len(judged), sum(bool(outcome["passed"]) for outcome in judged)
    low, high = wilson(passes, n)
    shares = [o["language_consistency"] for o in judged if o.get("language_consistency") is not None]
    cell = {
        "pass_rate": passes / n if n else 0.0,
        "ci95": [low, high],
        "n": n,
        "mean_tokens": _mean([float(outcome["tokens"]) for outcome in judged]),
        "language_consistency": _mean(shares),
    }
    return cell | {"invalid": invalid} if invalid else cell


def build_report(
    evaluations: Mapping[str, Mapping[str, Modes]],
    timings: Mapping[str, Any],
    versions: Mapping[str, Any],
    **extra: Any,
) -> dict[str, Any]:
    """The report of a run; `extra` may hold `sparsify`, `judge` and other stages' figures. Adds `checks`.

    Raises:
        ValueError: for a checkpoint that is not one of `CHECKPOINTS`.
    """
    if unknown := sorted(set(evaluations) - set(CHECKPOINTS)):
        raise ValueError(f"unknown checkpoint {unknown[0]!r}; expected one of {', '.join(CHECKPOINTS)}")
    ordered = {name: evaluations[name] for name in CHECKPOINTS if name in evaluations}
    report: dict[str, Any] = {
        "evaluate": ordered,
        "timings": dict(timings),
        "versions": dict(versions),
        **extra,
    }
    report["checks"] = [check._asdict() for check in checks(report)]
    return report


def write_report(run_folder: Path, report: Mapping[str, Any]) -> Path:
    """Writes `report.json` into the run's folder, whole or not at all; gives its path."""
    path = run_folder / REPORT
    write_json(path, report)
    return path


def domains_of(report: Mapping[str, Any]) -> list[str]:
    """Domains of the report in the order in which they first appear."""
    return list(dict.fromkeys(domain for domains in report["evaluate"].values() for domain in domains))


def domain_rate(report: Mapping[str, Any], checkpoint: str, domain: str) -> tuple[float, Interval] | None:
    """Pass rate of a domain, mean of its modes, with interval; None where it was not measured."""
    modes: Modes = report["evaluate"].get(checkpoint, {}).get(domain, {})
    cells = [(cell["pass_rate"], (cell["ci95"][0], cell["ci95"][1])) for cell in modes.values() if cell["n"]]
    return mean_of_rates(cells) if cells else None


def mean_rate(report: Mapping[str, Any], checkpoint: str) -> tuple[float, Interval] | None:
    """Mean over the domains; None unless every domain of the report was measured."""
    rates = [domain_rate(report, checkpoint, domain) for domain in domains_of(report)]
    known = [rate for rate in rates if rate is not None]
    return mean_of_rates(known) if known and len(known) == len(rates) else None


def checks(report: Mapping[str, Any]) -> list[Check]:
    """The figures that say whether the recipe worked; every one must be at least its bar."""
    gain = _smallest(report, "specialists", "sparsified")
    loss = _smallest(report, "final", "specialists")
    cells = list(_cells(report))
    fewest = min((float(cell["n"]) for cell in cells), default=None)
    return [
        _check(f"smallest gain of a specialist over sparsified, points{gain[1]}", gain[0], 20.0),
        _check("distilled, % of the specialists' mean", _share(report, "distilled"), 85.0),
        _check("final, % of the specialists' mean", _share(report, "final"), 95.0),
        _check(f"smallest final minus specialist, points{loss[1]}", loss[0], -5.0),
        _check("fewest held-out tasks of a domain and mode", fewest, 200.0),
    ]


def print_table(report: Mapping[str, Any], console: Console) -> None:
    """Prints the table, what it says in a few sentences, and the checks."""
    if not domains_of(report):
        console.print("No checkpoint was evaluated.")
        return
    modes = list(dict.fromkeys(mode for by in report["evaluate"].values() for d in by.values() for mode in d))
    table = Table(
        box=box.SIMPLE_HEAD,
        title="Held-out pass rate, %",
        title_style="bold",
        caption=f"± half of the 95 % interval, change against the column before; below: {' / '.join(modes)}",
        padding=(0, 1),
    )
    table.add_column("domain")
    columns = [name for name in CHECKPOINTS if report["evaluate"].get(name)]
    for name in columns:
        table.add_column(TITLES.get(name, name), justify="right", no_wrap=True)
    for domain in domains_of(report):
        rates = [domain_rate(report, name, domain) for name in columns]
        details = [_modes_text(report["evaluate"][name].get(domain, {}), modes) for name in columns]
        pairs = zip(_row(rates), details, strict=True)
        # Padded to the width of the line above, so that both begin in one column.
        table.add_row(
            Text(domain), *(Text.assemble(rate, "\n", (d.ljust(len(rate)), "dim")) for rate, d in pairs)
        )
    table.add_section()
    table.add_row(Text("mean", "bold"), *_row([mean_rate(report, name) for name in columns]))
    console.print(table)
    console.print(summary(report), highlight=False)
    console.print()
    made = checks(report)
    for check in made:
        mark, style = {True: ("✓", "green"), False: ("✗", "bold red"), None: ("·", "dim")}[check.ok]
        value = (
            "not measured" if check.value is None else f"{_shown(check.value)}, at least {_shown(check.bar)}"
        )
        console.print(Text.assemble((f" {mark} ", style), f"{check.name}: ", (value, style)))
    fewest = made[-1]
    if fewest.ok is False:
        console.print("With so few tasks the other figures are mostly chance: they show that it runs, not how well.")


def summary(report: Mapping[str, Any]) -> str:
    """What the table says, in a few sentences; empty where too little was measured."""
    means = {name: 100 * rate[0] for name in CHECKPOINTS if (rate := mean_rate(report, name))}
    sentences = []
    if "specialists" in means and "sparsified" in means:
        before, after = means["sparsified"], means["specialists"]
        sentences.append(
            f"Specialists {after - before:+.0f} points over the sparsified base "
            f"({before:.0f} → {after:.0f} %)."
        )
    for name, what in (("distilled", "The distilled generalist has"), ("final", "The final model has")):
        if (share := _share(report, name)) is not None:
            sentences.append(f"{what} {share:.0f} % of the specialists' mean.")
    last = next((name for name in reversed(CHECKPOINTS) if name in report["evaluate"]), None)
    if last:
        tokens: dict[str, list[float]] = {}
        for modes in report["evaluate"][last].values():
            for mode, cell in modes.items():
                tokens.setdefault(mode, []).append(cell["mean_tokens"])
        parts = [f"{_mean(counts):.0f} tokens in {mode} mode" for mode, counts in tokens.items()]
        sentences.append(f"Answers of {TITLES.get(last, last)} take {' and '.join(parts)}.")
    seconds = [value for value in report.get("timings", {}).values() if isinstance(value, int | float)]
    if seconds:
        sentences.append(f"The stages before evaluation took {_duration(sum(seconds))}.")
    return " ".join(sentences)


def _cells(report: Mapping[str, Any]) -> Iterator[Cell]:
    for domains in report["evaluate"].values():
        for modes in domains.values():
            yield from modes.values()


def _smallest(report: Mapping[str, Any], name: str, other: str) -> tuple[float | None, str]:
    """The smallest difference of a domain between two checkpoints, in points, and ` (domain)`."""
    found = []
    for domain in domains_of(report):
        first, second = domain_rate(report, name, domain), domain_rate(report, other, domain)
        if first is None or second is None:
            return None, ""
        # Rounded, so that equal rates tie whatever the order of their sums.
        found.append((round(100 * (first[0] - second[0]), 6), f" ({domain})"))
    return min(found, key=lambda pair: pair[0], default=(None, ""))


def _share(report: Mapping[str, Any], name: str) -> float | None:
    """Mean pass rate as a percentage of the specialists'."""
    rate, specialists = mean_rate(report, name), mean_rate(report, "specialists")
    if rate is None or specialists is None or specialists[0] == 0:
        return None
    return 100 * rate[0] / specialists[0]


def _check(name: str, value: float | None, bar: float) -> Check:
    # Rates are fractions of counts: the tolerance is for rounding in their sums only.
    return Check(name, value, bar, None if value is None else value >= bar - 1e-9)


def _row(rates: list[tuple[float, Interval] | None]) -> list[Text]:
    """The cells of a row: rate, half width of its interval, coloured change against the cell before."""
    texts, before = [], None
    for rate in rates:
        if rate is None:
            texts.append(Text("–", "dim"))
            continue
        mean, (low, high) = rate
        text = Text.assemble((f"{100 * mean:.0f}", "bold"), (f" ±{50 * (high - low):.0f}", "dim"))
        if before is not None:
            change = round(100 * mean) - round(100 * before)
            style = "green" if change > 0 else "red" if change < 0 else "dim"
            text.append(f" {change:+4d}" if change else "   ±0", style)
        texts.append(text)
        before = mean
    return texts


def _modes_text(cells: Modes, modes: list[str]) -> str:
    parts = [f"{100 * cells[mode]['pass_rate']:.0f}" if mode in cells else "–" for mode in modes]
    return " / ".join(parts)


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0


def _shown(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
