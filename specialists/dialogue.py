"""What agent domains share: demonstrations written against a real environment, and the form of every turn."""

from __future__ import annotations

from typing import Any

from rewards.extract import FormatError, split_thinking
from rewards.types import Verdict
from rollout.environment import Environment
from rollout.records import Attempt, Message, Mode
from specialists.base import assistant, tool_result

RESULT_MARKUP = ("<tool_response", "<function_results", "<tool_result", "<information>", "<|tool|>", "<｜tool▁output")
"""How models are shown the results of tools: a policy that writes one itself makes up what it was told."""


class Dialogue:
    """Collects the turns of one demonstration; every tool result is what the environment answers.

    Thoughts are kept in thinking mode only.
    """

    def __init__(self, mode: Mode, environment: Environment) -> None:
        self.messages: list[Message] = []
        self._thinks = mode == "thinking"
        self._environment = environment

    def call(self, thought: str, name: str, **arguments: Any) -> str:
        """A turn that calls a tool; returns what the environment answered."""
        result = self._environment.call(name, arguments)
        self.messages.append(assistant("", thought if self._thinks else "", call=(name, arguments)))
        self.messages.append(tool_result(result))
        return result

    def say(self, thought: str, text: str) -> list[Message]:
        """The last turn; returns the whole demonstration."""
        self.messages.append(assistant(text, thought if self._thinks else ""))
        return self.messages


def broken_format(attempt: Attempt) -> Verdict | None:
    """The verdict on a conversation that did not end by itself, with a turn out of its mode's form, or with a tool
    result in the policy's own words."""
    if not attempt.finished:
        return Verdict(False, "unfinished", {"stop_reason": attempt.stop_reason})
    for number, turn in enumerate(attempt.completions):
        parts = split_thinking(turn, attempt.task.mode)
        if isinstance(parts, FormatError):
            return Verdict(False, parts.name, {"detail": parts.detail, "turn": number})
        if forged := [markup for markup in RESULT_MARKUP if markup in turn]:
            return Verdict(False, "forged_tool_result", {"detail": forged[0], "turn": number})
    return None
