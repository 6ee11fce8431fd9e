"""What a domain is: where its tasks come from, the world they run in, and how an answer is judged.

A domain is one file with one class. It knows no loss, no model and no torch; adding one is adding the file, a line
in `specialists.__init__` and a block in the configuration.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from rewards.sandbox import SandboxWorker
from rewards.types import Verdict
from rollout.environment import Environment, ToolSpec
from rollout.records import Attempt, Message, Mode, Split, Task

HELDOUT_SHARE = 4
"""One problem in this many is held out."""

Kind = Literal["verifiable", "general"]


@dataclass(frozen=True)
class Request:
    """What to generate: everything is drawn from `seed`, so that equal requests give equal tasks.

    `levels` and `languages` are what the configuration allows; the generator draws among them.
    """

    seed: int
    split: Split
    mode: Mode
    levels: Sequence[int] = (1,)
    languages: Sequence[str] = ("en",)


class Domain(Protocol):
    """The door of a domain."""

    name: str
    kind: Kind
    """`verifiable`: paid by `grade` (outcome, length, language). `general`: by the GenRM on the task's rubric."""
    families: tuple[str, ...]
    tools: tuple[ToolSpec, ...]
    """Tools offered in every task of the domain; empty for one-turn domains."""
    max_turns: int

    def generate(self, request: Request) -> Task:
        """A task from its seed. Its content falls in the requested split by its own hash (`split_of`), so that a
        held-out problem can not appear in training under another seed."""

    def demonstrate(self, task: Task, rng: random.Random, careful: bool) -> list[Message]:
        """The turns after the task's prompt, written by a program: assistant messages (with `reasoning_content` in
        thinking mode, `tool_calls` where tools are used) and tool results. `careful=False` writes one of the
        domain's bad habits instead, as text on the internet would: plausible, in the right form, usually wrong."""

    def environment(self, task: Task, sandbox: SandboxWorker | None) -> Environment | None:
        """The world of one attempt at the task; None for one-turn domains."""

    def grade(self, attempt: Attempt, sandbox: SandboxWorker | None) -> Verdict:
        """Right, wrong, or no opinion (invalid). For general domains: whether the answer truly meets the whole
        rubric, by the programmatic checks; used in evaluation only, never as the training reward."""


@runtime_checkable
class ChecksOwnTasks(Protocol):
    """A domain that can say of a user's own task why no answer to it could be judged."""

    def problem_of(self, task: Task) -> str | None:
        """What is missing or wrong in the task, in a sentence; None where it can be judged."""


def split_of(content: Any) -> Split:
    """The split that a problem belongs to, from its content alone (not its wording, language or mode)."""
    digest = hashlib.blake2b(repr(content).encode(), digest_size=4).digest()
    return "heldout" if int.from_bytes(digest, "big") % HELDOUT_SHARE == 0 else "train"


def task_id(domain: str, family: str, content: Any, language: str, mode: Mode) -> str:
    """An id from the problem itself: the same problem has the same id whatever seed drew it."""
    digest = hashlib.blake2b(repr((family, content)).encode(), digest_size=6).hexdigest()
    return f"{domain}/{family}/{digest}/{language}/{mode}"


def draw(rng: random.Random, split: Split, sample: Any, tries: int = 1000) -> Any:
    """Calls `sample(rng)` until its content (JSON-like, `repr`-stable) falls in `split`.

    Raises:
        RuntimeError: after `tries` draws, which means that the space of problems is too small for the split.
    """
    for _ in range(tries):
        content = sample(rng)
        if split_of(content) == split:
            return content
    raise RuntimeError(f"no {split} problem in {tries} draws: the family's space of problems is too small")


def assistant(content: str, thought: str = "", call: tuple[str, Mapping[str, Any]] | None = None) -> Message:
    """An assistant message as the chat template takes it."""
    message: Message = {"role": "assistant", "content": content, "reasoning_content": thought}
    if call is not None:
        name, arguments = call
        message["tool_calls"] = [{"type": "function", "function": {"name": name, "arguments": dict(arguments)}}]
    return message


def tool_result(content: str) -> Message:
    return {"role": "tool", "content": content}
