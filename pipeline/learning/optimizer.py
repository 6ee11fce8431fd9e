"""Optimizer and learning-rate schedule from `OptimizerConfig`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch

from pipeline.config.schema import OptimizerConfig


def learning_rate(step: int, total: int, config: OptimizerConfig) -> float:
    """Learning rate of step `step` (from 0) of `total`: linear warm-up, then constant, linear or cosine decay."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, total - config.warmup_steps)
    progress = min(1.0, max(0.0, progress))
    shape = {"constant": 1.0, "linear": 1.0 - progress, "cosine": 0.5 * (1.0 + math.cos(math.pi * progress))}
    return config.lr * (config.min_lr_ratio + (1.0 - config.min_lr_ratio) * shape[config.decay])


def adamw(parameters: Iterable[torch.nn.Parameter], config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW; matrices decay, vectors (norms, biases) do not. Frozen parameters are left out: decay would move them."""
    trained = [p for p in parameters if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    beta1, beta2 = config.betas
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=config.lr, betas=(beta1, beta2), eps=1e-8)


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalised: W ← W − lr·0.2·√max(n, m) · NS(momentum), for [n, m] matrices.

    Source: K. Jordan et al., "Muon" (2024), with the update's RMS matched to AdamW's (Moonlight, arXiv:2502.16982,
    eq. 4), so that both share one learning rate. `torch.optim.Muon` is the same method but orthogonalises in bfloat16,
    which is thirty times slower than float32 on CPUs without bfloat16 units.
    """

    def __init__(
        self, parameters: Iterable[torch.nn.Parameter], lr: float, momentum: float, weight_decay: float
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(parameter)
                momentum = state["momentum"].lerp_(parameter.grad, 1.0 - group["momentum"])
                # Nesterov: one step ahead of the average.
                update = orthogonalise(parameter.grad.lerp(momentum, group["momentum"]))
                parameter.mul_(1.0 - group["lr"] * group["weight_decay"])
                parameter.add_(update, alpha=-0.2 * group["lr"] * max(parameter.shape) ** 0.5)


def orthogonalise(matrix: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """[n, m] → nearly U·Vᵀ of its singular value decomposition, by the quintic Newton-Schulz iteration (Muon)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix.float() if matrix.shape[0] <= matrix.shape[1] else matrix.float().T
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x if matrix.shape[0] <= matrix.shape[1] else x.T).to(matrix.dtype)


def split_for_muon(model: torch.nn.Module) -> tuple[list[torch.nn.Parameter], list[torch.nn.Parameter]]:
    """The layers' matrices, which Muon trains, and all other parameters that are trained."""
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    matrices = [p for name, p in trained if p.ndim == 2 and ".layers." in name]
    return matrices, [p for name, p in trained if p.ndim != 2 or ".layers." not in name]


def optimizer_step(
    optimizer: torch.optim.Optimizer, parameters: Sequence[torch.nn.Parameter], lr: float, grad_clip: float
) -> float:
    """Clips, steps, clears. Returns the gradient norm before clipping; a step with a norm that is not finite is left
    out, so that one bad batch cannot destroy the weights."""
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, grad_clip))
    if math.isfinite(norm):
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm
