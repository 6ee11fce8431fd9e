"""The embedded tokenizer: a byte-level BPE with single-digit tokens and a chat template with two modes.

Thinking mode opens `<think>` for the policy to close; direct mode closes it at once. A thought is kept until
the next user message and dropped from the history after it, as DeepSeek-V3.2 does (arXiv:2512.02556).
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources
from typing import TYPE_CHECKING

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

BOS, END, PAD = "<|bos|>", "<|end|>", "<|pad|>"
CONTROL_TOKENS = (PAD, BOS, END, "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>")
MARKUP_TOKENS = ("<think>", "</think>", "<tool_call>", "</tool_call>")
"""Written by the policy and part of its text: not `special`, so that decoding keeps them."""


def chat_template() -> str:
    """The Jinja chat template of the embedded base."""
    return resources.files("model").joinpath("chat_template.jinja").read_text(encoding="utf-8").strip()


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Trains the tokenizer on `texts` and returns it as an ordinary Hugging Face tokenizer.

    Raises:
        ValueError: if `vocab_size` cannot hold the 256 bytes and the control tokens.
    """
    from transformers import PreTrainedTokenizerFast

    smallest = 256 + len(CONTROL_TOKENS) + len(MARKUP_TOKENS)
    if vocab_size < smallest:
        raise ValueError(
            f"model.vocab_size: expected at least {smallest} (bytes and control tokens), got {vocab_size}"
        )
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    added = [AddedToken(token, special=True, normalized=False) for token in CONTROL_TOKENS]
    added += [AddedToken(token, special=False, normalized=False) for token in MARKUP_TOKENS]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=added,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    # The trainer makes every token it is given special; the markup must survive decoding, so it is added
    # again as text.
    bpe.add_tokens([AddedToken(token, special=False, normalized=False) for token in MARKUP_TOKENS])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=BOS,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[t for t in CONTROL_TOKENS if t not in (BOS, END, PAD)],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = chat_template()
    return tokenizer
