"""Tool calls as text: what is rendered is read again, and junk is told to the policy, never raised at the run."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rollout.records import MODES
from rollout.tools import CLOSE, OPEN, ToolCallError, parse_tool_call, render_tool_call

# Text that holds the call's own markup cannot be told from a call.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20).filter(
    lambda text: not any(mark in text for mark in (OPEN, CLOSE, "</think>"))
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
junk = st.lists(
    st.sampled_from([OPEN, CLOSE, "<think>", "</think>", "{", "}", '"name"', ":", '"a"', ",", "[", "1", "\n"])
    | st.text(max_size=5),
    max_size=20,
).map("".join)


@given(name=texts, arguments=st.dictionaries(texts, json_values, max_size=4), before=texts, thought=texts)
def test_a_rendered_call_is_read_again(name, arguments, before, thought):
    turn = f"{thought}</think>{before}{render_tool_call(name, arguments)}"
    call = parse_tool_call(turn, "thinking")
    assert call is not None
    assert (call.name, call.arguments) == (name, arguments)


@given(junk, st.sampled_from(MODES))
@example(f'{OPEN}{{"name": "a", "arguments": {{"x": {"9" * 5000}}}}}{CLOSE}', "direct")
@example(f"{OPEN}{'[' * 100_000}{CLOSE}", "direct")
@example(f'{OPEN}{{"name": "a", "arguments": {{"x": "\\ud800"}}}}{CLOSE}', "direct")
@example(f"{CLOSE}{OPEN}", "direct")
def test_junk_raises_nothing_but_tool_call_error(turn, mode):
    try:
        call = parse_tool_call(turn, mode)
    except ToolCallError as error:
        assert str(error)
    else:
        if call is None:
            assert OPEN not in (turn.partition("</think>")[2] if mode == "thinking" else turn)
        else:
            json.dumps([call.name, dict(call.arguments)], ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("turn", "message"),
    [
        (f"{OPEN}{{}}{CLOSE}{OPEN}{{}}{CLOSE}", "exactly one"),
        (f'{OPEN}{{"name": "a"}}', "exactly one closed"),
        (f'{{"name": "a"}}{CLOSE}', "exactly one closed"),
        (f"{CLOSE}{OPEN}", "closed before it is opened"),
        (f'{OPEN}{{"name": "a"}}{CLOSE} so', "nothing may follow"),
        (f"{OPEN}view(a){CLOSE}", "not JSON"),
        (f"{OPEN}[]{CLOSE}", "needs a 'name'"),
        (f'{OPEN}{{"name": 3}}{CLOSE}', "needs a 'name'"),
        (f'{OPEN}{{"name": "a", "arguments": [1]}}{CLOSE}', "must be an object"),
        (f'{OPEN}{{"name": "a", "arguments": {{"x": {"9" * 5000}}}}}{CLOSE}', "not JSON"),
        (f'{OPEN}{{"name": "\\udfff"}}{CLOSE}', "not JSON"),
        (f'{OPEN}{{"name": "a", "arguments": {{"x": NaN}}}}{CLOSE}', "not JSON"),
        (f'{OPEN}{{"name": "a", "name": "b"}}{CLOSE}', "stands twice"),
        (f'{OPEN}{{"name": "a", "arguments": {{"x": 1, "x": 2}}}}{CLOSE}', "stands twice"),
    ],
)
def test_an_error_says_what_is_wrong(turn, message):
    with pytest.raises(ToolCallError, match=message):
        parse_tool_call(turn, "direct")
    with pytest.raises(ToolCallError, match=message):
        parse_tool_call(f"so</think>{turn}", "thinking")


LIST = f'{OPEN}{{"name": "list"}}{CLOSE}'


@pytest.mark.parametrize(
    ("turn", "mode", "message"),
    [
        (LIST, "thinking", "not closed"),
        (f"I call {LIST}", "thinking", "not closed"),
        (f"<think>I call {LIST}", "thinking", "not closed"),
        (f"so</think><think>again {LIST}", "thinking", "around a tool call"),
        (f"so</think>more</think>{LIST}", "thinking", "around a tool call"),
        (f"so</think>{LIST}</think>", "thinking", "around a tool call"),
        (f"<think>{LIST}", "direct", "around a tool call"),
        (f"so</think>{LIST}", "direct", "around a tool call"),
    ],
)
def test_a_call_inside_a_thought_is_not_made(turn, mode, message):
    with pytest.raises(ToolCallError, match=message):
        parse_tool_call(turn, mode)


def test_a_call_without_arguments_has_none():
    call = parse_tool_call(LIST, "direct")
    assert call is not None and (call.name, call.arguments) == ("list", {})


def test_markup_inside_the_thought_is_no_call():
    assert parse_tool_call(f"I could write {OPEN} or {CLOSE} here</think>the answer is 4", "thinking") is None
    assert parse_tool_call("the answer is 4", "direct") is None
    assert parse_tool_call("I never stop thinking", "thinking") is None
