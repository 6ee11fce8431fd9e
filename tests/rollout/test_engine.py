"""The torch engine: its log-probabilities are the model's, its draws follow them, and companions change nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from model import PackedBatch
from rollout.engine import Generation, TorchEngine, compacted, sample, uniforms

NEVER = 10_000
"""An end token that no model here can write."""


def requests_of(count, limit=12, seed=0, shared=False):
    """Prompts of different lengths; with `shared`, each prompt belongs to two neighbouring requests."""
    rng = np.random.default_rng(seed)
    prompts = [rng.integers(0, 40, size=rng.integers(1, 30)).tolist() for _ in range(count)]
    if shared:
        prompts = [prompts[i // 2] for i in range(count)]
    return [Generation(prompt, seed=1000 + i, max_new_tokens=limit) for i, prompt in enumerate(prompts)]


def whole_sequence_logprobs(model, request, completion, temperature):
    whole = PackedBatch.from_sequences([[*request.token_ids, *completion.token_ids.tolist()]])
    with torch.no_grad():
        return model.token_logprobs(whole, temperature=temperature)[len(request.token_ids) :].numpy()


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_are_those_of_the_model_on_the_whole_sequence(tiny_model, sparse, temperature):
    model = tiny_model(sparse=sparse)
    requests = requests_of(10, shared=True)
    for request, completion in zip(requests, TorchEngine(model, 3).generate(requests, temperature), strict=True):
        expected = whole_sequence_logprobs(model, request, completion, temperature)
        np.testing.assert_allclose(completion.logprobs, expected, atol=1e-5)


@pytest.mark.parametrize("sparse", [True, False])
def test_a_request_draws_the_same_alone_in_company_and_in_another_order(tiny_model, sparse):
    model = tiny_model(sparse=sparse).double()
    requests = requests_of(9, shared=True)
    engine = TorchEngine(model, end_token_id=3)
    together = engine.generate(requests, 1.0)
    alone = [engine.generate([request], 1.0)[0] for request in requests]
    backwards = engine.generate(requests[::-1], 1.0)[::-1]
    in_parts = TorchEngine(model, end_token_id=3, max_batch=4).generate(requests, 1.0)
    for runs in zip(together, alone, backwards, in_parts, strict=True):
        for other in runs[1:]:
            assert other.token_ids.tolist() == runs[0].token_ids.tolist()
            assert other.stop_reason == runs[0].stop_reason
            np.testing.assert_allclose(other.logprobs, runs[0].logprobs, atol=1e-5)


def test_the_same_request_twice_gives_the_same_and_another_seed_something_else(tiny_model):
    engine = TorchEngine(tiny_model(), NEVER)
    same = [Generation([1, 2, 3], 5, 20), Generation([1, 2, 3], 5, 20), Generation([1, 2, 3], 6, 20)]
    first, second, third = (c.token_ids.tolist() for c in engine.generate(same, 1.0))
    assert first == second != third


def test_a_longer_limit_goes_on_from_a_shorter_one(tiny_model):
    engine = TorchEngine(tiny_model(), NEVER)
    short, long = engine.generate([Generation([1, 2], 7, 5), Generation([1, 2], 7, 15)], 1.0)
    assert long.token_ids[:5].tolist() == short.token_ids.tolist()
    assert uniforms(7, 5).tolist() == uniforms(7, 15)[:5].tolist()


@pytest.mark.parametrize("sparse", [True, False])
def test_a_conversation_runs_only_its_new_tokens_and_draws_what_a_new_one_draws(tiny_model, sparse, monkeypatch):
    model = tiny_model(sparse=sparse).double()
    engine, other = TorchEngine(model, end_token_id=3), TorchEngine(model, end_token_id=3)
    prefilled = []
    prefill = model.prefill
    monkeypatch.setattr(
        model, "prefill", lambda batch, *rest: (prefilled.append(batch.lengths), prefill(batch, *rest))[1]
    )
    requests = requests_of(6, limit=9, shared=True)
    for turn in range(3):
        talking = [replace(request, conversation=number) for number, request in enumerate(requests)]
        prefilled.clear()
        got = engine.generate(talking, 1.0)
        if turn:
            # The last token of the turn before was drawn and not run; two more came from the tool.
            assert prefilled == [[3] * 6]
        for ours, theirs in zip(got, other.generate(requests, 1.0), strict=True):
            assert ours.token_ids.tolist() == theirs.token_ids.tolist()
            np.testing.assert_allclose(ours.logprobs, theirs.logprobs, atol=1e-5)
        requests = [
            Generation([*r.token_ids, *c.token_ids.tolist(), 7, 8], r.seed + 100, 9)
            for r, c in zip(requests, got, strict=True)
        ]


def test_a_conversation_does_not_go_on_from_other_weights_or_other_tokens(tiny_model):
    model = tiny_model().double()
    engine = TorchEngine(model, NEVER)
    (first,) = engine.generate([Generation([1, 2, 3], 1, 8, conversation=0)], 1.0)
    whole = [1, 2, 3, *first.token_ids.tolist(), 9]
    with torch.no_grad():
        model.lm_head.weight.mul_(2)
        model.model.embed_tokens.weight.mul_(0.5)
    engine.version += 1
    fresh = TorchEngine(model, NEVER).generate([Generation(whole, 2, 8)], 1.0)[0]
    assert engine.generate([Generation(whole, 2, 8, conversation=0)], 1.0)[0].token_ids.tolist() == (
        fresh.token_ids.tolist()
    )
    changed = [4, *whole[1:]]
    fresh = TorchEngine(model, NEVER).generate([Generation(changed, 2, 8)], 1.0)[0]
    again = engine.generate([Generation(changed, 2, 8, conversation=0)], 1.0)[0]
    np.testing.assert_allclose(again.logprobs, fresh.logprobs, atol=1e-9)


def test_draws_follow_the_probabilities():
    """Chi-square over 20,000 draws from one row, and the reported log-probability of each."""
    logits = torch.tensor([2.0, 0.5, -1.0, 0.0, 1.0, -30.0]).repeat(20_000, 1)
    for temperature in (1.0, 0.5):
        tokens, logprobs = sample(logits, torch.from_numpy(uniforms(3, len(logits))), temperature)
        expected = torch.softmax(logits[0].double() / temperature, 0)
        counts = torch.bincount(tokens, minlength=6).double()
        assert counts[5] == 0
        chi_square = float((((counts - expected * len(logits)) ** 2) / (expected * len(logits)))[:5].sum())
        assert chi_square < 18.5  # the 0.999 quantile of 4 degrees of freedom
        torch.testing.assert_close(logprobs.double(), expected.log()[tokens], atol=1e-5, rtol=0)


def test_the_edges_of_the_unit_interval_draw_real_tokens():
    logits = torch.tensor([[-torch.inf, 0.0, 0.0, -torch.inf]])
    for uniform, token in ((0.0, 1), (1.0 - 2**-53, 2)):
        drawn, logprob = sample(logits, torch.tensor([uniform], dtype=torch.float64), 1.0)
        assert drawn.item() == token and logprob.item() == pytest.approx(np.log(0.5))


def test_temperature_zero_takes_the_most_likely_token(tiny_model):
    model = tiny_model()
    requests = requests_of(5)
    for request, completion in zip(requests, TorchEngine(model, NEVER).generate(requests, 0.0), strict=True):
        ids = [*request.token_ids, *completion.token_ids.tolist()]
        with torch.no_grad():
            logits = model.logits(model.hidden_states(PackedBatch.from_sequences([ids])).hidden)
        assert logits.argmax(-1)[len(request.token_ids) - 1 : -1].tolist() == completion.token_ids.tolist()
        np.testing.assert_allclose(
            completion.logprobs, whole_sequence_logprobs(model, request, completion, 1.0), atol=1e-5
        )


def test_a_completion_ends_at_the_end_token_or_at_its_limit(tiny_model):
    engine = TorchEngine(tiny_model(vocab_size=8), end_token_id=3)
    requests = [Generation([1, 2 + i % 4], 50 + i, max_new_tokens=1 + i % 7) for i in range(40)]
    completions = engine.generate(requests, 1.0)
    for request, completion in zip(requests, completions, strict=True):
        ids = completion.token_ids.tolist()
        assert 3 not in ids[:-1] and len(completion.logprobs) == len(ids)
        if completion.stop_reason == "stop":
            assert ids[-1] == 3
        else:
            assert len(ids) == request.max_new_tokens and ids[-1] != 3
    assert {c.stop_reason for c in completions} == {"stop", "length"}


def test_rows_that_end_early_leave_the_others_right(tiny_model):
    """Compaction of the cache: rows of many lengths end at many positions, and each is as the model says."""
    model = tiny_model(vocab_size=12)
    rng = np.random.default_rng(1)
    requests = [
        Generation(rng.integers(0, 12, size=rng.integers(1, 20)).tolist(), i, int(rng.integers(1, 40)))
        for i in range(24)
    ]
    completions = TorchEngine(model, end_token_id=3).generate(requests, 1.0)
    assert len({len(c.token_ids) for c in completions}) > 4
    for request, completion in zip(requests, completions, strict=True):
        expected = whole_sequence_logprobs(model, request, completion, 1.0)
        np.testing.assert_allclose(completion.logprobs, expected, atol=1e-5)


def test_the_last_rows_take_the_places_of_those_that_ended():
    assert compacted(np.array([1, 0, 1, 1, 0, 1], dtype=bool)).tolist() == [0, 5, 2, 3]
    rng = np.random.default_rng(0)
    for _ in range(50):
        going = rng.random(rng.integers(1, 12)) < rng.random()
        order = compacted(going)
        assert sorted(order.tolist()) == np.flatnonzero(going).tolist()
        # A row moves only where one in front of it ended.
        assert sum(order != np.arange(len(order))) == sum(~going[: len(order)])


def test_the_logprob_is_that_of_the_distribution_that_is_drawn_from():
    """Against float64, over flat and steep rows."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(200, 1000, generator=generator) * torch.linspace(0.1, 12, 200).unsqueeze(-1)
    uniform = torch.from_numpy(uniforms(1, 200))
    tokens, logprobs = sample(logits, uniform, 0.8)
    exact = torch.log_softmax(logits.double() / 0.8, dim=-1)
    torch.testing.assert_close(logprobs.double(), exact.gather(-1, tokens[:, None])[:, 0], atol=1e-5, rtol=0)
    upper = exact.exp().cumsum(-1).gather(-1, tokens[:, None])[:, 0]
    lower = upper - logprobs.double().exp()
    assert bool((lower - 1e-6 <= uniform).all()) and bool((uniform <= upper + 1e-6).all())


def test_generating_leaves_the_model_in_its_mode_and_its_weights_trainable(tiny_model):
    model = tiny_model().train()
    TorchEngine(model, NEVER).generate(requests_of(2), 1.0)
    assert model.training
    model.token_logprobs(PackedBatch.from_sequences([[1, 2, 3]])).sum().backward()


def test_no_requests_no_completions(tiny_model):
    assert TorchEngine(tiny_model(), NEVER).generate([], 1.0) == []


def test_a_request_for_no_tokens_is_refused(tiny_model):
    with pytest.raises(ValueError, match="max_new_tokens"):
        TorchEngine(tiny_model(), NEVER).generate([Generation([1], 0, 0)], 1.0)
