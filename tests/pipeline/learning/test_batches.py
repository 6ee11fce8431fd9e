"""From groups to packed batches: which samples are kept, how they are cut into runs, and what a batch holds."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.learning.batches import pack, policy_samples, split_tokens
from rewards.types import Component, Reward
from rollout.advantages import component_advantages


def test_samples_without_advantage_or_with_an_invalid_reward_are_left_out(make_groups):
    groups = make_groups([[1.0, 0.0, None], [1.0, 1.0, 1.0], [None, 0.5, None]])
    samples = policy_samples(groups, False, {})
    assert [s.advantage for s in samples] == [0.5, -0.5]
    kept = groups[0].trajectories
    for sample, trajectory in zip(samples, kept, strict=False):
        np.testing.assert_array_equal(sample.token_ids, trajectory.token_ids)
        np.testing.assert_array_equal(sample.policy_mask, trajectory.policy_mask)
        np.testing.assert_array_equal(sample.logprobs, trajectory.logprobs)


def test_a_kl_keeps_the_valid_samples_without_advantage(make_groups):
    groups = make_groups([[1.0, 0.0, None], [1.0, 1.0]])
    samples = policy_samples(groups, False, {"toy": 0.1})
    assert [s.advantage for s in samples] == [0.5, -0.5, 0.0, 0.0]
    assert {s.kl_coef for s in samples} == {0.1}
    assert policy_samples(groups, False, {"other": 0.1})[0].kl_coef == 0.0


def test_advantages_by_component_reach_the_samples(make_groups):
    (group,) = make_groups([[1.0, 0.0, 0.0, 1.0]])
    parts = [(1.0, 0.0), (0.0, 1.0), (0.0, 0.0), (1.0, 0.5)]
    rewards = tuple(
        Reward.of([Component("a", a, 1.0, a), Component("b", b, 0.5, 0.5 * b)], None) for a, b in parts
    )
    group = dataclasses.replace(group, rewards=rewards)
    samples = policy_samples([group], True, {}, "component")
    assert [s.advantage for s in samples] == pytest.approx(list(component_advantages(rewards)))
    assert [s.advantage for s in samples] != pytest.approx([s.advantage for s in policy_samples([group], True, {})])


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 100))
def test_runs_hold_every_index_once_and_keep_the_budget(lengths, budget):
    runs = split_tokens(lengths, budget)
    assert sorted(i for run in runs for i in run) == list(range(len(lengths)))
    assert all(len(run) == 1 or sum(lengths[i] for i in run) <= budget for run in runs)
    ordered = [lengths[i] for run in runs for i in run]
    assert ordered == sorted(ordered)


def test_a_batch_holds_each_samples_values_at_its_tokens(make_groups):
    samples = policy_samples(make_groups([[1.0, 0.0], [0.25, 0.5, 0.9]]), False, {"toy": 0.2})
    batch = pack(samples)
    for number, sample in enumerate(samples):
        at = batch.sequence_ids == number
        assert batch.packed.input_ids[at].tolist() == sample.token_ids.tolist()
        assert batch.mask[at].tolist() == sample.policy_mask.tolist()
        torch.testing.assert_close(batch.old_logprobs[at], torch.from_numpy(sample.logprobs))
        assert set(batch.advantages[at].tolist()) == {np.float32(sample.advantage)}
        assert batch.packed.position_ids[at].tolist() == list(range(len(sample.token_ids)))
    moved = batch.to(torch.device("cpu"))
    assert moved.packed.lengths == [len(s.token_ids) for s in samples]


def test_the_samples_of_a_group_share_their_prompt(make_groups):
    samples = policy_samples(make_groups([[1.0, 0.0], [0.25, 0.5, 0.9]]), False, {})
    shared = pack(samples).packed.shared
    assert shared.length.tolist() == [int(s.policy_mask.argmax()) for s in samples]
    for sample, owner, length in zip(samples, shared.owner, shared.length, strict=True):
        np.testing.assert_array_equal(sample.token_ids[:length], samples[owner].token_ids[:length])
    assert pack(samples[:1]).packed.shared is None


def test_a_policy_token_without_a_prompt_is_refused(make_groups):
    sample = policy_samples(make_groups([[1.0, 0.0]]), False, {})[0]
    with pytest.raises(ValueError, match="first token of a trajectory"):
        pack([dataclasses.replace(sample, policy_mask=np.ones_like(sample.policy_mask))])
