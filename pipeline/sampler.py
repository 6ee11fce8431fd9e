"""The sampler's actor: plays trials with whichever checkpoint a request names. For distillation and evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline.config.schema import Config
from pipeline.sandboxes import open_sandbox
from pipeline.tasks import find_domain
from rewards.sandbox import SandboxWorker
from rollout.conversation import Trial
from rollout.environment import Environment
from rollout.records import Task, Trajectory


def environment_maker(config: Config, sandbox: SandboxWorker | None) -> Callable[[Task], Environment | None]:
    """What `run_trials` makes a task's world with."""

    def make(task: Task) -> Environment | None:
        return find_domain(task.domain, config.domains[task.domain]).environment(task, sandbox)

    return make


class Sampler:
    """Answers are a function of checkpoint, trials and temperature alone. The sandbox's helper starts before torch."""

    uses_gpu = True

    def __init__(self, config: Config, torch_threads: int, device: str, sandboxed: bool) -> None:
        self.config, self.device = config, device
        self.sandbox = open_sandbox(config.sandbox) if sandboxed else None

        import torch

        torch.set_num_threads(torch_threads)
        self._loaded = ""

    def sample(self, checkpoint: str, trials: Sequence[Trial], temperature: float) -> list[Trajectory]:
        """The trajectories of the trials, in order."""
        from rollout.conversation import run_trials

        self._load(checkpoint)
        make = environment_maker(self.config, self.sandbox)
        context = self.config.sampling.max_context
        return run_trials(trials, self.engine, self.chat, make, temperature, context)

    def _load(self, checkpoint: str) -> None:
        from transformers import AutoTokenizer

        from model import load_checkpoint
        from rollout.chat import Chat
        from rollout.engine import TorchEngine

        if checkpoint != self._loaded:
            self.chat = Chat(AutoTokenizer.from_pretrained(checkpoint))
            model = load_checkpoint(Path(checkpoint), device=self.device).eval()
            model.batch_invariant = self.config.sampling.batch_invariant and self.device == "cuda"
            self.engine = TorchEngine(model, self.chat.end_token_id)
            self._loaded = checkpoint

    def close(self) -> None:
        if self.sandbox is not None:
            self.sandbox.close()
