"""What the audit tells: tables for people, JSON for programs (its schema is documented in `docs/audit.md`)."""

from __future__ import annotations

import dataclasses
import platform
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline.audit.runner import MIN_HONEST_RATE, CaseRow, PolicyRow, Report
from pipeline.audit.workbench import sample_of
from pipeline.runs.versions import git_commit, package_version

SCHEMA = 1
"""Version of the JSON; it changes when a field changes its meaning or goes."""
SHOWN, KEPT = 90, 2000
"""Characters of a sample in a table and in the JSON."""


def report_json(report: Report, tier: str) -> dict[str, Any]:
    """The whole report as JSON values."""
    return {
        "schema": SCHEMA,
        "target": report.target,
        "ok": report.ok,
        "provenance": {
            "version": package_version(),
            "commit": git_commit(),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "python": platform.python_version(),
            "sandbox_tier": tier,
            "seconds": round(report.seconds, 3),
        },
        "summary": {
            "exploits": len(report.exploits),
            "exploits_paid": sum(not row.ok for row in report.exploits),
            "honest": len(report.honest),
            "honest_refused": sum(not row.ok for row in report.honest),
            "false_negative_rate": 1.0 - report.honest_rate,
            "policies": len(report.policies),
            "policies_paid": sum(not row.ok for row in report.policies),
            "probes": len(report.probes),
            "probes_failed": sum(not row.ok for row in report.probes),
        },
        "areas": [{"area": name, **dataclasses.asdict(count)} for name, count in report.areas().items()],
        "guess_rates": dict(report.guess_rates),
        "cases": [_case_json(row) for row in report.cases],
        "policies": [_policy_json(row) for row in report.policies],
        "probes": [dataclasses.asdict(row) for row in report.probes],
    }


def _case_json(row: CaseRow) -> dict[str, Any]:
    case = row.case
    return {
        "id": case.id,
        "area": case.area,
        "honest": case.honest,
        "must": case.payment,
        "floor": case.floor if case.payment == "floor" else None,
        "at_least": case.at_least if case.honest else None,
        "paid": row.payment.value,
        "ok": row.ok,
        "reason": row.payment.reason,
        "error": row.payment.error,
        "seconds": round(row.seconds, 4),
        "note": case.note,
        "sample": _printable(sample_of(case))[:KEPT],
    }


def _policy_json(row: PolicyRow) -> dict[str, Any]:
    record = {**dataclasses.asdict(row), "ok": row.ok, "sample": _printable(row.sample)[:KEPT]}
    return {**record, "errors": list(row.errors), "reasons": list(row.reasons)}


def _printable(text: str) -> str:
    """Without lone surrogates, which no UTF-8 file can hold."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def print_report(report: Report, console: Console, tier: str) -> None:
    """Tables: counts per area, policies, probes, then whatever failed, with its sample."""
    if report.exploits:
        console.print(_exploits(report))
    if report.honest:
        console.print(_honest(report))
    if report.policies:
        console.print(_policies(report))
    if report.probes:
        console.print(_probes(report))
    for row in report.failures:
        _print_failure(row, console)
    for policy in report.policies:
        if not policy.ok:
            earned = f"earned {policy.mean:.3f}: {_line(policy.sample)}"
            what = f"raised {policy.errors[0]}" if policy.errors else earned
            console.print(f"{policy.domain}, {policy.mode}, {policy.policy}: {what}", markup=False, soft_wrap=True)
    for line in _conclusion(report, tier):
        console.print(line, markup=False, soft_wrap=True)


def _exploits(report: Report) -> Table:
    table = _table("Exploits", "area", "cases", "not paid", "invalid", "paid")
    for name, count in report.areas().items():
        if count.exploits:
            refused = count.exploits - count.exploits_paid - count.exploits_invalid
            told = (count.exploits, refused, count.exploits_invalid)
            table.add_row(name, *map(str, told), _alarm(count.exploits_paid))
    return table


def _honest(report: Report) -> Table:
    table = _table("Honest answers", "area", "cases", "paid", "refused", "invalid", "false negatives")
    for name, count in report.areas().items():
        if count.honest:
            wrong = count.honest - count.honest_paid
            told = (str(count.honest), str(count.honest_paid), _alarm(wrong - count.honest_invalid))
            table.add_row(name, *told, _alarm(count.honest_invalid), f"{wrong / count.honest:.1%}")
    return table


def _alarm(count: int) -> str:
    return f"[red]{count}[/]" if count else "0"


def _policies(report: Report) -> Table:
    """Per domain and mode the policy that comes closest to its floor, or is furthest above it; all are in the JSON."""
    table = _table("Policies that know nothing", "domain", "mode", "plays", "best paid", "earns", "may", "blind guess")
    for domain, mode in dict.fromkeys((row.domain, row.mode) for row in report.policies):
        rows = [row for row in report.policies if (row.domain, row.mode) == (domain, mode)]
        best = max(rows, key=lambda row: (not row.ok, row.mean))
        rate = report.guess_rates.get(domain)
        table.add_row(
            domain,
            mode,
            f"{len(rows)} x {best.tasks}",
            best.policy if best.mean else "none",
            f"[{'green' if best.ok else 'red'}]{best.mean:.3f}[/]",
            f"{best.floor:.3f}",
            "" if rate is None else f"{rate:.3f}",
        )
    return table


def _probes(report: Report) -> Table:
    table = Table("probe", "verdict", "found", title="Probes", title_justify="left")
    for row in report.probes:
        table.add_row(row.name, "[green]ok[/]" if row.ok else "[red]failed[/]", _line(row.found).replace("[", r"\["))
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for name in columns:
        table.add_column(name, justify="left" if name in ("area", "domain", "mode", "best paid") else "right")
    return table


def _print_failure(row: CaseRow, console: Console) -> None:
    case, paid = row.case, row.payment
    got = paid.error or ("invalid" if paid.value is None else f"paid {paid.value:.3g}")
    must = {
        "zero": "must get 0",
        "invalid": "must be invalid",
        "floor": f"may get {case.floor:g}",
        "paid": f"must get {case.at_least:g}",
    }[case.payment]
    console.print(f"{case.id}: {got} ({paid.reason}), {must}. {case.note}", markup=False, soft_wrap=True)
    if sample := sample_of(case):
        console.print(f"    {_line(sample)}", markup=False, soft_wrap=True)


def _line(text: str) -> str:
    """One printable line for the table."""
    line = "".join(c if c.isprintable() else " " for c in " ".join(text.split()))
    return line if len(line) <= SHOWN else f"{line[:SHOWN]}…"


def _conclusion(report: Report, tier: str) -> list[str]:
    lines = []
    if report.cases:
        paid = sum(not row.ok for row in report.exploits)
        written = [row for row in report.honest if not row.case.name.startswith("demonstration of ")]
        lines.append(
            f"{paid} of {len(report.exploits)} exploits are paid; {sum(row.ok for row in report.honest)} of "
            f"{len(report.honest)} honest answers are paid ({len(written)} written, "
            f"{len(report.honest) - len(written)} domain demonstrations): false-negative rate "
            f"{1 - report.honest_rate:.2%}, at most {1 - MIN_HONEST_RATE:.0%} is accepted."
        )
    if report.policies:
        earning = sum(not row.ok for row in report.policies)
        lines.append(f"{earning} of {len(report.policies)} plays of policies that know nothing earn too much.")
    lines.append(f"Sandbox: {tier}. {report.seconds:.1f} s. {'All is well.' if report.ok else 'The audit failed.'}")
    return lines
