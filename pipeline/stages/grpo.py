"""grpo: one mixed stage over all domains. Verifiable tasks are paid by rules, general ones by the GenRM's rubric."""

from __future__ import annotations

import threading

from pipeline.learning.rl import RLRun, run_rl
from pipeline.policy_worker import PolicySpec, PolicyWorker
from pipeline.stages import StageContext, StageResult
from pipeline.stages.common import artifact, device, input_path, needs_sandbox, start_grader, threads
from pipeline.tasks import enabled_domains, task_sources
from rollout.records import MODES, Task
from rollout.seeding import rng_for


def run(context: StageContext) -> StageResult:
    """Artifact: `checkpoint`, the final model."""
    config, rl, checkpoint = context.config, context.config.grpo, context.folder / "checkpoint"
    domains, sources = enabled_domains(config), task_sources(config)
    kl = {name: config.domains[name].kl_coef for name in domains}
    shares = {name: config.domains[name].share for name in domains}

    def tasks(step: int) -> list[Task]:
        counts = allot(shares, rl.prompts_per_step, config.seed, step)
        return [
            task for name in domains if counts[name]
            for task in sources[name].training("grpo", step, counts[name], MODES if step % 2 == 0 else MODES[::-1])
        ]  # fmt: skip

    spec = PolicySpec(
        checkpoint=str(input_path(context, "distill", "checkpoint")),
        state=str(context.folder / "state"),
        rl=rl,
        kl_coef={name: rl.kl_coef if value is None else value for name, value in kl.items()},
        threads=threads(config),
        device=device(config),
        sandboxed=needs_sandbox(config, domains),
    )
    with start_grader(context, domains) as grader:
        policy = context.runtime.spawn(PolicyWorker, spec, config, name="mixed policy", num_cpus=0.3)
        try:
            with context.progress.task("grpo", rl.steps) as bar:
                run_rl(
                    RLRun("grpo", "mixed", rl, tasks), config, policy, grader, context.events, context.folder.parent,
                    lambda step, metrics: bar.advance(step=step + 1, **metrics), threading.Event(),
                )  # fmt: skip
            policy.call("export", str(checkpoint)).result()
        finally:
            policy.stop()
    return StageResult({"checkpoint": artifact(context, checkpoint, "checkpoint")}, {"steps": rl.steps})


def allot(shares: dict[str, float], total: int, seed: int, step: int) -> dict[str, int]:
    """How many of `total` prompts each domain gets in a step: its share rounded down, the rest drawn by the fractions,
    so that over many steps every domain gets exactly its share."""
    weight = sum(shares.values())
    exact = {name: total * share / weight for name, share in shares.items()}
    counts = {name: int(value) for name, value in exact.items()}
    rng = rng_for(seed, "grpo", "allot", step)
    # Systematic sampling: one draw, evenly spaced marks, at most one more prompt per domain.
    mark, passed = rng.random(), 0.0
    for name, value in exact.items():
        passed += value - counts[name]
        if mark < passed - 1e-12:
            counts[name] += 1
            mark += 1.0
    return counts
