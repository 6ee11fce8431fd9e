"""`pipeline chat`: a conversation with a checkpoint, in either mode.

At a terminal it is a loop: an empty line or Ctrl-D ends it, `/thinking` and `/direct` switch the mode, `/reset` forgets
the conversation. With a prompt it answers once. Input that is no terminal is read line by line.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

from rich.console import Console
from rich.text import Text

from pipeline.config.schema import Config
from pipeline.errors import UsageError
from pipeline.export import resolve_checkpoint
from rollout.records import MODES, Message, Mode

if TYPE_CHECKING:
    from rollout.chat import Chat
    from rollout.engine import TorchEngine

CLOSE = "</think>"


@dataclass
class Talk:
    """A conversation under way: the model that answers, the mode, and what was said so far.

    Attributes:
        temperature: of the answers; 0 is greedy.
        max_new_tokens, max_context: limits of an answer and of the whole conversation, in tokens.
        seed: of the draws; equal seeds and questions, equal answers.
    """

    engine: TorchEngine
    chat: Chat
    mode: Mode
    temperature: float
    max_new_tokens: int
    max_context: int
    seed: int
    messages: list[Message] = field(default_factory=list)

    def answer(self, question: str) -> tuple[str, str, bool]:
        """Asks, and gives the thought, the answer, and whether the model came to an end by itself.

        Raises:
            UsageError: if the conversation has no room left; it is as it was before the question.
        """
        from rollout.engine import Generation
        from rollout.seeding import seed_for

        asked = [*self.messages, {"role": "user", "content": question}]
        prompt = self.chat.prompt_ids(asked, self.mode)
        room = self.max_context - len(prompt)
        if room < 1:
            raise UsageError(
                f"the conversation has {len(prompt)} tokens and sampling.max_context is {self.max_context}; "
                "ask something shorter, or begin anew with /reset"
            )
        seed = seed_for(self.seed, "chat", len(asked))
        request = Generation(prompt, seed, min(self.max_new_tokens, room))
        completion = self.engine.generate([request], self.temperature)[0]
        finished = completion.stop_reason == "stop"
        text = self.chat.decode(completion.token_ids[: -1 if finished else None])
        thought, content = split_thought(text, self.mode)
        reply: Message = {"role": "assistant", "content": content}
        if thought:
            reply["reasoning_content"] = thought
        self.messages = [*asked, reply]
        return thought, content, finished


def split_thought(text: str, mode: Mode) -> tuple[str, str]:
    """Thought and answer of a turn; a thought that was never closed is all thought."""
    if mode == "direct":
        return "", text
    thought, closed, content = text.partition(CLOSE)
    return (thought, content) if closed else (text, "")


def load_talk(folder: Path, mode: str, config: Config) -> Talk:
    """Loads the model and the tokenizer of a checkpoint folder.

    Raises:
        UsageError: if the folder holds no checkpoint that can be loaded.
    """
    from transformers import AutoTokenizer

    from model import CheckpointError, load_checkpoint
    from pipeline.stages.common import device
    from rollout.chat import Chat
    from rollout.engine import TorchEngine

    try:
        model = load_checkpoint(folder, device=device(config)).eval()
        chat = Chat(AutoTokenizer.from_pretrained(folder))
    except (CheckpointError, OSError, ValueError) as error:
        raise UsageError(f"{folder} cannot be talked to: {error}") from error
    sampling = config.sampling
    return Talk(
        TorchEngine(model, chat.end_token_id),
        chat,
        cast(Mode, mode),
        sampling.temperature,
        sampling.max_new_tokens,
        sampling.max_context,
        config.seed,
    )


def chat(run: Path, checkpoint: str, mode: str, prompt: str | None, config: Config) -> None:
    """Talks to a checkpoint of the run (or to a checkpoint folder), or answers `prompt` once.

    Raises:
        UsageError: for a mode or a checkpoint that does not exist, and for a prompt that is too long.
    """
    if mode not in MODES:
        raise UsageError(f"expected mode {' or '.join(MODES)}, got {mode!r}")
    talk = load_talk(resolve_checkpoint(run, checkpoint), mode, config)
    console = Console(highlight=False)
    if prompt is not None:
        show(console, *talk.answer(prompt))
        return
    interactive = sys.stdin.isatty() and console.is_terminal
    if interactive:
        console.print(
            f"[bold]{checkpoint}[/bold], {mode}. /thinking and /direct switch, /reset forgets, an empty line ends."
        )
    while (line := read_line(console, interactive)) is not None:
        if line.startswith("/"):
            console.print(obey(talk, line), style="dim", markup=False, soft_wrap=True)
            continue
        try:
            show(console, *talk.answer(line))
        except UsageError as error:
            console.print(error.message, style="red", markup=False, soft_wrap=True)


def read_line(console: Console, interactive: bool) -> str | None:
    """The next line, or None at the end: an empty line, Ctrl-D, Ctrl-C or the end of the input."""
    try:
        line = console.input("[bold]> [/bold]") if interactive else sys.stdin.readline()
    except (EOFError, KeyboardInterrupt):
        console.print()
        return None
    return line.strip() or None


def obey(talk: Talk, line: str) -> str:
    """Carries out a line that begins with `/` and says what came of it."""
    name = line.removeprefix("/")
    if name in MODES:
        talk.mode = cast(Mode, name)
        return f"mode: {name}"
    if name == "reset":
        talk.messages = []
        return "a new conversation"
    return f"unknown command {line}; there are /thinking, /direct and /reset"


def show(console: Console, thought: str, content: str, finished: bool) -> None:
    """Prints the thought dimmed, then the answer; says so where the tokens ran out."""
    if thought:
        console.print(Text(thought, style="dim"), soft_wrap=True)
    if content:
        console.print(Text(content), soft_wrap=True)
    if not finished:
        console.print(Text("(cut off: sampling.max_new_tokens or max_context)", style="dim italic"))
