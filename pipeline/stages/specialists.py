"""specialists: from the same sparse checkpoint, one policy per domain (and mode) by GRPO, in waves that fit."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, as_completed

from pipeline.config.schema import Config
from pipeline.learning.rl import RLRun, run_rl
from pipeline.policy_worker import PolicySpec, PolicyWorker
from pipeline.stages import StageContext, StageResult
from pipeline.stages.common import (
    artifact,
    device,
    input_path,
    needs_judge,
    needs_sandbox,
    specialist_rl,
    start_grader,
    threads,
)
from pipeline.tasks import TaskSource, enabled_domains, find_domain, turn_limit
from rollout.records import MODES, Mode, Task


def run(context: StageContext) -> StageResult:
    """Artifacts: a checkpoint per specialist, named by its domain, or `<domain>-<mode>` with `modes: separate`."""
    config = context.config
    choice = specialist_modes(config.specialists.modes)
    jobs = [(domain, modes) for domain in enabled_domains(config) for modes in choice]
    wave = min(config.specialists.wave, len(jobs)) if context.runtime.parallel else 1
    stop = threading.Event()
    with start_grader(context, [domain for domain, _ in jobs]) as grader, ThreadPoolExecutor(wave) as pool:
        # The longest first, so that none is left alone at the end.
        futures = [
            pool.submit(_train, context, domain, modes, grader, threads(config, wave), stop)
            for domain, modes in sorted(jobs, key=lambda job: _most_tokens(config, job[0]), reverse=True)
        ]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            stop.set()
            for future in futures:
                future.cancel()
            raise
    names = [specialist_name(domain, modes) for domain, modes in jobs]
    return StageResult(
        {name: artifact(context, context.folder / name / "checkpoint", "checkpoint") for name in names},
        {"specialists": len(names), "steps": sum(specialist_rl(config, domain).steps for domain, _ in jobs)},
    )


def _most_tokens(config: Config, domain: str) -> int:
    """Tokens that one sample of each prompt may cost, over the whole run."""
    written = find_domain(domain, config.domains[domain]).max_turns * turn_limit(config, domain)
    # A judge reads the answer and writes a verdict for each of some three criteria.
    judged = 3 * (written + config.judge.max_new_tokens) if needs_judge(config, [domain]) else 0
    return specialist_rl(config, domain).steps * (written + judged)


def specialist_name(domain: str, modes: tuple[Mode, ...]) -> str:
    return domain if len(modes) > 1 else f"{domain}-{modes[0]}"


def specialist_modes(choice: str) -> list[tuple[Mode, ...]]:
    return [MODES] if choice == "joint" else [(mode,) for mode in MODES]


def _train(
    context: StageContext, domain: str, modes: tuple[Mode, ...], grader: object, torch_threads: int,
    stop: threading.Event,
) -> None:  # fmt: skip
    config, name = context.config, specialist_name(domain, modes)
    checkpoint = context.folder / name / "checkpoint"
    if stop.is_set() or checkpoint.is_dir():
        return
    rl, source = specialist_rl(config, domain), TaskSource(domain, config.domains[domain], config.seed)
    kl = config.domains[domain].kl_coef
    spec = PolicySpec(
        checkpoint=str(input_path(context, "sparsify", "checkpoint")),
        state=str(context.folder / name / "state"),
        rl=rl,
        kl_coef={domain: rl.kl_coef if kl is None else kl},
        threads=torch_threads,
        device=device(config),
        sandboxed=needs_sandbox(config, [domain]),
    )

    def tasks(step: int) -> list[Task]:
        return source.training(f"specialists/{name}", step, rl.prompts_per_step, modes)

    policy = context.runtime.spawn(PolicyWorker, spec, config, name=f"specialist {name}", num_cpus=0.3)
    try:
        with context.progress.task(name, rl.steps) as bar:
            run_rl(
                RLRun("specialists", name, rl, tasks), config, policy, grader, context.events,  # type: ignore[arg-type]
                context.folder.parent, lambda step, metrics: bar.advance(step=step + 1, **metrics), stop,
            )  # fmt: skip
        if not stop.is_set():
            policy.call("export", str(checkpoint)).result()
    finally:
        policy.stop()


