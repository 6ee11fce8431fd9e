"""Which of the specialists' samples become training data: verified, distinct, balanced, decontaminated.

Pure functions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rewards.types import Reward
from rollout.records import Attempt, Message, Task, Trajectory
from rollout.tools import ToolCallError, parse_tool_call


@dataclass(frozen=True)
class Candidate:
    """A verified or refused sample of a specialist; `step` is the specialist's, `seed` the draw's."""

    trajectory: Trajectory
    reward: Reward
    specialist: str
    step: int
    seed: int

    @property
    def task(self) -> Task:
        return self.trajectory.task

    @property
    def cell(self) -> tuple[str, str]:
        """Domain and mode, over which the data is balanced."""
        return self.task.domain, self.task.mode


@dataclass
class Selection:
    """What was kept, and how many were dropped for which reason."""

    kept: list[Candidate] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)

    def drop(self, reason: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1


def select(
    candidates: Iterable[Candidate], heldout: Iterable[Task], keep_per_task: int, max_per_cell: int, ngram: int
) -> Selection:
    """Verified samples only, none with a malformed tool call; of each task the best paid (then shortest)
    `keep_per_task`; equal texts once; nothing that a held-out task could be recognised in; at most `max_per_cell` of
    each domain and mode, tasks in turn."""
    selection = Selection()
    verified: list[Candidate] = []
    for candidate in candidates:
        if not candidate.reward.valid:
            selection.drop("invalid reward")
        elif not candidate.reward.passed:
            selection.drop("not verified")
        elif not _calls_well(candidate.trajectory.attempt):
            selection.drop("malformed tool call")
        else:
            verified.append(candidate)
    contamination = Contamination(heldout, ngram)
    seen: set[str] = set()
    of_task: dict[str, int] = {}
    of_cell: dict[tuple[str, str], int] = {}
    order = sorted(verified, key=lambda c: (-(c.reward.value or 0.0), c.trajectory.attempt.tokens, c.task.id, c.seed))
    for candidate in order:
        key = fingerprint(candidate.task, candidate.trajectory.attempt.completions)
        if contamination.touches(candidate.task):
            selection.drop("held-out problem")
        elif key in seen:
            selection.drop("duplicate")
        elif of_task.get(candidate.task.id, 0) >= keep_per_task:
            selection.drop("enough of its task")
        elif of_cell.get(candidate.cell, 0) >= max_per_cell:
            selection.drop("enough of its domain and mode")
        else:
            seen.add(key)
            of_task[candidate.task.id] = of_task.get(candidate.task.id, 0) + 1
            of_cell[candidate.cell] = of_cell.get(candidate.cell, 0) + 1
            selection.kept.append(candidate)
    return selection


def _calls_well(attempt: Attempt) -> bool:
    """Whether each turn that got a tool's answer was a call: a slip that the policy recovered from is no lesson."""
    try:
        mode = attempt.task.mode
        return all(parse_tool_call(turn, mode) for turn in attempt.completions[: len(attempt.tool_results)])
    except ToolCallError:
        return False


def fingerprint(task: Task, completions: Sequence[str]) -> str:
    """SHA-256 of what was asked and written, spaces folded."""
    text = "\x1f".join([task.mode, _asked(task), *(_words_joined(turn) for turn in completions)])
    return hashlib.sha256(text.encode()).hexdigest()


class Contamination:
    """Held-out problems in a form that training tasks are checked against: the same problem (by id, in any mode), the
    same question, or `ngram` words in a row (13 is usual: GPT-3, arXiv:2005.14165, appendix C) where that many words in
    a row occur in no more than one held-out prompt, so that a template's wording is no evidence.

    Where a task has a world (files, pages), question and world together are the problem: many worlds share the words
    of a question, so that words in a row say nothing there."""

    def __init__(self, heldout: Iterable[Task], ngram: int) -> None:
        self.ngram = ngram
        self.ids: set[str] = set()
        self.questions: set[str] = set()
        counts: dict[str, int] = {}
        for task in heldout:
            self.ids.add(_problem_id(task))
            asked = _asked(task)
            if asked not in self.questions:
                self.questions.add(asked)
                for gram in _grams(task, ngram):
                    counts[gram] = counts.get(gram, 0) + 1
        self.grams = {gram for gram, count in counts.items() if count == 1}

    def touches(self, task: Task) -> bool:
        if _problem_id(task) in self.ids or _asked(task) in self.questions:
            return True
        return any(gram in self.grams for gram in _grams(task, self.ngram))


def _problem_id(task: Task) -> str:
    return task.id.removesuffix(f"/{task.mode}")


def _words_joined(text: str) -> str:
    return " ".join(text.split())


def _asked(task: Task) -> str:
    """The question, spaces folded, with its world where it has one."""
    world = "" if task.environment is None else json.dumps(task.environment, sort_keys=True, ensure_ascii=False)
    return _words_joined(task.prompt) + world


def _grams(task: Task, size: int) -> set[str]:
    words = [] if task.environment is not None else task.prompt.split()
    return {" ".join(words[i : i + size]) for i in range(len(words) - size + 1)}


def to_row(candidate: Candidate) -> dict[str, Any]:
    """A row of the dataset: the conversation for people and other models, the tokens as they were sampled with their
    loss mask for the SFT, and where it came from."""
    trajectory, task = candidate.trajectory, candidate.task
    return {
        "messages": [_flat(message) for message in conversation(trajectory)],
        "input_ids": [int(t) for t in trajectory.token_ids],
        "assistant_masks": [int(m) for m in trajectory.policy_mask],
        "domain": task.domain,
        "family": task.family,
        "mode": task.mode,
        "language": task.language,
        "specialist": candidate.specialist,
        "specialist_step": candidate.step,
        "task": task.id,
        "seed": candidate.seed,
        "sample": trajectory.attempt.sample,
        "reward": candidate.reward.value,
        "tokens": trajectory.attempt.tokens,
    }


def conversation(trajectory: Trajectory) -> list[Message]:
    """The whole conversation as messages."""
    attempt = trajectory.attempt
    messages: list[Message] = list(attempt.task.messages)
    for number, turn in enumerate(attempt.completions):
        thought, _, answer = turn.rpartition("</think>")
        message: Message = {"role": "assistant", "content": answer, "reasoning_content": thought}
        call = parse_tool_call(turn, attempt.task.mode) if number < len(attempt.tool_results) else None
        if call is not None:
            message["content"] = answer.split("<tool_call>", 1)[0]
            function = {"name": call.name, "arguments": dict(call.arguments)}
            message["tool_calls"] = [{"type": "function", "function": function}]
        messages.append(message)
        if number < len(attempt.tool_results):
            messages.append({"role": "tool", "content": attempt.tool_results[number]})
    return messages


def _flat(message: Message) -> dict[str, str]:
    """One shape for all rows, as Arrow wants it: tool calls as JSON text."""
    calls = message.get("tool_calls")
    return {
        "role": message["role"],
        "content": message["content"],
        "reasoning_content": message.get("reasoning_content", ""),
        "tool_calls": json.dumps(calls, ensure_ascii=False) if calls else "",
    }
