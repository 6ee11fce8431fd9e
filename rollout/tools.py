"""Tool calls as text, in the Hermes form: `<tool_call>{"name": …, "arguments": {…}}</tool_call>` ends a turn."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rewards import strict_json
from rewards.extract import THINK_CLOSE, THINK_OPEN
from rollout.records import Mode

OPEN, CLOSE = "<tool_call>", "</tool_call>"


@dataclass(frozen=True)
class ToolCall:
    name: str
    arguments: Mapping[str, Any]


class ToolCallError(ValueError):
    """The turn holds something that starts like a tool call and is none; the message is shown to the policy."""


def render_tool_call(name: str, arguments: Mapping[str, Any]) -> str:
    """The text of a call, exactly as the chat template writes it."""
    return OPEN + json.dumps({"name": name, "arguments": dict(arguments)}, ensure_ascii=False) + CLOSE


def parse_tool_call(turn: str, mode: Mode) -> ToolCall | None:
    """The call in a policy turn, or None if there is none. One call a turn, after the thinking; nothing is repaired.

    What is written inside a thought is no call: not in a thought that never ends, nor in one that is opened again.

    Raises:
        ToolCallError: two calls, an unclosed call, a call in a thought that is not closed, JSON that does not parse or
            says a thing twice, no name, arguments that are no object.
    """
    answer = turn.partition(THINK_CLOSE)[2] if mode == "thinking" and THINK_CLOSE in turn else turn
    if OPEN not in answer and CLOSE not in answer:
        return None
    if mode == "thinking" and answer is turn:
        raise ToolCallError("the thought is not closed; a tool call stands after it")
    if THINK_OPEN in answer or THINK_CLOSE in answer:
        raise ToolCallError("no thought may be opened or closed around a tool call")
    if answer.count(OPEN) != 1 or answer.count(CLOSE) != 1:
        raise ToolCallError("expected exactly one closed tool call in a turn")
    body = answer.split(OPEN, 1)[1]
    if CLOSE not in body:
        raise ToolCallError("the tool call is closed before it is opened")
    body, rest = body.split(CLOSE, 1)
    if rest.strip():
        raise ToolCallError("nothing may follow a tool call")
    try:
        call = strict_json.loads(body)
    except ValueError as error:
        raise ToolCallError(f"the tool call is not JSON: {error}") from error
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        raise ToolCallError("the tool call needs a 'name'")
    arguments = call.get("arguments", {})
    if not isinstance(arguments, dict):
        raise ToolCallError("'arguments' must be an object")
    return ToolCall(call["name"], arguments)
