"""A scripted policy in the production conversation loop: its tokens, tool calls, tool results and environment."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from model.tokenizer import train_tokenizer
from pipeline.audit.cases import Cut, Policy
from rewards.sandbox import SandboxWorker
from rollout.chat import Chat
from rollout.conversation import Trial, run_trials
from rollout.engine import Completion, Generation
from rollout.records import Attempt, Mode, Task
from specialists.base import Domain

MAX_CONTEXT = 1_000_000
"""Tokens; a token is a byte here, and a flood of text must reach the grader, not the limit."""
BYTES_PER_TOKEN = 4
"""About what a trained tokenizer packs into one token: lengths are paid for as those of its tokens."""


class Player:
    """Plays scripted policies. One byte-level tokenizer with the project's chat template serves all of them."""

    def __init__(self) -> None:
        # Bytes and control tokens only: every text is written exactly, whatever it is made of.
        self.chat = Chat(train_tokenizer([], 300))

    def play(
        self, domain: Domain, task: Task, policy: Policy, sandbox: SandboxWorker | None, sample: int = 0
    ) -> Attempt:
        """The attempt that the policy makes at the task."""
        trial = Trial(task, sample, 0, MAX_CONTEXT, domain.tools, domain.max_turns)
        engine = _ScriptedEngine(task, policy, self.chat)
        (trajectory,) = run_trials(
            [trial], engine, self.chat, lambda t: domain.environment(t, sandbox), 1.0, MAX_CONTEXT
        )
        return replace(trajectory.attempt, tokens=math.ceil(trajectory.attempt.tokens / BYTES_PER_TOKEN))


class _ScriptedEngine:
    """Writes what the policy says for one conversation, and reads the tool results as the policy would: as tokens."""

    version = 0

    def __init__(self, task: Task, policy: Policy, chat: Chat) -> None:
        self._task, self._policy, self._chat = task, policy, chat
        self._results: list[str] = []
        self._known: int | None = None

    def generate(self, requests: Sequence[Generation], temperature: float) -> list[Completion]:
        (request,) = requests
        if self._known is not None:
            self._results.append(self._result(request.token_ids[self._known :], self._task.mode))
        turn = self._policy(self._task, tuple(self._results))
        text, ended = (turn.text, False) if isinstance(turn, Cut) else (turn, True)
        ids, end = self._chat.encode(text), self._chat.end_token_id
        if end in ids:
            # Inside a text it ends the turn there, as it does when a model samples it.
            ids = ids[: ids.index(end) + 1]
        elif ended:
            ids = [*ids, end]
        self._known = len(request.token_ids) + len(ids)
        logprobs = np.zeros(len(ids), dtype=np.float32)
        return [Completion(np.array(ids, dtype=np.int32), logprobs, "stop" if ids[-1:] == [end] else "length")]

    def _result(self, token_ids: Sequence[int], mode: Mode) -> str:
        """The tool's answer in the tokens between two policy turns."""
        opening = self._chat.decode(self._chat.turn_opening_ids(mode))
        return self._chat.decode(token_ids).removesuffix(opening)
