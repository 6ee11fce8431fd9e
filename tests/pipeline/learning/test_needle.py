"""The needle test, the indexer seen from outside, and its recall in lower precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kernels import topk_mask
from model import DsaStats, PackedBatch
from pipeline.config.schema import NeedleConfig
from pipeline.learning.indexer_recall import recall_by_precision
from pipeline.learning.needle import NAMES, Needle, find_needles, haystack
from pipeline.learning.text import Text
from pipeline.learning.watching import watch_rows


@pytest.fixture
def texts():
    rng = np.random.default_rng(0)
    made = [rng.integers(20, 200, size=40).astype(np.int32) for _ in range(6)]
    return [Text(ids, np.arange(len(ids)) > 0) for ids in made]


@pytest.mark.parametrize("depth", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("name", NAMES)
def test_a_haystack_has_the_needle_at_its_depth_and_the_question_at_its_end(chat, texts, depth, name):
    needle = Needle(chat.tokenizer, name)
    ids, place = haystack(needle, 7, texts, 200, depth, np.random.default_rng(1))
    assert len(ids) == 200 and ids[place] == needle.answers[7]
    assert ids[-len(needle.opening) :].tolist() == needle.opening
    assert ids[place - len(needle.opening) : place].tolist() == needle.opening
    room = 200 - 2 * len(needle.opening) - 1
    assert place - len(needle.opening) == round(depth * room)
    assert chat.tokenizer.decode([*needle.opening, needle.answers[7]]) == f"\nThe secret number of {name} is 7"


def test_a_haystack_needs_room(chat, texts):
    needle = Needle(chat.tokenizer, "Ada")
    with pytest.raises(ValueError, match="the haystack has 20"):
        haystack(needle, 0, texts, 20, 0.0, np.random.default_rng(0))


class Finder(torch.nn.Module):
    """A model that looks the number up where `reach` lets it, and says `guess` elsewhere."""

    def __init__(self, tokenizer, reach):
        super().__init__()
        self.config = type("Config", (), {"model_type": "deepseek_v3"})
        self.device = torch.device("cpu")
        self.lm_head = torch.nn.Linear(len(tokenizer), len(tokenizer), bias=False)
        self.lm_head.weight.data = torch.eye(len(tokenizer))
        self.reach, self.question = reach, Needle(tokenizer, "Ada").opening[-2:]

    def hidden_states(self, batch, attention):
        ids = batch.input_ids.tolist()
        seen = [i for i in range(2, len(ids)) if ids[i - 2 : i] == self.question and len(ids) - i <= self.reach]
        token = ids[seen[0]] if seen else 0
        return type(
            "Output",
            (),
            {"hidden": torch.nn.functional.one_hot(torch.tensor([token]), len(self.lm_head.weight)).float()},
        )


def test_a_model_that_reaches_the_needle_passes_and_one_that_does_not_guesses(chat, texts):
    config = NeedleConfig(lengths=[128, 256], depths=3, samples=12)
    everything = find_needles(Finder(chat.tokenizer, 10_000), chat.tokenizer, texts, config, 0, "dense")
    assert {row["accuracy"] for row in everything} == {1.0}
    near = find_needles(Finder(chat.tokenizer, 160), chat.tokenizer, texts, config, 0, "dense")
    passed = {(row["length"], row["depth"]): row["accuracy"] for row in near}
    assert all(passed[at] == 1.0 for at in ((128, 0.0), (128, 1.0), (256, 0.5), (256, 1.0)))
    assert passed[256, 0.0] < 0.5
    assert find_needles(Finder(chat.tokenizer, 1), chat.tokenizer, texts, NeedleConfig(), 0, "dense") == []


def test_the_share_of_layers_that_select_the_needle(tiny_model, chat, texts):
    model = tiny_model(vocab_size=len(chat.tokenizer), index_topk=256)
    config = NeedleConfig(lengths=[96], depths=2, samples=2)
    assert {row["selected"] for row in find_needles(model, chat.tokenizer, texts, config, 0, "auto")} == {1.0}
    few = tiny_model(vocab_size=len(chat.tokenizer), index_topk=8)
    shares = [row["selected"] for row in find_needles(few, chat.tokenizer, texts, config, 0, "auto")]
    assert all(0 <= share < 1 for share in shares)
    assert "selected" not in find_needles(few, chat.tokenizer, texts, config, 0, "dense")[0]


def test_the_indexer_is_seen_as_the_model_uses_it(tiny_model):
    model = tiny_model().eval()
    ids = torch.randint(0, 24, (70,), generator=torch.Generator().manual_seed(0))
    rows, seen = torch.arange(8, 70), []
    with torch.no_grad(), watch_rows(model, rows, lambda watched: seen.append(watched.scores())):
        model.hidden_states(PackedBatch.from_sequences([ids]))
    assert len(seen) == 2
    stats = DsaStats()
    with torch.no_grad():
        model.hidden_states(PackedBatch.from_sequences([ids]), collect=stats)
    for scores, layer in zip(seen, stats.layers, strict=True):
        best = scores.topk(9).values
        assert layer.margin == pytest.approx(float((best[:, 7] - best[:, 8]).mean()), rel=1e-4)
        assert (topk_mask(scores, 8).sum(-1) == 8).all()


def test_recall_without_rounding_is_what_the_statistics_say(tiny_model):
    model = tiny_model()
    ids = torch.randint(0, 24, (60,), generator=torch.Generator().manual_seed(1))
    stats = DsaStats()
    with torch.no_grad():
        model.eval().hidden_states(PackedBatch.from_sequences([ids]), collect=stats)
    found = recall_by_precision(model, [ids, ids[:5]])
    assert set(found) == {"unrounded", "bf16", "fp8", "fp8_hadamard"}
    assert found["unrounded"] == pytest.approx([layer.topk_mass for layer in stats.layers], rel=1e-4)
    for name in ("bf16", "fp8", "fp8_hadamard"):
        assert found[name] == pytest.approx(found["unrounded"], abs=0.1)
    assert recall_by_precision(model, [ids[:5]])["fp8"] == []
    odd = tiny_model(index_head_dim=12)
    assert set(recall_by_precision(odd, [ids])) == {"unrounded", "bf16", "fp8"}
