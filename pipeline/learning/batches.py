"""From groups to packed batches: which tokens count, with which advantage and weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from model import PackedBatch, SharedPrompts
from rollout.records import Group


@dataclass(frozen=True)
class PolicySample:
    """One trajectory as the loss sees it; arrays run over its T tokens.

    `advantage` is one number for the whole trajectory; `kl_coef` its domain's weight of the KL to the reference.
    """

    token_ids: np.ndarray
    policy_mask: np.ndarray
    logprobs: np.ndarray
    advantage: float
    kl_coef: float


@dataclass(frozen=True)
class PolicyBatch:
    """A packed micro-batch. All tensors [T]; entry t belongs to the token at t (predicted from what precedes it)."""

    packed: PackedBatch
    mask: torch.Tensor
    old_logprobs: torch.Tensor
    advantages: torch.Tensor
    kl_coef: torch.Tensor
    sequence_ids: torch.Tensor

    def to(self, device: torch.device) -> PolicyBatch:
        moved = {name: value.to(device) for name, value in vars(self).items()}
        return PolicyBatch(**moved)


def policy_samples(
    groups: Sequence[Group], scale_by_std: bool, kl_coef: dict[str, float], normalization: str = "reward"
) -> list[PolicySample]:
    """Samples that teach something: valid reward and, unless the KL acts on them, an advantage other than zero."""
    samples = []
    for group in groups:
        coef = kl_coef.get(group.task.domain, 0.0)
        advantages = group.advantages(scale_by_std, normalization)
        for trajectory, advantage in zip(group.trajectories, advantages, strict=True):
            if np.isnan(advantage) or (advantage == 0.0 and coef == 0.0):
                continue
            samples.append(
                PolicySample(trajectory.token_ids, trajectory.policy_mask, trajectory.logprobs, float(advantage), coef)
            )
    return samples


def split_tokens(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices in consecutive runs of at most `budget` tokens each (a longer single sequence gets a run of its own),
    sorted by length, so that a run pads little."""
    runs: list[list[int]] = []
    total = 0
    for index in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        if not runs or total + lengths[index] > budget:
            runs.append([])
            total = 0
        runs[-1].append(index)
        total += lengths[index]
    return runs


def pack(samples: Sequence[PolicySample]) -> PolicyBatch:
    """One packed batch of the samples, in order; samples of one group share their prompt.

    Raises:
        ValueError: if a policy token begins a sequence, where nothing predicts it.
    """
    if any(s.policy_mask[0] for s in samples):
        raise ValueError("the first token of a trajectory cannot be the policy's: it has no prompt to follow from")

    def flat(arrays: list[np.ndarray], dtype: torch.dtype) -> torch.Tensor:
        return torch.from_numpy(np.concatenate(arrays)).to(dtype)

    lengths = [len(s.token_ids) for s in samples]
    prompts = SharedPrompts.find([s.token_ids[: int(s.policy_mask.argmax())] for s in samples])
    return PolicyBatch(
        packed=replace(PackedBatch.from_sequences([s.token_ids for s in samples]), shared=prompts),
        mask=flat([s.policy_mask for s in samples], torch.bool),
        old_logprobs=flat([s.logprobs for s in samples], torch.float32),
        advantages=flat([np.full(n, s.advantage) for n, s in zip(lengths, samples, strict=True)], torch.float32),
        kl_coef=flat([np.full(n, s.kl_coef) for n, s in zip(lengths, samples, strict=True)], torch.float32),
        sequence_ids=flat([np.full(n, i) for i, n in enumerate(lengths)], torch.int64),
    )
