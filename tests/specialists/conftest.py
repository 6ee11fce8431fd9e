"""What the tests of the domains share: one sandbox, and playing a demonstration in the real environment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest

from rewards.sandbox import SandboxWorker
from rollout.records import Attempt, Message, Task
from rollout.tools import parse_tool_call, render_tool_call
from specialists.base import Domain

Replay = Callable[[Domain, Task, Sequence[Message]], Attempt]


@pytest.fixture(scope="session")
def sandbox() -> Iterator[SandboxWorker]:
    with SandboxWorker() as worker:
        yield worker


@pytest.fixture
def replay(sandbox: SandboxWorker) -> Replay:
    """Plays messages as a policy would write them; asserts that the environment answers as they say."""

    def play(domain: Domain, task: Task, messages: Sequence[Message]) -> Attempt:
        environment = domain.environment(task, sandbox)
        completions, results = [], []
        for message in messages:
            if message["role"] == "tool":
                call = parse_tool_call(completions[-1], task.mode)
                assert environment is not None and call is not None
                results.append(environment.call(call.name, call.arguments))
                assert results[-1] == message["content"]
                continue
            end = "</think>" if task.mode == "thinking" else ""
            text = message["reasoning_content"] + end + message["content"]
            for call in message.get("tool_calls", []):
                text += render_tool_call(call["function"]["name"], call["function"]["arguments"])
            completions.append(text)
        state = {} if environment is None else environment.state()
        return Attempt(task, tuple(completions), tuple(results), "stop", 1, state)

    return play
