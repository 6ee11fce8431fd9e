"""Tokenised documents: what the loss counts on, that files give back what was written, and which batch is whose."""

import numpy as np
import pytest
import torch

from pipeline.learning.text import load_texts, save_texts, tokenise
from pipeline.learning.text_batches import Packing, TextBatches, longest, text_batch
from rollout.environment import tool
from specialists.corpus import Document

USER = {"role": "user", "content": "what is 12?"}
THOUGHT = {"role": "assistant", "content": "46", "reasoning_content": "12 + 34"}
CALL = {
    "role": "assistant",
    "content": "",
    "reasoning_content": "look",
    "tool_calls": [{"function": {"name": "view", "arguments": {"path": "a"}}}],
}
RESULT = {"role": "tool", "content": "the answer"}
VIEW = tool("view", "Shows a file.", path="string")


def documents():
    direct = {"role": "assistant", "content": "46"}
    return [
        Document((USER, THOUGHT), "thinking", (), "toy", True),
        Document((USER, direct), "direct", (), "toy", True),
        Document((USER, CALL, RESULT, THOUGHT), "thinking", (VIEW,), "toy", True),
    ]


def test_documents_are_rendered_by_the_chat_template(chat):
    for document, text in zip(documents(), tokenise(documents(), chat), strict=True):
        rendered = chat.render(document.messages, document.mode, document.tools, open_turn=False)
        assert chat.tokenizer.decode(text.token_ids) == rendered


def test_the_loss_counts_on_what_an_assistant_wrote_and_not_on_the_opening_of_its_turn(chat):
    def counted(text):
        return chat.tokenizer.decode(text.token_ids[text.mask])

    thinking, direct, agent = tokenise(documents(), chat)
    assert counted(thinking) == "12 + 34</think>46<|end|>"
    assert counted(direct) == "46<|end|>"
    call = '<tool_call>{"name": "view", "arguments": {"path": "a"}}</tool_call>'
    assert counted(agent) == f"look</think>{call}<|end|>12 + 34</think>46<|end|>"
    # What a rollout is given as its prompt is never learned as something to write.
    prompt = chat.prompt_ids([USER], "thinking")
    assert not thinking.mask[: len(prompt)].any() and thinking.mask[len(prompt) :].all()


def texts_of(chat, count=25):
    made = [
        Document(({"role": "user", "content": "a b c d " * (1 + i % 4) + str(i)}, THOUGHT), "thinking", (), "toy", True)
        for i in range(count)
    ]
    return tokenise(made, chat)


def test_texts_survive_their_file(chat, tmp_path):
    texts = texts_of(chat)
    save_texts(tmp_path / "texts.npz", texts)
    loaded = load_texts(tmp_path / "texts.npz")
    for before, after in zip(texts, loaded, strict=True):
        np.testing.assert_array_equal(before.token_ids, after.token_ids)
        np.testing.assert_array_equal(before.mask, after.mask)
        assert (after.token_ids.dtype, after.mask.dtype) == (np.int32, np.bool_)


def epoch_of(batches, texts, start):
    """Documents seen from step `start` until all tokens of an epoch have come."""
    seen, step, total = [], start, sum(len(t.token_ids) for t in texts)
    while total > 0:
        batch = batches.batch(step)
        seen += [tuple(part.tolist()) for part in batch.packed.unpack(batch.packed.input_ids)]
        total -= len(batch.packed.input_ids)
        step += 1
    return seen, step


def test_an_epoch_shows_every_document_once_and_the_next_in_another_order(chat):
    texts = texts_of(chat)
    batches = TextBatches(texts, Packing(120), 1)
    everything = sorted(tuple(t.token_ids.tolist()) for t in texts)
    first, following = epoch_of(batches, texts, 0)
    second, _ = epoch_of(batches, texts, following)
    assert sorted(first) == sorted(second) == everything
    assert first != second
    assert all(len(batches.batch(step).packed.input_ids) <= 120 for step in range(following))


def test_a_steps_batch_does_not_depend_on_what_was_asked_before(chat):
    texts = texts_of(chat)
    whole = TextBatches(texts, Packing(120), 1)
    for step in range(12):
        whole.batch(step)
    for step in (11, 3, 0):
        alone = TextBatches(texts, Packing(120), 1).batch(step)
        assert torch.equal(alone.packed.input_ids, whole.batch(step).packed.input_ids)
        assert torch.equal(alone.mask, whole.batch(step).mask)
    other = TextBatches(texts, Packing(120), 2).batch(0)
    assert other.packed.input_ids.tolist() != whole.batch(0).packed.input_ids.tolist()


def test_a_document_longer_than_a_batch_gets_one_of_its_own(chat):
    texts = texts_of(chat, 4)
    batches = TextBatches(texts, Packing(1), 0)
    assert [len(batches.batch(step).packed.lengths) for step in range(4)] == [1, 1, 1, 1]


def test_no_texts_are_refused():
    with pytest.raises(ValueError, match="no text to train on"):
        TextBatches([], Packing(100), 0)


def test_measuring_sees_every_document_once(chat):
    texts = texts_of(chat)
    batches = longest(texts, Packing(100), len(texts))
    assert sum(len(batch.packed.lengths) for batch in batches) == len(texts)
    assert sum(int(batch.mask.sum()) for batch in batches) == sum(int(t.mask.sum()) for t in texts)


def test_a_batchs_mask_belongs_to_its_tokens(chat):
    texts = texts_of(chat, 3)
    batch = text_batch(texts)
    for text, ids, mask in zip(
        texts, batch.packed.unpack(batch.packed.input_ids), batch.packed.unpack(batch.mask), strict=True
    ):
        assert ids.tolist() == text.token_ids.tolist() and mask.tolist() == text.mask.tolist()
