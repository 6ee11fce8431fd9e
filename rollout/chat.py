"""Between messages and tokens, for any Hugging Face tokenizer with a chat template.

A tokenizer reads `<|end|>` in a text as the token that ends a turn, so a task, a page or a file could end the user's
turn and speak as somebody else. Here only the template writes such tokens: where a message spells one out, its text is
cut inside the spelling and the parts are tokenised for themselves, as the plain characters that they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from rollout.environment import ToolSpec
from rollout.records import Message, Mode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


_TAG = re.compile(r"</?[A-Za-z_]+>")
"""Markup such as `<think>`: an assistant's message may hold it, nobody else's."""


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
        self._spelled, self._spelled_by_assistant = _control_patterns(tokenizer)
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
        """Tokens of the conversation up to the place where the policy writes. No text of a message becomes a control
        token or, but for the assistant's own, markup."""
        cut = self._unused_character(messages)
        return self._encode_cut(self.render(self._cut(messages, cut), mode, tools), cut)

    def tool_turn_ids(self, result: str, mode: Mode) -> list[int]:
        """Tokens that follow the policy's end token: the tool's answer and the opening of the next turn."""
        return list(self._tool_turn(result, mode))

    def _render_tool_turn(self, result: str, mode: Mode) -> tuple[int, ...]:
        before: list[Message] = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
        prefix = self.render(before, mode, open_turn=False)
        answer: list[Message] = [{"role": "tool", "content": result}]
        cut = self._unused_character(answer)
        whole = self.render([*before, *self._cut(answer, cut)], mode)
        if not whole.startswith(prefix):
            raise ValueError("the chat template rewrites a turn once a tool has answered; it cannot be used for tools")
        return tuple(self._encode_cut(whole[len(prefix) :], cut))

    def turn_opening_ids(self, mode: Mode) -> list[int]:
        """Tokens that the template puts in front of a policy turn: the role and, by mode, an open or closed thought."""
        user: list[Message] = [{"role": "user", "content": "?"}]
        return self.encode(self.render(user, mode)[len(self.render(user, mode, open_turn=False)) :])

    def _cut(self, messages: Sequence[Message], cut: str) -> list[Message]:
        """The messages with the character `cut` inside every spelling of a control token."""
        return [
            {
                key: value if key == "role" else _with_cuts(value, self._pattern_for(message), cut)
                for key, value in message.items()
            }
            for message in messages
        ]

    def _pattern_for(self, message: Message) -> re.Pattern[str]:
        return self._spelled_by_assistant if message.get("role") == "assistant" else self._spelled

    def _encode_cut(self, text: str, cut: str) -> list[int]:
        return [token for part in text.split(cut) for token in self.encode(part)]

    def _unused_character(self, messages: Sequence[Message]) -> str:
        """A character of the private use area that no message holds."""
        used = json.dumps(list(messages), ensure_ascii=False) + str(self.tokenizer.chat_template)
        return next(chr(code) for code in range(0xE000, 0x110000) if chr(code) not in used)

    def encode(self, text: str) -> list[int]:
        """Tokens of a text that is trusted: spelled control tokens become control tokens."""
        return self.tokenizer.encode(text, add_special_tokens=False)

    def decode(self, token_ids: Sequence[int] | np.ndarray) -> str:
        """The policy's text of a turn: control tokens left out, `<think>` and tool-call markup kept."""
        return str(self.tokenizer.decode([int(t) for t in token_ids], skip_special_tokens=True))


def _control_patterns(tokenizer: PreTrainedTokenizerBase) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Where the spelling of a control token starts, in anybody's text and in the assistant's.

    Added tokens for plain text (runs of spaces, say) are none; those in angle or square brackets are, whether or not
    the tokenizer calls them special (DeepSeek's `<｜User｜>` is not).
    """
    added = tokenizer.added_tokens_decoder.values()
    control = [token for token in added if len(token.content) > 1 and (token.special or token.content[0] in "<[")]
    tags = {token.content for token in control if not token.special and _TAG.fullmatch(token.content)}
    everything = [token.content for token in control]
    return _any_of(everything), _any_of([content for content in everything if content not in tags])


def _any_of(spellings: Sequence[str]) -> re.Pattern[str]:
    """Matches the first character of each spelling, overlapping ones too; nothing where there are none."""
    nothing = "(?!)"
    return re.compile(f"(?=(?:{'|'.join(map(re.escape, spellings)) or nothing})).", re.DOTALL)


def _with_cuts(value: Any, pattern: re.Pattern[str], cut: str) -> Any:
    """`value` with `cut` after each match in its texts, at any depth."""
    if isinstance(value, str):
        return pattern.sub(lambda match: match[0] + cut, value)
    if isinstance(value, Mapping):
        return {_with_cuts(k, pattern, cut): _with_cuts(v, pattern, cut) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_with_cuts(item, pattern, cut) for item in value]
    return value
