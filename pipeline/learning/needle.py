"""The needle test: one sentence with a number in a haystack of text, and the question for it at the end.

What passes is counted without sampling: the right number must be likelier than every other one. Beside it stands the
share of layers whose indexer selected the number's token for the last query. The test of Kamradt (2023), as RULER's
single-key task (arXiv:2404.06654).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from model import DeepseekForCausalLM, PackedBatch
from pipeline.config.schema import NeedleConfig
from pipeline.learning.text import Text
from pipeline.learning.watching import Watched, watch_rows
from rollout.seeding import seed_for

NAMES = ("Ada", "Bela", "Cora", "Dario", "Edith", "Farid", "Greta", "Hugo", "Iris", "Jonas", "Kira", "Lena")
SENTENCE = "\nThe secret number of {name} is {number}"
NUMBERS = range(10)


class Needle:
    """One name's sentences as tokens: `opening` up to the number, and for each number the token that it goes on with.

    Raises:
        ValueError: if the tokenizer does not tell the numbers apart by one token.
    """

    def __init__(self, tokenizer: Any, name: str) -> None:
        texts = [SENTENCE.format(name=name, number=number) for number in NUMBERS]
        encoded = tokenizer(texts, add_special_tokens=False)["input_ids"]
        columns = enumerate(zip(*encoded, strict=False))
        common = next((at for at, column in columns if len(set(column)) > 1), len(encoded[0]))
        self.opening, self.answers = encoded[0][:common], [ids[common] for ids in encoded if len(ids) > common]
        if len(set(self.answers)) < len(NUMBERS):
            raise ValueError("the needle test needs a tokenizer that writes the digits 0 to 9 as different tokens")


@torch.no_grad()
def find_needles(
    model: DeepseekForCausalLM, tokenizer: Any, texts: Sequence[Text], config: NeedleConfig, seed: int, attention: str
) -> list[dict[str, Any]]:
    """One row for each length and depth: `length`, `depth` (0 the beginning, 1 the end), `n`, `accuracy`, and for
    sparse attention `selected`, the share of layers that selected the number.

    Args:
        texts: what haystacks are made of, drawn by the seed, the length, the depth and the sample.
        attention: as for `hidden_states`.
    """
    model.eval()
    sparse = attention != "dense" and model.config.model_type == "deepseek_v32"
    rows = []
    for length in config.lengths:
        for level in range(config.depths):
            depth = level / (config.depths - 1) if config.depths > 1 else 0.5
            found, selected = 0, []
            for sample in range(config.samples):
                rng = np.random.default_rng(seed_for(seed, "needle", length, level, sample))
                needle, number = Needle(tokenizer, str(rng.choice(NAMES))), int(rng.choice(NUMBERS))
                ids, place = haystack(needle, number, texts, length, depth, rng)
                right, share = _ask(model, needle, number, ids, place, attention, sparse)
                found += right
                selected.append(share)
            row = {"length": length, "depth": depth, "n": config.samples, "accuracy": found / config.samples}
            rows.append(row | ({"selected": sum(selected) / len(selected)} if sparse else {}))
    return rows


def haystack(
    needle: Needle, number: int, texts: Sequence[Text], length: int, depth: float, rng: np.random.Generator
) -> tuple[np.ndarray, int]:
    """Token ids [length] with the needle at `depth` and its opening once more at the end, and the position of the
    number's token.

    Raises:
        ValueError: if the length has no room for needle and question.
    """
    sentence = [*needle.opening, needle.answers[number]]
    room = length - len(sentence) - len(needle.opening)
    if room < 1:
        raise ValueError(f"a needle and its question take {length - room} tokens, the haystack has {length}")
    hay: list[np.ndarray] = []
    while sum(map(len, hay)) < room:
        hay.append(texts[int(rng.integers(len(texts)))].token_ids)
    straw = np.concatenate(hay)[:room]
    at = round(depth * room)
    ids = np.concatenate([straw[:at], sentence, straw[at:], needle.opening]).astype(np.int64)
    return ids, at + len(needle.opening)


def _ask(
    model: DeepseekForCausalLM, needle: Needle, number: int, ids: np.ndarray, place: int, attention: str, sparse: bool
) -> tuple[bool, float]:
    """Whether the right number is the likeliest, and the share of layers that selected its token."""
    chosen: list[bool] = []

    def saw(watched: Watched) -> None:
        chosen.append(bool(watched.selected()[0, place]))

    batch = PackedBatch.from_sequences([ids]).to(model.device)
    if sparse:
        with watch_rows(model, torch.tensor([len(ids) - 1]), saw):
            hidden = model.hidden_states(batch, attention=attention).hidden
    else:
        hidden = model.hidden_states(batch, attention=attention).hidden
    answers = torch.tensor(needle.answers, device=hidden.device)
    logits = model.lm_head.weight[answers] @ hidden[-1]
    return int(logits.argmax()) == number, sum(chosen) / len(chosen) if chosen else 0.0
