"""Text as graders compare it, and the graders of exact, ordered and unordered answers.

All compare normalised text and give a boolean: no partial credit, because every partial-credit rule (covered
substring, share of items) is paid by an answer that lists everything.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from rewards.types import Verdict

INVISIBLE = frozenset(
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e"
    "\u2060\u2061\u2062\u2063\u2064\u2066\u2067\u2068\u2069\u206a\u206b\u206c\u206d\u206e\u206f\u3164\ufeff\uffa0"
)
"""Characters that a reader does not see: zero-width, soft hyphen, direction marks, blank fillers."""
_DROP_INVISIBLE = dict.fromkeys(map(ord, INVISIBLE))

_WRAPPER = re.compile(r"\\(?:text|textbf|textit|textrm|textup|emph|mathrm|mathbf|mathit|operatorname)\s*\{")
_MARKS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"), ("__", "__"), ("`", "`"))
_BRACKETS = ((r"\left\{", r"\right\}"), (r"\{", r"\}"), ("[", "]"), ("{", "}"), ("(", ")"))
_BULLET = re.compile(r"^[-*•]\s+")
SEPARATORS = (",", ";", "、", "\n")
"""What may stand between the items of a list; one that occurs inside an item of the truth separates nothing."""
_WORD_SEPARATORS = (re.compile(r"(?:^|\s+)and\s+", re.IGNORECASE), re.compile("[和与]"))


def normalise(text: str) -> str:
    """NFKC, lower case, single spaces, no punctuation at either end. Inner punctuation stays: 3.5 is not
    35.
    """
    words = " ".join(visible(unicodedata.normalize("NFKC", text).casefold()).split())
    start, end = 0, len(words)
    while start < end and _is_edge(words[start]) and words[start] not in "-+":
        start += 1
    while end > start and _is_edge(words[end - 1]) and words[end - 1] not in "%+#":
        end -= 1
    return words[start:end]


def visible(text: str) -> str:
    """The text without the characters that a reader does not see."""
    return text.translate(_DROP_INVISIBLE)


def _is_edge(character: str) -> bool:
    return character.isspace() or unicodedata.category(character).startswith("P")


def unwrap(answer: str) -> str:
    r"""The answer without what is only typesetting around all of it: `\text{…}`, `$…$`, `**…**`, backticks."""
    text = answer.strip()
    while True:
        inner = _inside(text)
        if inner is None:
            return text
        text = inner.strip()


def _inside(text: str) -> str | None:
    match = _WRAPPER.match(text)
    if match and text.endswith("}") and "{" not in (inner := text[match.end() : -1]) and "}" not in inner:
        return inner
    for opening, closing in _MARKS:
        if len(text) > len(opening) + len(closing) and text.startswith(opening) and text.endswith(closing):
            inner = text[len(opening) : -len(closing)]
            if opening not in inner and closing not in inner:
                return inner
    return None


def grade_exact(answer: str, truth: str) -> Verdict:
    """Equal after normalisation."""
    return compare(normalise(unwrap(answer)), normalise(truth))


def grade_set(answer: str, truth: Sequence[str]) -> Verdict:
    """The same items in any order, nothing missing, nothing extra, nothing twice (unless the truth has it
    twice).
    """
    return compare(sorted(split_items(answer, truth)), sorted(normalise(item) for item in truth))


def grade_ordering(answer: str, truth: Sequence[str]) -> Verdict:
    """The same items in the same order."""
    return compare(split_items(answer, truth), [normalise(item) for item in truth])


def split_items(answer: str, truth: Sequence[str]) -> list[str]:
    """The items of a list as it is written, normalised: in brackets or not, separated by what no item of the
    truth contains (`SEPARATORS`, "and", 和, 与). An empty item is kept, so that "a,,b" is not "a,b".
    """
    text = _without_brackets(unwrap(unicodedata.normalize("NFKC", answer)))
    if not text.strip():
        return []
    items = [unicodedata.normalize("NFKC", item) for item in truth]
    first = next((mark for mark in SEPARATORS if not any(mark in item for item in items)), "\n")
    for mark in SEPARATORS:
        if not any(mark in item for item in items):
            text = text.replace(mark, first)
    parts = text.strip("\n").split(first)
    for pattern in _WORD_SEPARATORS:
        if not any(pattern.search(f" {item} ") for item in items):
            # "a, b, and c": the comma has separated already, the word then opens the last item.
            parts = [piece for part in parts for piece in _cut(pattern, part)]
    return [normalise(unwrap(_BULLET.sub("", part.strip()))) for part in parts]


def _cut(pattern: re.Pattern[str], part: str) -> list[str]:
    pieces = pattern.split(part)
    return pieces[1:] if len(pieces) > 1 and not pieces[0].strip() else pieces


def _without_brackets(text: str) -> str:
    for opening, closing in _BRACKETS:
        if len(text) >= len(opening) + len(closing) and text.startswith(opening) and text.endswith(closing):
            return text[len(opening) : -len(closing)]
    return text


def compare(given: Any, gold: Any) -> Verdict:
    """Equal or different, with both sides as evidence; an answer of nothing equals nothing."""
    evidence = {"answer": given, "truth": gold}
    return Verdict(True, "equal", evidence) if given == gold and given else Verdict(False, "different", evidence)
