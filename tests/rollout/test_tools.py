"""Tool calls as text: what is rendered is read again, and junk is told to the policy, never raised at the run."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

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
    call = parse_tool_call(turn)
    assert call is not None
    assert (call.name, call.arguments) == (name, arguments)


@given(junk)
@example(f'{OPEN}{{"name": "a", "arguments": {{"x": {"9" * 5000}}}}}{CLOSE}')
@example(f"{OPEN}{'[' * 100_000}{CLOSE}")
@example(f'{OPEN}{{"name": "a", "arguments": {{"x": "\\ud800"}}}}{CLOSE}')
@example(f"{CLOSE}{OPEN}")
def test_junk_raises_nothing_but_tool_call_error(turn):
    try:
        call = parse_tool_call(turn)
    except ToolCallError as error:
        assert str(error)
    else:
        if call is None:
            assert OPEN not in turn.rsplit("</think>", 1)[-1]
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
    ],
)
def test_an_error_says_what_is_wrong(turn, message):
    with pytest.raises(ToolCallError, match=message):
        parse_tool_call(turn)


def test_a_call_without_arguments_has_none():
    call = parse_tool_call(f'{OPEN}{{"name": "list"}}{CLOSE}')
    assert call is not None and (call.name, call.arguments) == ("list", {})


def test_markup_inside_the_thought_is_no_call():
    assert parse_tool_call(f"I could write {OPEN} or {CLOSE} here</think>the answer is 4") is None
    assert parse_tool_call("the answer is 4") is None
