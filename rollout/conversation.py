"""The conversation loop: policy turns and tool results in turn, for many attempts at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from rollout.chat import Chat
from rollout.engine import Completion, Engine, Generation
from rollout.environment import Environment, ToolSpec
from rollout.records import Attempt, StopReason, Task, Trajectory
from rollout.seeding import seed_for
from rollout.tools import ToolCallError, parse_tool_call


@dataclass(frozen=True)
class Trial:
    """One attempt to be made: a task, which of its samples this is, and the seed of its draws."""

    task: Task
    sample: int
    seed: int
    max_new_tokens: int
    tools: tuple[ToolSpec, ...] = ()
    max_turns: int = 1


@dataclass
class _Conversation:
    """A trial under way. Lists run over the tokens so far."""

    trial: Trial
    environment: Environment | None
    token_ids: list[int]
    policy: list[bool]
    logprobs: list[float]
    completions: list[str] = field(default_factory=list)
    tool_results: list[str] = field(default_factory=list)
    stop_reason: StopReason | None = None

    def request(self, number: int, max_context: int) -> Generation:
        room = max_context - len(self.token_ids)
        seed = seed_for(self.trial.seed, len(self.completions))
        conversation = number if self.trial.tools else None
        return Generation(self.token_ids, seed, min(self.trial.max_new_tokens, room), conversation)

    def add(self, token_ids: Sequence[int] | np.ndarray, logprobs: np.ndarray | None) -> None:
        self.token_ids.extend(int(t) for t in token_ids)
        self.policy.extend([logprobs is not None] * len(token_ids))
        self.logprobs.extend([0.0] * len(token_ids) if logprobs is None else [float(p) for p in logprobs])


def run_trials(
    trials: Sequence[Trial],
    engine: Engine,
    chat: Chat,
    make_environment: Callable[[Task], Environment | None],
    temperature: float,
    max_context: int,
) -> list[Trajectory]:
    """Plays all trials to their end and returns their trajectories in order.

    A conversation ends when the policy ends a turn without a tool call (`stop`), runs out of its turn's tokens
    (`length`), of turns (`turns`) or of context (`context`).

    Raises:
        ValueError: if a prompt alone fills the context; the message names the task.
    """
    conversations = [_open(trial, chat, make_environment, max_context) for trial in trials]
    live = dict(enumerate(conversations))
    while live:
        completions = engine.generate([c.request(number, max_context) for number, c in live.items()], temperature)
        for conversation, completion in zip(live.values(), completions, strict=True):
            _take_turn(conversation, completion, chat, max_context)
        live = {number: c for number, c in live.items() if c.stop_reason is None}
    return [_close(c, engine.version) for c in conversations]


def _open(
    trial: Trial, chat: Chat, make_environment: Callable[[Task], Environment | None], max_context: int
) -> _Conversation:
    prompt = chat.prompt_ids(trial.task.messages, trial.task.mode, trial.tools)
    if len(prompt) >= max_context:
        raise ValueError(
            f"task {trial.task.id}: its prompt has {len(prompt)} tokens and sampling.max_context is {max_context}; "
            "raise it or drop the task"
        )
    environment = make_environment(trial.task) if trial.tools else None
    return _Conversation(trial, environment, list(prompt), [False] * len(prompt), [0.0] * len(prompt))


def _take_turn(conversation: _Conversation, completion: Completion, chat: Chat, max_context: int) -> None:
    conversation.add(completion.token_ids, completion.logprobs)
    ended = completion.stop_reason == "stop"
    text = chat.decode(completion.token_ids[:-1] if ended else completion.token_ids)
    conversation.completions.append(text)
    if not ended:
        full = len(conversation.token_ids) >= max_context
        conversation.stop_reason = "context" if full else "length"
        return
    if conversation.environment is None:
        conversation.stop_reason = "stop"
        return
    try:
        call = parse_tool_call(text, conversation.trial.task.mode)
    except ToolCallError as error:
        result = f"error: {error}"
    else:
        if call is None:
            conversation.stop_reason = "stop"
            return
        result = conversation.environment.call(call.name, call.arguments)
    conversation.tool_results.append(result)
    if len(conversation.completions) >= conversation.trial.max_turns:
        conversation.stop_reason = "turns"
        return
    following = chat.tool_turn_ids(result, conversation.trial.task.mode)
    if len(conversation.token_ids) + len(following) >= max_context:
        conversation.stop_reason = "context"
        return
    conversation.add(following, None)


def _close(conversation: _Conversation, version: int) -> Trajectory:
    policy = np.array(conversation.policy, dtype=bool)
    attempt = Attempt(
        task=conversation.trial.task,
        completions=tuple(conversation.completions),
        tool_results=tuple(conversation.tool_results),
        stop_reason=conversation.stop_reason or "stop",
        tokens=int(policy.sum()),
        state={} if conversation.environment is None else conversation.environment.state(),
        sample=conversation.trial.sample,
    )
    return Trajectory(
        attempt=attempt,
        token_ids=np.array(conversation.token_ids, dtype=np.int32),
        policy_mask=policy,
        logprobs=np.array(conversation.logprobs, dtype=np.float32),
        versions=np.where(policy, version, -1).astype(np.int32),
    )
