"""The embedded tokenizer and its chat template: two modes, tools, and which tokens are the policy's."""

import itertools

import pytest
from transformers import AutoTokenizer

from model.tokenizer import CONTROL_TOKENS, MARKUP_TOKENS, train_tokenizer
from rollout.chat import Chat
from rollout.environment import tool
from rollout.tools import parse_tool_call, render_tool_call

TEXTS = ["what is 12 + 34", "the answer is 46", "open the file and read it", '{"name": "view"}'] * 20
USER = {"role": "user", "content": "what is 12 + 34?"}
VIEW = tool("view", "Show a file.", path="string", line="integer")


def call_of(name, arguments):
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


CALL = {
    "role": "assistant",
    "content": "",
    "reasoning_content": "read it first",
    "tool_calls": [call_of("view", {"path": "a.py", "line": 3})],
}
RESULT = {"role": "tool", "content": "def f(): ..."}
ANSWER = {"role": "assistant", "content": "the answer is 46"}
THOUGHT = {**ANSWER, "reasoning_content": "12 + 34 is 46"}


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, 320)


@pytest.fixture(scope="module")
def chat(tokenizer):
    return Chat(tokenizer)


def test_thinking_opens_a_thought_and_direct_closes_it_at_once(chat):
    assert chat.render([USER], "thinking").endswith("<|assistant|><think>")
    assert chat.render([USER], "direct").endswith("<|assistant|><think></think>")


def test_control_tokens_digits_and_markup_are_single_tokens(tokenizer):
    for token in (*CONTROL_TOKENS, *MARKUP_TOKENS, *"0123456789"):
        assert len(tokenizer.encode(token, add_special_tokens=False)) == 1, token
    number = tokenizer.encode("1234567", add_special_tokens=False)
    assert tokenizer.convert_ids_to_tokens(number) == list("1234567")


def test_any_text_survives_encoding(tokenizer):
    text = "naïve 多模态 \x00\ttabs  and   spaces \U0001f600 12,3"
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_decoding_keeps_markup_and_drops_control_tokens(chat):
    ids = chat.encode("<|assistant|><think>so</think>yes<tool_call>{}</tool_call><|end|>")
    assert chat.decode(ids) == "<think>so</think>yes<tool_call>{}</tool_call>"


def test_each_role_stands_between_its_token_and_the_end_token(chat):
    system = {"role": "system", "content": "be brief"}
    expected = (
        "<|bos|><|system|>be brief<|end|><|user|>what is 12 + 34?<|end|>"
        "<|assistant|><think></think>the answer is 46<|end|>"
    )
    assert chat.render([system, USER, ANSWER], "direct", open_turn=False) == expected


def test_tools_are_named_with_their_parameters(chat):
    assert chat.render([USER], "direct", [VIEW]).startswith("<|bos|><|system|>tools: view(path, line)<|end|><|user|>")


def test_tool_call_and_result_are_rendered_as_the_parser_reads_them(chat):
    text = chat.render([USER, CALL, RESULT], "thinking", [VIEW])
    written = render_tool_call("view", {"path": "a.py", "line": 3})
    assert f"<think>read it first</think>{written}<|end|><|tool|>def f(): ...<|end|>" in text
    turn = text.split("<|assistant|>")[1].split("<|end|>")[0]
    call = parse_tool_call(turn, "thinking")
    assert call is not None and (call.name, dict(call.arguments)) == ("view", {"path": "a.py", "line": 3})


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"path": "a \"quoted\" \\ path\n<b> & 'c'"},
        {"path": "多模态 é", "line": -3, "deep": {"list": [1, 2.5, None, True]}},
    ],
)
def test_template_writes_a_tool_call_as_render_tool_call_does(chat, arguments):
    message = {"role": "assistant", "content": "", "tool_calls": [call_of("view", arguments)]}
    text = chat.render([USER, message], "direct", open_turn=False)
    assert text.endswith(f"<think></think>{render_tool_call('view', arguments)}<|end|>")


def test_thoughts_are_dropped_before_a_new_user_message(chat):
    text = chat.render([USER, THOUGHT, {"role": "user", "content": "and 1 + 1?"}], "thinking")
    assert "12 + 34 is 46" not in text
    assert "<think></think>the answer is 46<|end|><|user|>and 1 + 1?" in text


def test_thoughts_are_kept_after_a_tool_result(chat):
    assert "<think>read it first</think><tool_call>" in chat.render([USER, CALL, RESULT], "thinking", [VIEW])


@pytest.mark.parametrize("mode", ["thinking", "direct"])
def test_a_saved_tokenizer_renders_and_encodes_the_same(tokenizer, chat, tmp_path, mode):
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    messages = [USER, CALL, RESULT, THOUGHT, USER]
    again = Chat(loaded)
    assert again.render(messages, mode, [VIEW]) == chat.render(messages, mode, [VIEW])
    assert again.prompt_ids(messages, mode, [VIEW]) == chat.prompt_ids(messages, mode, [VIEW])
    assert again.end_token_id == chat.end_token_id == loaded.convert_tokens_to_ids("<|end|>")
    ids = loaded.apply_chat_template(
        messages, tools=[VIEW], add_generation_prompt=True, thinking=mode == "thinking", return_dict=False
    )
    assert list(ids) == chat.prompt_ids(messages, mode, [VIEW])


@pytest.mark.parametrize(
    ("mode", "turns"),
    [
        ("thinking", [THOUGHT]),
        ("direct", [ANSWER]),
        ("thinking", [CALL, RESULT, THOUGHT]),
        ("direct", [{**CALL, "reasoning_content": ""}, RESULT, ANSWER]),
    ],
)
def test_assistant_mask_covers_exactly_what_the_policy_wrote(tokenizer, chat, mode, turns):
    """What a rollout would have written after each prompt, the end token included, and nothing else."""
    output = tokenizer.apply_chat_template(
        [USER, *turns], tools=[VIEW], return_dict=True, return_assistant_tokens_mask=True
    )
    ids, mask = output["input_ids"], output["assistant_masks"]
    expected = []
    for number, turn in enumerate(turns):
        if turn["role"] != "assistant":
            continue
        before = chat.prompt_ids([USER, *turns[:number]], mode, [VIEW])
        after = chat.encode(chat.render([USER, *turns[: number + 1]], mode, [VIEW], open_turn=False))
        assert ids[: len(after)] == after and after[: len(before)] == before
        expected.append(range(len(before), len(after)))
    assert [i for i, written in enumerate(mask) if written] == list(itertools.chain(*expected))
    assert all(ids[span[-1]] == chat.end_token_id for span in expected)


@pytest.mark.parametrize("mode", ["thinking", "direct"])
@pytest.mark.parametrize("result", ["def f(): ...", "", " two\nlines ", "error: no file 'é'"])
def test_tool_turn_ids_go_on_as_rendering_the_whole_conversation_would(chat, mode, result):
    call = CALL if mode == "thinking" else {**CALL, "reasoning_content": ""}
    before = chat.encode(chat.render([USER, call], mode, [VIEW], open_turn=False))
    whole = chat.prompt_ids([USER, call, {"role": "tool", "content": result}], mode, [VIEW])
    assert before + chat.tool_turn_ids(result, mode) == whole


def test_a_vocabulary_without_room_for_the_bytes_is_refused():
    with pytest.raises(ValueError, match=r"model\.vocab_size: expected at least 267"):
        train_tokenizer(TEXTS, 200)


def test_chat_needs_a_template_and_an_end_token(tokenizer):
    class Bare:
        chat_template = None
        eos_token_id = 1

    with pytest.raises(ValueError, match="no chat template"):
        Chat(Bare())
    Bare.chat_template, Bare.eos_token_id = "{{ messages }}", None
    with pytest.raises(ValueError, match="no eos token"):
        Chat(Bare())
