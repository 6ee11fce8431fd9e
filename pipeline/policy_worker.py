"""The policy's actor: learner and torch sampler in one process, on the same weights.

Idempotent: a request carries its step number, a finished step is committed to disk before its answer leaves, a
repeated request gets the stored answer, and `__init__` goes on from what was committed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config.schema import Config, RLConfig
from pipeline.sampler import environment_maker
from pipeline.sandboxes import open_sandbox
from rollout.conversation import Trial
from rollout.records import Group, Trajectory


@dataclass(frozen=True)
class PolicySpec:
    """What a policy worker is made of.

    Attributes:
        checkpoint: folder of the weights to start from.
        state: folder of the training states; None for a worker that only samples.
        rl: settings of the run; None for a worker that only samples.
        kl_coef: weight of the KL to the reference (the starting weights), per domain.
        threads: torch's threads.
        sandboxed: whether an environment of its domains runs code.
    """

    checkpoint: str
    state: str | None
    rl: RLConfig | None
    kl_coef: Mapping[str, float]
    threads: int
    device: str
    sandboxed: bool


@dataclass(frozen=True)
class StepDone:
    """How many steps are done, and the metrics of the last of them."""

    steps: int
    metrics: Mapping[str, float]


class PolicyWorker:
    """See the module. Built in the actor's process; the sandbox's helper starts before torch is imported."""

    uses_gpu = True

    def __init__(self, spec: PolicySpec, config: Config) -> None:
        self.spec, self.config = spec, config
        self.sandbox = open_sandbox(config.sandbox) if spec.sandboxed else None

        import torch
        from transformers import AutoTokenizer

        from rollout.chat import Chat
        from rollout.engine import TorchEngine

        torch.set_num_threads(spec.threads)
        self.chat = Chat(AutoTokenizer.from_pretrained(spec.checkpoint))
        self.step = 0
        self._metrics: dict[str, float] = {}
        self.model, self.learner = self._build()
        self.engine = TorchEngine(self.model, self.chat.end_token_id, version=self.step)

    def _build(self) -> tuple[Any, Any]:
        from model import load_checkpoint
        from pipeline.learning.checkpoints import latest_state
        from pipeline.learning.policy import PolicyLearner

        spec = self.spec
        saved = latest_state(Path(spec.state)) if spec.state else None
        weights = saved.folder / "model" if saved else Path(spec.checkpoint)
        model = load_checkpoint(weights, device=spec.device)
        model.batch_invariant = self.config.sampling.batch_invariant and spec.device == "cuda"
        if spec.rl is None:
            return model.eval(), None
        needs_reference = any(value > 0 for value in spec.kl_coef.values())
        reference = load_checkpoint(Path(spec.checkpoint), device=spec.device).eval() if needs_reference else None
        if reference is not None:
            reference.requires_grad_(False)
        learner = PolicyLearner(model, reference, spec.rl, spec.kl_coef, self.config.sampling.temperature)
        if saved:
            learner.load_state(saved.folder / "optimizer.pt")
            self.step, self._metrics = saved.step, dict(saved.extra["metrics"])
        return model, learner

    def rollout(self, trials: Sequence[Trial], temperature: float | None = None) -> list[Trajectory]:
        """Plays the trials with the current weights; a function of weights and seeds alone."""
        from rollout.conversation import run_trials

        sampling = self.config.sampling
        return run_trials(
            trials,
            self.engine,
            self.chat,
            environment_maker(self.config, self.sandbox),
            sampling.temperature if temperature is None else temperature,
            sampling.max_context,
        )

    def update(self, step: int, groups: Sequence[Group], metrics: Mapping[str, float]) -> StepDone:
        """Learns from step `step` (from 0) and commits it, with `metrics` of the rollouts added to its own.

        A step that is done already gets its stored answer. A worker that was restarted from an earlier commit cannot do
        the step: it says how many steps are done and the caller goes on from there.
        """
        if self.learner is None or self.spec.rl is None or self.spec.state is None:
            raise ValueError("this worker only samples")
        if step == self.step:
            self._metrics = {**metrics, **self.learner.update(groups, step)}
            self.step += 1
            self.engine.version = self.step
            if self.step % self.spec.rl.checkpoint_every == 0 or self.step == self.spec.rl.steps:
                self._commit()
        return StepDone(self.step, self._metrics)

    def last(self) -> StepDone:
        """The steps that are done, and the metrics of the last one."""
        return StepDone(self.step, self._metrics)

    def _commit(self) -> None:
        import torch

        from pipeline.learning.checkpoints import save_state

        assert self.spec.state is not None

        def write(folder: Path) -> None:
            self.model.save_pretrained(folder / "model")
            torch.save(self.learner.state(), folder / "optimizer.pt")

        save_state(Path(self.spec.state), self.step, write, {"metrics": self._metrics})

    def export(self, path: str) -> None:
        """Writes the current weights with the tokenizer as a checkpoint folder."""
        from model import save_checkpoint

        save_checkpoint(self.model, self.chat.tokenizer, Path(path))

    def close(self) -> None:
        if self.sandbox is not None:
            self.sandbox.close()
