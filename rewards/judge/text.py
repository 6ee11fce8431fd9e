"""Untrusted text on its way into a judge's prompt: questions and answers as data, not as instructions.

What is taken away is what a chat template or a reader would take for structure and a person would not see: control
tokens of known templates, invisible and bidirectional characters, the nonce of the marks around the answer. Words stay
as they are: an answer that argues with the judge is judged with its arguments, inside its marks.
"""

from __future__ import annotations

import re
import unicodedata

_SPECIAL = re.compile(
    r"<[|｜][^<>\n]{0,80}[|｜]>"
    r"|</?(?:think|s|bos|eos|pad|unk|tool_call|tool_response|start_of_turn|end_of_turn)>"
    r"|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\]"
    r"|<</?SYS>>",
    re.IGNORECASE,
)
_OPENS, _CLOSES = re.compile(r"<(?=[|｜])"), re.compile(r"(?<=[|｜])>")
"""One end of a control token, which could find its other end elsewhere in the prompt: it is taken apart."""

# Characters that are drawn as nothing without being of a category that says so: combining grapheme joiner, Hangul
# and Khmer fillers, Braille blank, variation selectors and the plane of tags.
_BLANK = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\ufe00-\ufe0f\U000e0000-\U000e0fff]")
_UNSEEN = frozenset(("Cc", "Cf", "Cs"))
_LINE_ENDS = {"\u2028": "\n", "\u2029": "\n", "\x85": "\n", "\r": "\n", "\x0b": "\n", "\x0c": "\n"}

MAX_NESTING = 8
"""Tokens within tokens are taken away so deep; in a text that nests deeper every bracket becomes a round one, as each
pass reads it whole."""
_ROUND = str.maketrans("<>[]", "()()")


def sanitise(text: str, nonce: str = "") -> str:
    """`text` without control tokens, invisible characters, lone surrogates and the marks of the nonce (until nothing is
    left to take away), and without white space at its ends.
    """
    text = visible(text)
    marks = re.compile(rf"\[\s*/?\s*{re.escape(nonce)}\s*\]", re.IGNORECASE) if nonce else None
    for _ in range(MAX_NESTING):
        cleaned = _SPECIAL.sub(" ", text)
        if marks is not None:
            cleaned = marks.sub(" ", cleaned)
        if cleaned == text:
            return _CLOSES.sub(" >", _OPENS.sub("< ", text)).strip()
        text = cleaned
    return text.translate(_ROUND).strip()


def visible(text: str) -> str:
    """`text` without what is not seen: format and control characters, surrogates and blank fillers. Line
    breaks of any kind become \\n; tabs stay.
    """
    plain = text.replace("\r\n", "\n")
    kept = (
        _LINE_ENDS.get(character, character)
        for character in plain
        if character in _LINE_ENDS or character in "\n\t" or unicodedata.category(character) not in _UNSEEN
    )
    return _BLANK.sub("", "".join(kept))


def says_something(text: str) -> bool:
    """Whether there is a letter, a digit or a symbol such as an emoji: punctuation alone says nothing."""
    return any((category := unicodedata.category(c))[0] in "LN" or category in ("So", "Sc") for c in text)


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters: beginning and end, and a mark where the middle was."""
    if len(text) <= limit:
        return text
    half = (limit - len(CUT)) // 2
    return f"{text[:half]}{CUT}{text[len(text) - half :]}"


CUT = " [...] "
"""Where a long text was cut."""
