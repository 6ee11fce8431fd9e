"""Between messages and tokens, for any Hugging Face tokenizer with a chat template."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from rollout.environment import ToolSpec
from rollout.records import Message, Mode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Chat:
    """Renders conversations by the tokenizer's own template; policy text is never tokenised again.

    Raises:
        ValueError: if the tokenizer has no chat template or no end-of-turn token.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if not tokenizer.chat_template:
            raise ValueError("the tokenizer has no chat template; set tokenizer.chat_template and save it")
        if tokenizer.eos_token_id is None:
            raise ValueError("the tokenizer has no eos token, which must be the one that ends a turn")
        self.tokenizer = tokenizer
        self.end_token_id: int = tokenizer.eos_token_id
        self._tool_turn = lru_cache(maxsize=4096)(self._render_tool_turn)

    def render(
        self, messages: Sequence[Message], mode: Mode, tools: Sequence[ToolSpec] = (), open_turn: bool = True
    ) -> str:
        """The conversation as text; with `open_turn` up to the place where the policy writes."""
        text = self.tokenizer.apply_chat_template(
            list(messages),
            tools=list(tools) or None,
            tokenize=False,
            add_generation_prompt=open_turn,
            thinking=mode == "thinking",
        )
        return str(text)

    def prompt_ids(self, messages: Sequence[Message], mode: Mode, tools: Sequence[ToolSpec] = ()) -> list[int]:
        """Tokens of the conversation up to the place where the policy writes."""
        return self.encode(self.render(messages, mode, tools))

    def tool_turn_ids(self, result: str, mode: Mode) -> list[int]:
        """Tokens that follow the policy's end token: the tool's answer and the opening of the next turn."""
        return list(self._tool_turn(result, mode))

    def _render_tool_turn(self, result: str, mode: Mode) -> tuple[int, ...]:
        before: list[Message] = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
        prefix = self.render(before, mode, open_turn=False)
        whole = self.render([*before, {"role": "tool", "content": result}], mode)
        if not whole.startswith(prefix):
            raise ValueError("the chat template rewrites a turn once a tool has answered; it cannot be used for tools")
        return tuple(self.encode(whole[len(prefix) :]))

    def turn_opening_ids(self, mode: Mode) -> list[int]:
        """Tokens that the template puts in front of a policy turn: the role and, by mode, an open or closed thought."""
        user: list[Message] = [{"role": "user", "content": "?"}]
        return self.encode(self.render(user, mode)[len(self.render(user, mode, open_turn=False)) :])

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def decode(self, token_ids: Sequence[int] | np.ndarray) -> str:
        """The policy's text of a turn: control tokens left out, `<think>` and tool-call markup kept."""
        return str(self.tokenizer.decode([int(t) for t in token_ids], skip_special_tokens=True))
