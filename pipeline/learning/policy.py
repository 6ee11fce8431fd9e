"""The policy learner: groups in, one policy step out; its state survives in a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from kernels import token_logprob
from model import DeepseekForCausalLM, indexer_parameters
from pipeline.config.schema import RLConfig
from pipeline.learning.batches import PolicyBatch, PolicySample, pack, policy_samples, split_tokens
from pipeline.learning.losses import policy_loss, sequence_weights, unbiased_kl
from pipeline.learning.optimizer import adamw, learning_rate, optimizer_step
from rollout.records import Group

TOKEN_SUMS = (
    "entropy",
    "clip_ratio/region_mean",
    "sampling/importance_sampling_ratio/mean",
    "sampling/sampling_logp_difference/mean",
    "kl",
)
"""Metrics that micro-batches sum over the policy's tokens and the log shows as means."""


class PolicyLearner:
    """Owns the weights, the optimizer and the reference model of one RL run.

    Args:
        model: trained in place; where a sampler shares the process it shares this model.
        reference: frozen model of the KL term, needed when a `kl_coef` is above 0.
        config: the run's RL settings.
        kl_coef: weight of the KL per domain.
        temperature: that the rollouts are sampled at; log-probabilities are taken at the same.
    """

    def __init__(
        self,
        model: DeepseekForCausalLM,
        reference: DeepseekForCausalLM | None,
        config: RLConfig,
        kl_coef: Mapping[str, float],
        temperature: float,
    ) -> None:
        if reference is None and any(value > 0 for value in kl_coef.values()):
            raise ValueError("a kl_coef above 0 needs a reference model")
        self.model, self.reference, self.config = model, reference, config
        self.kl_coef = dict(kl_coef)
        self.temperature = temperature
        for parameter in indexer_parameters(model):
            parameter.requires_grad_(config.train_indexer)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = adamw(self.parameters, config.optimizer)

    def update(self, groups: Sequence[Group], step: int) -> dict[str, float]:
        """One step on the groups of one rollout batch; returns the metrics of the log.

        The loss is a mean over all valid sequences, those without advantage included, so that dropping them from the
        batch changes nothing but time.
        """
        valid = sum(reward.valid for group in groups for reward in group.rewards)
        samples = policy_samples(
            groups, self.config.scale_by_std, self.kl_coef, self.config.advantage_normalization
        )
        lr = learning_rate(step, self.config.steps, self.config.optimizer)
        metrics = {"lr": lr, "trained_sequences": float(len(samples))}
        if not samples:
            return metrics
        self.model.train()
        totals: dict[str, float] = {}
        for part in _parts(samples, self.config.minibatches):
            # Each part is a step of its own over its share of the sequences.
            share = max(1, round(valid * len(part) / len(samples)))
            lengths = [len(s.token_ids) for s in part]
            for run in split_tokens(lengths, self.config.batch_tokens):
                batch = pack([part[i] for i in run]).to(self.model.device)
                for name, value in self._backward(batch, share, sum(lengths)).items():
                    totals[name] = totals.get(name, 0.0) + value
            norm = optimizer_step(self.optimizer, self.parameters, lr, self.config.optimizer.grad_clip)
            totals["grad_norm"] = totals.get("grad_norm", 0.0) + norm / self.config.minibatches
        tokens = max(1.0, totals.pop("tokens"))
        metrics.update({name: value / tokens if name in TOKEN_SUMS else value for name, value in totals.items()})
        return metrics

    def _backward(self, batch: PolicyBatch, sequences: int, step_tokens: int) -> dict[str, float]:
        """Adds the gradient of one micro-batch; `sequences` and `step_tokens` are those of the whole optimizer step."""
        hidden = self.model.hidden_states(
            batch.packed, indexer_loss="sparse" if self.config.train_indexer else None
        )
        written = batch.mask.nonzero()[:, 0]
        logprobs, entropy = self._logprobs(self.model, batch, hidden.hidden, written)
        old = batch.old_logprobs[written]
        weights = sequence_weights(batch.mask, batch.sequence_ids, sequences)[written]
        policy = policy_loss(
            logprobs, old, batch.advantages[written], weights, self.config.clip_low, self.config.clip_high
        )
        loss = policy.loss
        tokens = float(len(written))
        metrics = {
            "tokens": tokens,
            "entropy": float(entropy.detach().sum()),
            "clip_ratio/region_mean": float(policy.clip_fraction) * tokens,
            "sampling/importance_sampling_ratio/mean": float(policy.ratio_mean) * tokens,
            "sampling/sampling_logp_difference/mean": float((logprobs.detach() - old).abs().sum()),
        }
        if self.reference is not None:
            with torch.no_grad():
                frozen = self.reference.hidden_states(batch.packed).hidden
                reference, _ = self._logprobs(self.reference, batch, frozen, written)
            kl = unbiased_kl(logprobs, old, reference)
            loss = loss + (batch.kl_coef[written] * weights * kl).sum()
            metrics["kl"] = float(kl.detach().sum())
        if hidden.indexer_loss is not None:
            # A mean over the step's tokens, like the policy's loss independent of how the step is packed.
            indexer_kl = hidden.indexer_loss / step_tokens
            loss = loss + indexer_kl
            metrics["indexer_kl"] = float(indexer_kl.detach()) / self.config.minibatches
        loss.backward()
        metrics["loss"] = float(loss.detach())
        return metrics

    def _logprobs(
        self, model: DeepseekForCausalLM, batch: PolicyBatch, hidden: torch.Tensor, written: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities and entropies [N] of the N policy tokens at `written`; the head runs on no other."""
        targets = batch.packed.input_ids[written]
        logprobs, entropy = token_logprob(
            hidden[written - 1], model.lm_head.weight, targets, self.temperature, with_entropy=True
        )
        assert entropy is not None
        return logprobs, entropy

    def state(self) -> dict[str, Any]:
        """Optimizer state for `torch.save`; the weights are saved beside it as a checkpoint folder."""
        return {"optimizer": self.optimizer.state_dict()}

    def load_state(self, path: Path) -> None:
        state = torch.load(path, map_location=self.model.device, weights_only=True)
        self.optimizer.load_state_dict(state["optimizer"])


def _parts(samples: list[PolicySample], count: int) -> list[list[PolicySample]]:
    """`count` parts of nearly equal size, dealt in turn, so that each holds a share of every group."""
    return [part for part in (samples[i::count] for i in range(count)) if part]
