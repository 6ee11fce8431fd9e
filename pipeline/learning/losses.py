"""Policy losses as pure functions on tensors.

All work on flat token arrays of length T over S packed sequences. Each returns sums already divided by the caller's
normaliser through per-token `weights`, so that neither packing nor micro-batches change the loss.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class PolicyLoss:
    """`loss` is 0-dim and carries the gradient; the rest are means over the tokens trained on, for the log."""

    loss: torch.Tensor
    clip_fraction: torch.Tensor
    ratio_mean: torch.Tensor


def policy_loss(
    logprobs: torch.Tensor,
    old_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    weights: torch.Tensor,
    clip_low: float,
    clip_high: float,
) -> PolicyLoss:
    """Clipped policy gradient with an upper bound of its own.

    L = −Σ_t w_t · min(r_t·A_t, clip(r_t, 1−ε_low, 1+ε_high)·A_t), r_t = exp(log π_θ − log π_old)
    (PPO, arXiv:1707.06347 eq. 7; separate upper bound: DAPO, arXiv:2503.14476 eq. 10).

    Args:
        logprobs, old_logprobs: [T] float, of the policy's tokens; the old ones are the sampling engine's.
        advantages: [T], one value per sequence, repeated over its tokens.
        weights: [T], 0 where the token is not trained on; `sequence_weights` gives the usual ones.
    """
    ratio = torch.exp(logprobs - old_logprobs)
    clipped = ratio.clamp(1.0 - clip_low, 1.0 + clip_high)
    objective = torch.minimum(ratio * advantages, clipped * advantages)
    with torch.no_grad():
        trained = weights > 0
        count = trained.sum().clamp_min(1)
        clip_fraction = ((clipped * advantages < ratio * advantages) & trained).sum() / count
        ratio_mean = (ratio * trained).sum() / count
    return PolicyLoss(-(objective * weights).sum(), clip_fraction, ratio_mean)


def unbiased_kl(
    logprobs: torch.Tensor, old_logprobs: torch.Tensor, reference_logprobs: torch.Tensor
) -> torch.Tensor:
    """[T] estimate of KL(π_θ ‖ π_ref) whose gradient is unbiased off policy.

    r · (π_ref/π_θ − log(π_ref/π_θ) − 1) with r = π_θ/π_old carrying gradient (DeepSeek-V3.2, arXiv:2512.02556, §3.1);
    its gradient is r · log(π_θ/π_ref) · ∇log π_θ.
    """
    ratio = torch.exp(logprobs - old_logprobs)
    log_reference_ratio = reference_logprobs - logprobs
    return ratio * (torch.exp(log_reference_ratio) - log_reference_ratio - 1.0)


def sequence_weights(mask: torch.Tensor, sequence_ids: torch.Tensor, sequences: int) -> torch.Tensor:
    """[T] weights 1/(S·|o_i|) on the policy's tokens: mean over tokens of a sequence, then over sequences (GRPO,
    arXiv:2402.03300 eq. 3).

    Args:
        mask: [T] bool, tokens trained on.
        sequence_ids: [T] int64 in [0, S'), the sequence of each token in this batch.
        sequences: S, number of sequences over which the whole step's loss is a mean.
    """
    held = int(sequence_ids.max()) + 1 if len(sequence_ids) else 1
    lengths = torch.zeros(held, dtype=torch.float32, device=mask.device)
    lengths.index_add_(0, sequence_ids, mask.float())
    return mask.float() / (lengths.clamp_min(1.0)[sequence_ids] * max(1, sequences))
