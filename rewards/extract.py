"""Strict extraction: the one place that decides which part of a completion is the answer.

A completion that breaks the format is *wrong* (value 0), not invalid: the policy can learn the format. Each
failure has a name, so that a run shows which rule is broken how often. Strictness is the defence against
the answer shotgun (`\\boxed{0} ... \\boxed{9}`), against a box inside the thinking, against a quoted prompt and
against words after the box that take the answer back.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Mode = Literal["thinking", "direct"]

THINK_OPEN = "<think>"
THINK_CLOSE = "</think>"
MAX_ANSWER_CHARS = 200
MAX_CHARS_AFTER_BOX = 60

_BOX = re.compile(r"\\boxed(?![A-Za-z])")
_TEXT_COMMAND = re.compile(r"\\(?:text|mathrm)\{([^{}\\]*)\}")
_CLOSING_MARKS = re.compile(
    r"""\\[)\]]|\\end\{[a-z]+\*?\}|\^\\circ|\^\{\\circ\}|[°\s$*_`.,;:!)\]}'"。，！；：”’）】」]"""
)
# Words behind a box that change its value, offer another one or take it back; number words are digits.
_SECOND_THOUGHT = re.compile(
    r"\b(?:or|not?|but|wait|actually|instead|rather|wrong|incorrect|correction|maybe|perhaps|possibly|alternatively"
    r"|answers?|should|could|might|ignore|except|minus|plus|times|percent|half|dozen|hundred|thousand"
    r"|million|billion|trillion|zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|forty|fifty)\b"
    r"|[零〇一二三四五六七八九十百千万亿两半]|或|不|但|错|其实|应该|也许|可能|答案|更正|等等",
    re.IGNORECASE,
)
_SYMBOL = re.compile(r"\b[B-Zb-z]\b")
_FENCE = re.compile(r"^[ \t]*```[ \t]*([^\s`]*)[ \t]*$", re.MULTILINE)


@dataclass(frozen=True)
class Thinking:
    """A completion cut at the end of its thinking. `thought` is empty in direct mode."""

    thought: str
    answer_text: str


@dataclass(frozen=True)
class FormatError:
    """A named break of the format: `name` is stable (a metric), `detail` is for the reader."""

    name: str
    detail: str


def split_thinking(completion: str, mode: Mode, finished: bool = True) -> Thinking | FormatError:
    """Cut `completion` (the text after the prompt, without the end token) at the end of its thinking.

    In thinking mode the chat template has already written `<think>`, so the completion holds exactly one
    `</think>`. In direct mode the template has opened and closed it, so the completion holds neither.
    `finished` is False when the sampler stopped at its length limit: then there is no final answer to read.
    """
    if not finished:
        return FormatError("truncated", "the completion was cut at the length limit")
    if THINK_OPEN in completion:
        return FormatError("stray_think_open", f"the template opens {THINK_OPEN}; the completion must not")
    ends = completion.count(THINK_CLOSE)
    if mode == "direct":
        if ends:
            return FormatError("think_in_direct_mode", f"{THINK_CLOSE} in a direct answer")
        return Thinking("", completion.strip())
    if mode != "thinking":
        raise ValueError(f"mode must be 'thinking' or 'direct', got {mode!r}")
    if ends == 0:
        return FormatError("truncated", f"no {THINK_CLOSE}: the thinking never ended")
    if ends > 1:
        return FormatError("several_think_ends", f"{ends} times {THINK_CLOSE}, expected one")
    thought, _, answer = completion.partition(THINK_CLOSE)
    if not thought.strip():
        return FormatError("empty_thinking", "thinking mode without a thought")
    return Thinking(thought.strip(), answer.strip())


def boxed_answer(text: str, max_chars: int = MAX_ANSWER_CHARS) -> str | FormatError:
    """The content of the one `\\boxed{...}` in `text`; braces inside must balance (`\\{` and `\\}` do not
    count).

    The box ends the answer. Behind it may stand closing marks and the short rest of its sentence ("apples.", a unit),
    in letters only: a digit, a formula or a second thought there is another answer ("text_after_answer").
    """
    boxes = list(_BOX.finditer(text))
    if not boxes:
        return FormatError("no_answer", r"no \boxed{...}")
    if len(boxes) > 1:
        return FormatError("several_answers", rf"{len(boxes)} times \boxed, expected one")
    start = boxes[0].end()
    start += len(text[start:]) - len(text[start:].lstrip(" "))
    if not text.startswith("{", start):
        return FormatError("unbalanced_braces", r"\boxed is not followed by {")
    depth, position = 0, start
    while position < len(text):
        character = text[position]
        if character == "\\":
            position += 2
            continue
        depth += (character == "{") - (character == "}")
        if depth == 0:
            if not _ends(text[position + 1 :]):
                return FormatError("text_after_answer", r"more than the rest of a sentence after \boxed{...}")
            return _bounded(text[start + 1 : position].strip(), max_chars)
        position += 1
    return FormatError("unbalanced_braces", r"\boxed{ is never closed")


def _ends(rest: str) -> bool:
    """Whether what stands behind the box only ends its sentence."""
    if len(rest) > 2 * MAX_CHARS_AFTER_BOX:
        return not rest.strip()
    words = _TEXT_COMMAND.sub(r" \1 ", rest)
    bare = _CLOSING_MARKS.sub("", words)
    if len(bare) > MAX_CHARS_AFTER_BOX or not (bare.isalpha() or not bare):
        return False
    return not (_SECOND_THOUGHT.search(words) or _SYMBOL.search(_TEXT_COMMAND.sub(" ", rest)))


def _bounded(answer: str, max_chars: int) -> str | FormatError:
    if not answer:
        return FormatError("empty_answer", r"\boxed{} is empty")
    if len(answer) > max_chars:
        return FormatError("answer_too_long", f"{len(answer)} characters, at most {max_chars}")
    return answer


def code_block(text: str, language: str = "python") -> str | FormatError:
    """The content of the one fenced block in `text`, which must be tagged with `language`."""
    fences = list(_FENCE.finditer(text))
    if not fences:
        return FormatError("no_answer", f"no ```{language} block")
    if len(fences) == 1:
        return FormatError("unclosed_block", "the fenced block is never closed")
    if len(fences) > 2:
        return FormatError("several_answers", f"{len(fences) // 2} or more fenced blocks, expected one")
    opening, closing = fences
    if opening.group(1).lower() != language:
        return FormatError(
            "wrong_language", f"the block is tagged {opening.group(1)!r}, expected {language!r}"
        )
    if closing.group(1):
        return FormatError("unclosed_block", "the fenced block is never closed")
    source = text[opening.end() + 1 : closing.start()]
    if not source.strip():
        return FormatError("empty_answer", "the fenced block is empty")
    return source
