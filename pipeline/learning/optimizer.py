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
