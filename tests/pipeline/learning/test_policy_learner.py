"""The policy learner: one step's gradient does not depend on packing, on samples that teach nothing or on invalid
rewards; it equals a direct computation; and it learns."""

import dataclasses

import numpy as np
import pytest
import torch

from model import PackedBatch, indexer_parameters
from pipeline.config.schema import OptimizerConfig, RLConfig
from pipeline.learning import policy as policy_module
from pipeline.learning.policy import PolicyLearner
from rewards.types import Component, Reward
from rollout.engine import Generation, TorchEngine
from rollout.records import Attempt, Group, Task, Trajectory
from rollout.seeding import seed_for


@pytest.fixture
def gradient(tiny_model, monkeypatch):
    """Gradient (one flat float64 vector) and metrics of an update; no weight moves."""

    def compute(groups, kl=0.0, model=None, temperature=1.0, **settings):
        taken = []

        def keep(optimizer, parameters, lr, clip):
            taken.append(
                torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in parameters])
            )
            optimizer.zero_grad()
            return 0.0

        monkeypatch.setattr(policy_module, "optimizer_step", keep)
        model = model or tiny_model().double()
        reference = tiny_model(seed=9).double().eval() if kl else None
        learner = PolicyLearner(model, reference, RLConfig(**settings), {"toy": kl}, temperature)
        metrics = learner.update(groups, 0)
        return (torch.cat(taken) if taken else None), metrics

    return compute


REWARDS = [[1.0, 0.0, 0.5, 0.0], [0.0, 1.0, 1.0], [0.2, 0.1]]


@pytest.mark.parametrize("settings", [{}, {"kl": 0.3}, {"train_indexer": True}, {"scale_by_std": True}])
def test_the_gradient_does_not_depend_on_micro_batches(gradient, make_groups, settings):
    groups = make_groups(REWARDS)
    whole, metrics = gradient(groups, batch_tokens=10_000, **settings)
    for budget in (1, 30, 60):
        part, part_metrics = gradient(groups, batch_tokens=budget, **settings)
        torch.testing.assert_close(part, whole, rtol=1e-5, atol=1e-8)
        for name, value in metrics.items():
            assert part_metrics[name] == pytest.approx(value, rel=1e-5, abs=1e-7), name


@pytest.mark.parametrize("kl", [0.0, 0.3])
def test_the_gradient_is_that_of_the_formula_computed_sequence_by_sequence(gradient, make_groups, tiny_model, kl):
    groups, temperature = make_groups(REWARDS), 0.8
    ours, metrics = gradient(groups, kl=kl, temperature=temperature)
    model, reference = tiny_model().double(), tiny_model(seed=9).double().eval()
    for parameter in indexer_parameters(model):
        parameter.requires_grad_(False)
    loss, count = 0.0, sum(len(g.rewards) for g in groups)
    for group in groups:
        for trajectory, advantage in zip(group.trajectories, group.advantages(), strict=True):
            batch = PackedBatch.from_sequences([trajectory.token_ids.tolist()])
            mask = torch.from_numpy(trajectory.policy_mask)
            logits = model.logits(model.hidden_states(batch).hidden)[:-1] / temperature
            new = logits.log_softmax(-1).gather(1, batch.input_ids[1:, None])[:, 0][mask[1:]]
            ref = reference.token_logprobs(batch, temperature=temperature).detach()[mask]
            ratio = (new - torch.from_numpy(trajectory.logprobs)[mask]).exp()
            terms = -torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.28) * advantage)
            terms = terms + kl * ratio * ((ref - new).exp() - (ref - new) - 1)
            loss = loss + terms.mean() / count
    loss.backward()
    expected = torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad and p.grad is not None])
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-8)
    assert metrics["loss"] == pytest.approx(float(loss.detach()), rel=1e-5)


def test_groups_without_advantage_only_widen_the_mean(gradient, make_groups):
    """Dropping their samples is no approximation: they count in the mean, and their own gradient is zero."""
    groups = make_groups([[1.0, 0.0], [1.0, 1.0]])
    with_them, metrics = gradient(groups)
    without, _ = gradient(groups[:1])
    torch.testing.assert_close(with_them * 2, without, rtol=1e-5, atol=1e-8)
    assert metrics["trained_sequences"] == 2


def test_samples_without_advantage_give_no_gradient_when_they_are_kept(gradient, make_groups, monkeypatch):
    groups = make_groups([[1.0, 0.0, 0.5]])
    dropped, _ = gradient(groups)
    keep_all = policy_module.policy_samples

    def tiny_kl(groups, scale, coef, normalization):
        return [dataclasses.replace(s, kl_coef=0.0) for s in keep_all(groups, scale, {"toy": 1.0})]

    monkeypatch.setattr(policy_module, "policy_samples", tiny_kl)
    kept, metrics = gradient(groups)
    assert metrics["trained_sequences"] == 3
    torch.testing.assert_close(kept, dropped, rtol=1e-5, atol=1e-8)


def test_invalid_rewards_leave_baseline_and_loss(gradient, make_groups):
    group = make_groups([[1.0, 0.0, 0.0]])[0]
    invalid = Reward.invalid("judge timed out")
    more = Group(group.task, (*group.trajectories, group.trajectories[0]), (*group.rewards, invalid))
    with_invalid, without = gradient([more])[0], gradient([group])[0]
    torch.testing.assert_close(with_invalid, without)


def test_a_step_that_teaches_nothing_moves_nothing(tiny_model, make_groups):
    model = tiny_model()
    before = {name: p.clone() for name, p in model.named_parameters()}
    learner = PolicyLearner(model, None, RLConfig(), {}, 1.0)
    metrics = learner.update(make_groups([[1.0, 1.0], [None, None]]), 0)
    assert metrics["trained_sequences"] == 0 and "loss" not in metrics
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter, before[name], rtol=0, atol=0)


def test_a_kl_coefficient_without_a_reference_is_refused(tiny_model):
    with pytest.raises(ValueError, match="needs a reference model"):
        PolicyLearner(tiny_model(), None, RLConfig(), {"toy": 0.1}, 1.0)


def test_the_kl_alone_pulls_the_policy_to_its_reference(tiny_model, make_groups):
    model, reference = tiny_model(), tiny_model(seed=9).eval()
    config = RLConfig(optimizer=OptimizerConfig(lr=3e-3))
    learner = PolicyLearner(model, reference, config, {"toy": 1.0}, 1.0)
    prompt, kls = [1, 2, 3], []
    for step in range(25):
        trajectories = play(TorchEngine(model, 0), prompt, 16, step, limit=6)
        groups = [Group(TASK, tuple(trajectories), tuple(Reward.of([], None) for _ in trajectories))]
        kls.append(learner.update(groups, step)["kl"])
    assert np.mean(kls[-5:]) < 0.6 * np.mean(kls[:5])


def test_the_indexer_is_frozen_unless_its_training_is_asked_for(tiny_model, make_groups):
    for train in (False, True):
        model = tiny_model()
        before = [p.clone() for p in indexer_parameters(model)]
        learner = PolicyLearner(
            model, None, RLConfig(train_indexer=train, optimizer=OptimizerConfig(weight_decay=0.1)), {}, 1.0
        )
        metrics = learner.update(make_groups(REWARDS), 0)
        moved = [not torch.equal(a, b) for a, b in zip(before, indexer_parameters(model), strict=True)]
        assert any(moved) == train and ("indexer_kl" in metrics) == train


def test_minibatches_take_a_step_each_over_all_samples(tiny_model, make_groups, monkeypatch):
    steps = []
    real = policy_module.optimizer_step
    monkeypatch.setattr(policy_module, "optimizer_step", lambda *a: steps.append(1) or real(*a))
    learner = PolicyLearner(tiny_model(), None, RLConfig(minibatches=3), {}, 1.0)
    metrics = learner.update(make_groups(REWARDS), 0)
    assert len(steps) == 3 and metrics["trained_sequences"] == 9


def test_a_batch_with_a_gradient_that_is_not_finite_does_not_touch_the_weights(tiny_model, make_groups):
    model = tiny_model()
    groups = make_groups([[1.0, 0.0]])
    groups[0].trajectories[1].logprobs[groups[0].trajectories[1].policy_mask] = -1e4  # ratio overflows
    before = {name: p.clone() for name, p in model.named_parameters()}
    metrics = PolicyLearner(model, None, RLConfig(), {}, 1.0).update(groups, 0)
    assert not np.isfinite(metrics["grad_norm"])
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


TASK = Task("bandit", "toy", ({"role": "user", "content": "?"},))


def play(engine, prompt, count, step, limit, seed=0):
    requests = [Generation(prompt, seed_for(seed, step, i), limit) for i in range(count)]
    trajectories = []
    for number, completion in enumerate(engine.generate(requests, 1.0)):
        ids = np.concatenate([prompt, completion.token_ids]).astype(np.int32)
        mask = np.arange(len(ids)) >= len(prompt)
        logprobs = np.concatenate([np.zeros(len(prompt)), completion.logprobs]).astype(np.float32)
        attempt = Attempt(TASK, ("",), (), completion.stop_reason, int(mask.sum()), sample=number)
        trajectories.append(Trajectory(attempt, ids, mask, logprobs, np.where(mask, step, -1)))
    return trajectories


@pytest.mark.parametrize("seed", range(3))
def test_the_reward_rises(tiny_model, seed):
    """A bandit: share of token 7 among what was written. A uniform policy earns about 0.04."""
    model = tiny_model(seed=seed)
    with torch.no_grad():
        model.lm_head.weight.mul_(0.1)
    learner = PolicyLearner(model, None, RLConfig(optimizer=OptimizerConfig(lr=1e-2)), {}, 1.0)
    engine, means = TorchEngine(model, end_token_id=0), []
    for step in range(30):
        trajectories = play(engine, [1, 2, 3], 32, step, limit=4, seed=seed)
        shares = [float((t.token_ids[t.policy_mask] == 7).mean()) for t in trajectories]
        rewards = tuple(Reward.of([Component("share", s, 1.0, s)], None) for s in shares)
        metrics = learner.update([Group(TASK, tuple(trajectories), rewards)], step)
        means.append(np.mean(shares))
        # On policy, sampler and learner agree on every token's probability.
        assert metrics.get("sampling/sampling_logp_difference/mean", 0.0) < 1e-4
    assert np.mean(means[:3]) < 0.2 and np.mean(means[-3:]) > 0.7
