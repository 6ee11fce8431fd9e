"""What `pipeline run` would do: what is done, what is stale and why, what it needs and the time it takes."""

from __future__ import annotations

import dataclasses
import importlib.resources
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.config.keys import did_you_mean
from pipeline.config.schema import Config
from pipeline.errors import UsageError
from pipeline.machine import Resource, requirements
from pipeline.runs import Manifest, Run, last_steps
from pipeline.stages import STAGES, StageSpec

PlanState = Literal["cached", "stale", "interrupted", "failed", "missing", "running"]


@dataclass(frozen=True)
class StagePlan:
    """One stage as it stands.

    Attributes:
        needs: stages that it reads under the settings.
        state: cached (nothing to do), stale (done under other settings or inputs), interrupted or
            failed (goes on from its last step), missing (never begun), running (by another process now).
        reasons: why it is not cached.
        steps: last step logged, by domain (empty name for the stage itself).
        seconds: estimated time; None if nobody measured it.
        measured: where the estimate is from.
    """

    name: str
    does: str
    needs: tuple[str, ...]
    state: PlanState
    reasons: tuple[str, ...] = ()
    steps: dict[str, int] = dataclasses.field(default_factory=dict)
    seconds: float | None = None
    measured: str | None = None


@dataclass(frozen=True)
class Plan:
    """The stages in order, and what the run needs."""

    run: str
    stages: tuple[StagePlan, ...]
    resources: tuple[Resource, ...]

    @property
    def ahead(self) -> list[StagePlan]:
        """The stages that will run."""
        return [part for part in self.stages if part.state != "cached"]

    @property
    def seconds(self) -> float | None:
        """Estimated time of everything that will run; None if one part is not known."""
        parts = [plan.seconds for plan in self.ahead]
        return (
            None if any(part is None for part in parts) else sum(part for part in parts if part is not None)
        )

    def to_json(self) -> dict[str, Any]:
        row = dataclasses.asdict(self)
        row["resources"] = [dataclasses.asdict(need) | {"short": need.short} for need in self.resources]
        return row | {"seconds": self.seconds}


def check_targets(names: Sequence[str]) -> list[str]:
    """Names of stages with `all` written out.

    Raises:
        UsageError: for a name that is no stage.
    """
    known = [spec.name for spec in STAGES]
    for name in names:
        if name not in (*known, "all"):
            meant = did_you_mean(name, [*known, "all"])
            raise UsageError(
                f"There is no stage {name!r}; expected {', '.join(known)}, all, or a setting as key=value."
                + (f" Did you mean {meant}?" if meant else "")
            )
    return known if "all" in names else [name for name in known if name in names]


def all_or_names(targets: Sequence[str]) -> list[str]:
    """The targets as a person would write them: `all` for every stage."""
    return ["all"] if {spec.name for spec in STAGES} <= set(targets) else list(targets)


def with_needs(targets: Collection[str], config: Config) -> list[StageSpec]:
    """The targets and all that they need, in the order in which they run."""
    wanted = set(targets)
    for spec in reversed(STAGES):
        if spec.name in wanted:
            wanted.update(spec.needs_under(config))
    return [spec for spec in STAGES if spec.name in wanted]


@dataclass(frozen=True)
class Standing:
    """How a stage stands against the settings and inputs of now; `now` is the manifest that it would get."""

    state: PlanState
    reasons: tuple[str, ...]
    now: Manifest
    before: Manifest | None

    @property
    def goes_on(self) -> bool:
        """Whether what is in its folder is a beginning of the same work."""
        return (
            self.before is not None
            and self.before.key == self.now.key
            and self.state in ("interrupted", "failed")
        )


def stand(run: Run, spec: StageSpec, config: Config, force: bool = False) -> Standing:
    """Compares a stage's manifest with the settings, the inputs on record and the outputs on disk."""
    inputs: dict[str, str] = {}
    for name in spec.needs_under(config):
        needed = run.stage_manifest(name)
        if needed is not None and needed.state == "done":
            inputs |= needed.hashes()
    before = run.stage_manifest(spec.name)
    now = Manifest.new(spec, config, inputs, before)
    if before is None:
        return Standing("missing", (), now, None)
    if force:
        return Standing("stale", ("forced",), now, before)
    if before.key != now.key:
        return Standing("stale", tuple(before.differences(now)), now, before)
    if before.state == "done":
        damage = tuple(before.damage(run.path))
        return Standing("stale" if damage else "cached", damage, now, before)
    if before.state == "failed":
        return Standing("failed", (before.error or "no reason on record",), now, before)
    driver = run.driver()
    if before.state == "running" and driver is not None and not driver.is_me:
        return Standing("running", (), now, before)
    return Standing("interrupted", (), now, before)


def make_plan(
    run: Run, config: Config, targets: Sequence[str], force: Collection[str] = (), preset: str | None = None
) -> Plan:
    """The plan for some stages and all that they need. Reads only."""
    steps = last_steps(run.events.read())
    again: set[str] = set()
    plans = []
    for spec in with_needs(targets, config):
        standing = stand(run, spec, config, spec.name in force)
        state, reasons = standing.state, standing.reasons
        needs = spec.needs_under(config)
        waits = [name for name in needs if name in again]
        if waits and state in ("cached", "stale"):
            state = "stale"
            first = tuple(f"input {name}/" for name in waits)
            own = tuple(reason for reason in reasons if not reason.startswith(first))
            reasons = own or (f"{', '.join(waits)} will run first; kept if that leaves the same as before",)
        if state not in ("cached", "running"):
            again.add(spec.name)
        seconds, measured = _estimate(spec, standing, preset)
        at = {domain or "": step for (name, domain), step in steps.items() if name == spec.name}
        plans.append(StagePlan(spec.name, spec.does, needs, state, reasons, at, seconds, measured))
    return Plan(str(run.path), tuple(plans), tuple(requirements(config)))


def blocked_by(plan: Plan, targets: Collection[str]) -> list[StagePlan]:
    """Needed stages that are not targets and not cached: what `--no-deps` refuses to run."""
    needed = {name for part in plan.stages if part.name in targets for name in part.needs}
    return [part for part in plan.ahead if part.name in needed - set(targets)]


def step_text(steps: dict[str, int], stage: str = "") -> str:
    """`12`, `12 (math)`, or `math 12, code 9`; a stage that logs under its own name need not repeat it."""
    if len(steps) == 1:
        ((domain, step),) = steps.items()
        return f"{step} ({domain})" if domain not in ("", stage) else str(step)
    return ", ".join(f"{domain} {step}".strip() for domain, step in steps.items())


def _estimate(spec: StageSpec, standing: Standing, preset: str | None) -> tuple[float | None, str | None]:
    """Seconds that a stage will take and where that is from: `configs/timings.json` (scripts/write_timings.py)."""
    before = standing.before
    if before is not None and before.state == "done":
        return before.seconds, "this run's last time"
    try:
        text = (importlib.resources.files("configs") / "timings.json").read_text(encoding="utf-8")
        row = json.loads(text)[preset or ""]
        total = float(row[spec.name])
        measured = f"{row.get('device', 'unknown device')}, {row.get('date', 'undated')}"
    except (OSError, ValueError, KeyError, TypeError):
        return None, None
    spent = before.seconds if before is not None and standing.goes_on else 0.0
    return max(0.0, total - spent), measured
