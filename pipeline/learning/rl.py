"""The RL loop, from top to bottom: tasks, rollouts, rewards, one policy step, the log. Runs in the driver."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config.schema import Config, RLConfig
from pipeline.learning.canaries import CanaryWatch
from pipeline.learning.outages import OutageWatch
from pipeline.policy_worker import StepDone
from pipeline.runs import Events, write_rollouts
from pipeline.runtime import Handle
from pipeline.tasks import find_domain, is_judged, turn_limit
from rewards.types import Reward
from rollout.conversation import Trial
from rollout.records import Group, Task, Trajectory
from rollout.seeding import seed_for


@dataclass(frozen=True)
class RLRun:
    """One run of the loop.

    Attributes:
        stage: for the log: `specialists` or `grpo`.
        name: of the policy: a domain (and mode), or `mixed`.
        rl: settings.
        tasks: the tasks of a step, from its number.
    """

    stage: str
    name: str
    rl: RLConfig
    tasks: Callable[[int], list[Task]]


def run_rl(
    run: RLRun,
    config: Config,
    policy: Handle,
    grader: Handle,
    events: Events,
    folder: Path,
    on_step: Callable[[int, Mapping[str, float]], None],
    stop: threading.Event,
) -> None:
    """Runs the loop from the policy's last committed step to the end.

    Rollouts are on disk before the step is learned from (also those of a step that is refused: they show why), and the
    metrics are committed with the step, so that a step that was done but not logged before a crash is logged now, and
    none is missing or doubled.

    Raises:
        StageError: when too many rewards are invalid (see `OutageWatch`), or an actor is lost for good.
    """
    done: StepDone = policy.call("last").result()
    logged = {event["step"] for event in events.read(run.stage, run.name)}
    if done.steps > 0 and done.steps - 1 not in logged:
        events.log(run.stage, done.steps - 1, domain=run.name, **done.metrics)
    watch = OutageWatch(
        f"{run.stage}/{run.name}",
        config.rewards,
        lambda step, domain, text, news: events.alarm(run.stage, step, text, domain=domain, show=news),
    )
    canaries = CanaryWatch(
        f"{run.stage}/{run.name}",
        config.judge,
        lambda: grader.call("canaries").result(),
        lambda step, text, news: events.alarm(run.stage, step, text, domain="judge", show=news),
    )
    while done.steps < run.rl.steps and not stop.is_set():
        step, started = done.steps, time.monotonic()
        trajectories: list[Trajectory] = policy.call("rollout", make_trials(run, config, step)).result()
        rolled = time.monotonic()
        judged = any(is_judged(config, trajectory.task.domain) for trajectory in trajectories)
        checked = canaries.look(step) if judged else {}
        groups = grade(trajectories, grader, canaries.stopped)
        metrics = reward_metrics(groups) | checked
        metrics |= {"time/rollout_s": rolled - started, "time/grade_s": time.monotonic() - rolled}
        metrics["rollout_tokens"] = float(sum(len(t.token_ids) for t in trajectories))
        per_domain = by_domain(groups)
        for domain, of_domain in per_domain.items():
            name = run.name if len(per_domain) == 1 else domain
            write_rollouts(folder, run.stage, name, step, rollout_rows(of_domain, step, config.seed, run.rl))
        watch.look(step, groups)
        if len(per_domain) > 1:
            for domain, of_domain in per_domain.items():
                events.log(run.stage, step, domain=domain, **reward_metrics(of_domain))
        done = policy.call("update", step, groups, metrics).result()
        if done.steps <= step:
            continue
        seconds = time.monotonic() - started
        rate = metrics["rollout_tokens"] / seconds
        events.log(run.stage, step, domain=run.name, **done.metrics, **{"time/step_s": seconds, "tokens_per_s": rate})
        on_step(step, {"reward": metrics["reward"], "tokens_per_s": rate})


def make_trials(run: RLRun, config: Config, step: int) -> list[Trial]:
    """group_size trials of each task, each with a seed of its own name."""
    trials = []
    for task in run.tasks(step):
        domain = config.domains[task.domain]
        found = find_domain(task.domain, domain)
        for sample in range(domain.group_size):
            trials.append(
                Trial(
                    task,
                    sample,
                    seed_for(config.seed, run.stage, run.name, step, task.id, sample),
                    turn_limit(config, task.domain),
                    tuple(found.tools),
                    found.max_turns,
                )
            )
    return trials


def grade(trajectories: Sequence[Trajectory], grader: Handle, judge_stopped: str | None = None) -> list[Group]:
    """Groups in the order in which their tasks came: neighbours with one task id are one group. With `judge_stopped`
    the judge's rewards are invalid for that reason."""
    runs: list[list[Trajectory]] = []
    for trajectory in trajectories:
        if runs and runs[-1][0].task.id == trajectory.task.id and trajectory.attempt.sample != 0:
            runs[-1].append(trajectory)
        else:
            runs.append([trajectory])
    rewards: list[list[Reward]] = grader.call(
        "grade", [[t.attempt for t in run] for run in runs], judge_stopped
    ).result()
    return [Group(run[0].task, tuple(run), tuple(paid)) for run, paid in zip(runs, rewards, strict=True)]


def by_domain(groups: Sequence[Group]) -> dict[str, list[Group]]:
    parts: dict[str, list[Group]] = {}
    for group in groups:
        parts.setdefault(group.task.domain, []).append(group)
    return parts


def reward_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """Means over the samples of a step, under the names that TRL uses."""
    rewards = [reward for group in groups for reward in group.rewards]
    valid = [reward for reward in rewards if reward.valid]
    attempts = [t.attempt for group in groups for t in group.trajectories]
    spreads = [
        max(values) - min(values)
        for group in groups
        if len(values := [r.value for r in group.rewards if r.value is not None]) > 1
    ]
    metrics = {
        "reward": _mean([r.value for r in valid if r.value is not None]),
        "tokens": _mean([float(a.tokens) for a in attempts]),
        "pass_rate": _mean([float(r.passed) for r in valid if r.passed is not None]),
        "invalid": float(len(rewards) - len(valid)),
        "frac_reward_zero_std": _mean([float(spread < 1e-9) for spread in spreads]),
        "completions/clipped_ratio": _mean([float(not a.finished) for a in attempts]),
    }
    for name in sorted({c.name for reward in valid for c in reward.components}):
        parts = [c for reward in valid for c in reward.components if c.name == name]
        metrics[f"rewards/{name}/mean"] = _mean([c.contribution for c in parts])
    return metrics


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0


def rollout_rows(groups: Sequence[Group], step: int, run_seed: int, rl: RLConfig) -> list[dict[str, Any]]:
    """One row per trajectory for the dashboard's files: what was asked, written, paid, and why; `advantage` is what the
    policy is trained with."""
    rows = []
    for number, group in enumerate(groups):
        advantages = group.advantages(rl.scale_by_std, rl.advantage_normalization)
        for trajectory, reward, advantage in zip(group.trajectories, group.rewards, advantages, strict=True):
            attempt, task = trajectory.attempt, group.task
            rows.append(
                {
                    "step": step,
                    "domain": task.domain,
                    "family": task.family,
                    "task": task.id,
                    "mode": task.mode,
                    "language": task.language,
                    "group": number,
                    "sample": attempt.sample,
                    "seed": run_seed,
                    "weight_version": int(trajectory.versions.max()),
                    "prompt": task.prompt,
                    "completions": list(attempt.completions),
                    "tool_results": list(attempt.tool_results),
                    "stop_reason": attempt.stop_reason,
                    "tokens": attempt.tokens,
                    "reward": reward.value,
                    "passed": reward.passed,
                    "invalid_reason": reward.invalid_reason,
                    "advantage": None if math.isnan(advantage) else float(advantage),
                    "combination": reward.combination if reward.valid else None,
                    "components": [component.to_json() for component in reward.components],
                    "logprob_mean": float(trajectory.logprobs[trajectory.policy_mask].mean())
                    if trajectory.policy_mask.any()
                    else 0.0,
                }
            )
    return rows
