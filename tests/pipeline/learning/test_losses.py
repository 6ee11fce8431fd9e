"""The losses against TRL's own code, against float64 derivatives, and by their definitions."""

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from trl import GRPOTrainer

from pipeline.learning.losses import policy_loss, sequence_weights, unbiased_kl

LOW, HIGH = 0.2, 0.28


def padded_batch(seed=0, rows=5, length=9):
    """Completion log-probabilities, old and reference ones [B, L], mask [B, L] with holes, advantages [B]."""
    generator = torch.Generator().manual_seed(seed)

    def noise(scale):
        return scale * torch.randn(rows, length, generator=generator, dtype=torch.float64)

    new = (-2 + noise(0.5)).requires_grad_()
    mask = torch.arange(length) < torch.tensor([9, 4, 1, 7, 6]).unsqueeze(1)
    mask[0, 3:5] = False  # a tool's answer
    advantages = torch.randn(rows, generator=generator, dtype=torch.float64)
    return new, new.detach() + noise(0.3), new.detach() + noise(0.4), mask, advantages


def trl_loss(new, old, reference, mask, advantages, beta):
    """`GRPOTrainer._compute_loss` itself, its forward pass replaced by the given log-probabilities."""
    accelerator = SimpleNamespace(num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x)
    stub = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *args, **kwargs: (new, torch.zeros_like(new), None),
        aux_loss_enabled=False, top_entropy_quantile=1.0, off_policy_mask_threshold=None,
        importance_sampling_level="token", beta=beta, loss_type="grpo", epsilon_low=LOW, epsilon_high=HIGH,
        use_vllm=False, _entropy_bonus_enabled=False, current_gradient_accumulation_steps=1,
        args=SimpleNamespace(delta=None, use_bias_correction_kl=True), model=SimpleNamespace(training=True),
        accelerator=accelerator, _metrics={"train": defaultdict(list)},
    )  # fmt: skip
    inputs = {
        "prompt_ids": torch.zeros(len(new), 1, dtype=torch.long), "prompt_mask": torch.ones(len(new), 1),
        "completion_ids": torch.zeros_like(mask, dtype=torch.long), "completion_mask": mask.to(new.dtype),
        "advantages": advantages, "old_per_token_logps": old, "ref_per_token_logps": reference,
    }  # fmt: skip
    return GRPOTrainer._compute_loss(stub, None, inputs), stub._metrics["train"]


def our_loss(new, old, reference, mask, advantages, beta):
    """The same numbers as packed sequences."""
    ids = torch.arange(len(new)).unsqueeze(1).expand_as(new)
    weights = sequence_weights(mask.flatten(), ids.flatten(), len(new)).double()
    spread = advantages.unsqueeze(1).expand_as(new).flatten()
    result = policy_loss(new.flatten(), old.flatten(), spread, weights, LOW, HIGH)
    kl = unbiased_kl(new.flatten(), old.flatten(), reference.flatten())
    return result.loss + beta * (weights * kl).sum(), result


@pytest.mark.parametrize("beta", [0.0, 0.3])
@pytest.mark.parametrize("seed", range(3))
def test_loss_gradient_and_clip_fraction_are_those_of_trl(seed, beta):
    batch = padded_batch(seed)
    theirs, metrics = trl_loss(*batch, beta)
    (their_gradient,) = torch.autograd.grad(theirs, batch[0])
    ours, result = our_loss(*batch, beta)
    (our_gradient,) = torch.autograd.grad(ours, batch[0])
    # float32 weights bound the agreement
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(our_gradient, their_gradient, rtol=1e-6, atol=1e-7)
    assert float(result.clip_fraction) == pytest.approx(metrics["clip_ratio/region_mean"][0]) != 0


def test_gradient_of_the_unbiased_kl_is_ratio_times_log_ratio_times_score():
    """DeepSeek-V3.2 (arXiv:2512.02556), section 3.1, on logits: d KL = r · log(π/π_ref) · d log π."""
    generator = torch.Generator().manual_seed(1)
    logits, reference, old = (torch.randn(6, 7, generator=generator, dtype=torch.float64) for _ in range(3))
    logits.requires_grad_()
    tokens = torch.randint(0, 7, (6, 1), generator=generator)

    def logprob(x):
        return x.log_softmax(-1).gather(1, tokens)[:, 0]

    new = logprob(logits)
    (gradient,) = torch.autograd.grad(
        unbiased_kl(new, logprob(old), logprob(reference)).sum(), logits, retain_graph=True
    )
    ratio = (new - logprob(old)).exp().detach()
    log_ratio = (new - logprob(reference)).detach()
    (expected,) = torch.autograd.grad((ratio * log_ratio * new).sum(), logits)
    torch.testing.assert_close(gradient, expected)


def test_the_kl_estimate_is_unbiased_off_policy():
    """Its mean over tokens drawn from the old policy is the KL of the new one, and its mean gradient that KL's."""
    generator = torch.Generator().manual_seed(2)
    logits, reference, old = (torch.randn(9, generator=generator, dtype=torch.float64) for _ in range(3))
    logits.requires_grad_()
    new, ref, behind = logits.log_softmax(0), reference.log_softmax(0), old.log_softmax(0)
    estimate = (behind.exp() * unbiased_kl(new, behind, ref)).sum()
    exact = (new.exp() * (new - ref)).sum()
    torch.testing.assert_close(estimate, exact)
    ours, theirs = (torch.autograd.grad(x, logits, retain_graph=True)[0] for x in (estimate, exact))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("ratio", "advantage", "slope"),
    [(1.0, 1.0, 1), (1.27, 1.0, 1), (1.3, 1.0, 0), (0.5, 1.0, 1), (0.79, -1.0, 0), (0.81, -1.0, 1), (3.0, -1.0, 1)],
)
def test_clipping_stops_the_gradient_only_where_the_ratio_has_gone_far_enough(ratio, advantage, slope):
    new = torch.tensor([ratio], dtype=torch.float64).log().requires_grad_()
    one = torch.ones(1, dtype=torch.float64)
    result = policy_loss(new, torch.zeros_like(new), advantage * one, one, LOW, HIGH)
    result.loss.backward()
    assert float(new.grad) == pytest.approx(-slope * ratio * advantage)
    assert float(result.clip_fraction) == 1 - slope
    assert float(result.ratio_mean) == pytest.approx(ratio)


def test_on_policy_the_gradient_is_that_of_reinforce():
    new = torch.tensor([-1.0, -2.0, -0.5], dtype=torch.float64, requires_grad=True)
    advantages, weights = torch.tensor([1.0, 1.0, -2.0]).double(), torch.tensor([0.25, 0.25, 0.5]).double()
    policy_loss(new, new.detach(), advantages, weights, LOW, HIGH).loss.backward()
    torch.testing.assert_close(new.grad, -advantages * weights)


def test_tokens_without_weight_change_nothing():
    new = torch.tensor([-1.0, -2.0], requires_grad=True)
    result = policy_loss(new, torch.tensor([-1.0, 5.0]), torch.ones(2), torch.tensor([1.0, 0.0]), LOW, HIGH)
    result.loss.backward()
    assert new.grad.tolist() == [-1.0, 0.0] and float(result.ratio_mean) == 1.0
    nothing = policy_loss(new, new.detach(), torch.ones(2), torch.zeros(2), LOW, HIGH)
    assert float(nothing.loss.detach()) == 0 and float(nothing.clip_fraction) == 0


def test_sequence_weights_are_a_mean_over_tokens_then_over_sequences():
    mask = torch.tensor([False, True, True, True, False, True, False])
    ids = torch.tensor([0, 0, 0, 0, 1, 1, 2])
    weights = sequence_weights(mask, ids, sequences=4)
    assert weights.tolist() == pytest.approx([0, 1 / 12, 1 / 12, 1 / 12, 0, 1 / 4, 0])
    assert len(sequence_weights(mask[:0], ids[:0], 1)) == 0
