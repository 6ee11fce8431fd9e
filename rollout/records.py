"""The records that pass between the rooms: what is asked (`Task`), what was tried (`Trajectory`), what a judge sees
of it (`Attempt`), and the trajectories of one task (`Group`). JSON-serialisable where they cross a file; no torch."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from rewards.rubric import Criterion
from rewards.types import Reward
from rollout.advantages import component_advantages, reward_advantages

Mode = Literal["thinking", "direct"]
MODES: tuple[Mode, ...] = ("thinking", "direct")
Split = Literal["train", "heldout"]
StopReason = Literal["stop", "length", "turns", "context"]
Message = dict[str, Any]
"""A chat message as `apply_chat_template` takes it: `role` and `content`, for the assistant also
`reasoning_content` and `tool_calls` (OpenAI's shape, `arguments` as an object)."""


class TaskError(ValueError):
    """A row that is no task; the message names the field and what was expected."""


@dataclass(frozen=True)
class Task:
    """One thing to try.

    Attributes:
        id: unique within a run; equal ids mean the same task.
        domain: name of the domain that judges it (`math`, `code`, …).
        family: the kind of task inside the domain, for tables.
        messages: the conversation up to the policy's first turn.
        mode: `thinking` opens a thought, `direct` answers at once.
        language: language that the prompt is in and the answer is due in (ISO 639-1).
        answer: ground truth of a task with one answer; None where tests or a rubric judge.
        grader: how the answer of a user's own task is judged, a kind of `rewards.graders`; empty for that table's
            default, and in the built-in domains, which grade their answers themselves.
        choices: texts of a multiple-choice question, the first is A; empty where they are not known.
        tests: hidden tests, JSON objects in the form that the domain's grader reads.
        rubric: criteria of a task that the generative reward model judges.
        environment: what the domain's environment is built from (a mini-repository, a corpus); None for one turn.
        difficulty: level, 1 is easiest.
        provenance: where it came from: generator and seed, or file and line.
    """

    id: str
    domain: str
    messages: tuple[Message, ...]
    mode: Mode = "thinking"
    family: str = ""
    language: str = "en"
    answer: Any = None
    grader: str = ""
    choices: tuple[str, ...] = ()
    tests: tuple[Mapping[str, Any], ...] = ()
    rubric: tuple[Criterion, ...] = ()
    environment: Mapping[str, Any] | None = None
    difficulty: int = 1
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.id or not isinstance(self.id, str):
            raise TaskError(f"field 'id': expected a non-empty string, got {self.id!r}")
        if not self.messages:
            raise TaskError("field 'messages': expected at least one message, got none")
        for number, message in enumerate(self.messages):
            if not isinstance(message, dict) or not isinstance(message.get("role"), str):
                raise TaskError(f"field 'messages[{number}]': expected an object with 'role' and 'content'")
            if not isinstance(message.get("content"), str):
                raise TaskError(f"field 'messages[{number}].content': expected a string")
        if not isinstance(self.grader, str) or not all(isinstance(choice, str) for choice in self.choices):
            raise TaskError(
                f"fields 'grader' and 'choices': expected a name and a list of texts, got {self.grader!r} "
                f"and {self.choices!r:.60}"
            )
        if self.rubric and (self.grader or self.choices):
            raise TaskError("fields 'grader' and 'rubric' are two ways to judge; keep one")
        if self.mode not in MODES:
            raise TaskError(f"field 'mode': expected one of {', '.join(MODES)}, got {self.mode!r}")
        if not isinstance(self.difficulty, int) or isinstance(self.difficulty, bool) or self.difficulty < 1:
            raise TaskError(f"field 'difficulty': expected an integer from 1, got {self.difficulty!r}")

    @property
    def prompt(self) -> str:
        """Text of the last user message: what is asked."""
        return next((m["content"] for m in reversed(self.messages) if m["role"] == "user"), "")

    def in_mode(self, mode: Mode) -> Task:
        """The same task to be answered in another mode; its id says which."""
        if mode == self.mode:
            return self
        stem = self.id.removesuffix(f"/{self.mode}")
        return dataclasses.replace(self, mode=mode, id=f"{stem}/{mode}")

    def to_json(self) -> dict[str, Any]:
        row = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        row["messages"] = list(self.messages)
        row["choices"] = list(self.choices)
        row["tests"] = [dict(test) for test in self.tests]
        row["rubric"] = [criterion.to_json() for criterion in self.rubric]
        row["environment"] = None if self.environment is None else dict(self.environment)
        row["provenance"] = dict(self.provenance)
        return row

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Task:
        """Reads a task from an object; raises `TaskError` that names the field."""
        known = {f.name for f in dataclasses.fields(cls)}
        if unknown := sorted(set(row) - known):
            raise TaskError(f"field {unknown[0]!r}: not a field of a task; known: {', '.join(sorted(known))}")
        for name in ("id", "domain", "messages"):
            if row.get(name) is None:
                raise TaskError(f"field {name!r}: missing")
        values = {name: value for name, value in row.items() if value is not None or name == "answer"}
        for name in ("messages", "tests", "rubric", "choices"):
            if name in values and (isinstance(values[name], str) or not isinstance(values[name], Sequence)):
                raise TaskError(f"field {name!r}: expected a list, got {type(values[name]).__name__}")
        for name in ("environment", "provenance"):
            if name in values and not isinstance(values[name], Mapping):
                raise TaskError(f"field {name!r}: expected an object, got {type(values[name]).__name__}")
        for number, test in enumerate(values.get("tests", ())):
            if not isinstance(test, Mapping):
                raise TaskError(f"field 'tests[{number}]': expected an object, got {type(test).__name__}")
        values["messages"] = tuple(values["messages"])
        values["tests"] = tuple(values.get("tests", ()))
        values["choices"] = tuple(values.get("choices", ()))
        try:
            values["rubric"] = tuple(Criterion.from_json(item) for item in values.get("rubric", ()))
        except (KeyError, TypeError, ValueError) as error:
            raise TaskError(f"field 'rubric': {error}") from error
        return cls(**values)


@dataclass(frozen=True)
class Attempt:
    """What a judge sees of a trajectory: text, never tensors.

    `completions` are the policy's turns as it wrote them (thought included, end token not); `tool_results` the
    environment's answers between them; `state` what the environment says of itself at the end (`Environment.state`).
    `tokens` counts all tokens that the policy wrote, thinking and answer.
    """

    task: Task
    completions: tuple[str, ...]
    tool_results: tuple[str, ...]
    stop_reason: StopReason
    tokens: int
    state: Mapping[str, Any] = field(default_factory=dict)
    sample: int = 0

    @property
    def final(self) -> str:
        """The last turn that the policy wrote."""
        return self.completions[-1] if self.completions else ""

    @property
    def finished(self) -> bool:
        """True if the policy ended its last turn by itself."""
        return self.stop_reason == "stop"


@dataclass(frozen=True)
class Trajectory:
    """Everything from rollout to loss. Arrays run over the T tokens of the whole conversation.

    Attributes:
        token_ids: [T] int32, prompt, policy turns and tool results in order.
        policy_mask: [T] bool, True where the policy wrote the token (only these are trained on).
        logprobs: [T] float32, natural-log probability that the sampling engine gave each policy token under the
            distribution it was drawn from (temperature applied); 0 elsewhere.
        versions: [T] int32, weight version that wrote the token; -1 where the policy did not write it.
    """

    attempt: Attempt
    token_ids: np.ndarray
    policy_mask: np.ndarray
    logprobs: np.ndarray
    versions: np.ndarray

    def __post_init__(self) -> None:
        lengths = {len(self.token_ids), len(self.policy_mask), len(self.logprobs), len(self.versions)}
        if len(lengths) != 1:
            raise ValueError(f"a trajectory's arrays must have one length, got {sorted(lengths)}")

    @property
    def task(self) -> Task:
        return self.attempt.task


@dataclass(frozen=True)
class Group:
    """The trajectories of one task and their rewards, in sample order; advantages are computed here (mean over the
    valid ones as baseline)."""

    task: Task
    trajectories: tuple[Trajectory, ...]
    rewards: tuple[Reward, ...]

    def __post_init__(self) -> None:
        if len(self.trajectories) != len(self.rewards):
            raise ValueError(f"{len(self.trajectories)} trajectories but {len(self.rewards)} rewards")

    def advantages(self, scale_by_std: bool = False, normalization: str = "reward") -> np.ndarray:
        """[G] float64; NaN where the reward is invalid (the sample leaves baseline and loss).

        Of the rewards as wholes (`reward_advantages`), or with `normalization="component"` of each component by its own
        standard deviation (`component_advantages`, which `scale_by_std` must ask for).
        """
        if normalization == "reward":
            return reward_advantages(self.rewards, scale_by_std)
        if normalization != "component" or not scale_by_std:
            raise ValueError(
                "normalization must be 'reward', or 'component' together with scale_by_std; "
                f"got {normalization!r} and scale_by_std={scale_by_std}"
            )
        return component_advantages(self.rewards)


def dump_jsonl(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as JSON lines, keys sorted, so that equal rows give equal bytes."""
    return "".join(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n" for row in rows)
