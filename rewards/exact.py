"""Graders for short answers: exact, set, multiple choice, ordering and question answering.

All compare normalised text and give a boolean: no partial credit, because every partial-credit rule (F1,
covered substring, share of items) is paid by an answer that lists everything.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from rewards.types import Verdict

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_CHOICE = re.compile(r"^\(?\s*([a-z])\s*[).:]?$")
_INVISIBLE = frozenset("\u200b\u200c\u200d\u2060\ufeff\u00ad")


def normalise(text: str) -> str:
    """NFKC, lower case, single spaces, no punctuation at either end. Inner punctuation stays: 3.5 is not
    35.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    visible = "".join(character for character in folded if character not in _INVISIBLE)
    words = " ".join(visible.split())
    start, end = 0, len(words)
    while start < end and _is_edge(words[start]) and words[start] not in "-+":
        start += 1
    while end > start and _is_edge(words[end - 1]) and words[end - 1] not in "%+":
        end -= 1
    return words[start:end]


def _is_edge(character: str) -> bool:
    return character.isspace() or unicodedata.category(character).startswith("P")


def grade_exact(answer: str, truth: str) -> Verdict:
    """Equal after normalisation."""
    return _compare(normalise(answer), normalise(truth))


def grade_choice(answer: str, truth: str, choices: Sequence[str] = ()) -> Verdict:
    """One letter, as `B`, `(b)` or `B.`; where `choices` are given, the full text of the choice counts as
    its letter.

    `truth` is the letter. `choices[0]` is A. Raises `ValueError` for a truth that is no letter of the
    choices.
    """
    gold = _letter(truth, choices)
    if gold is None:
        raise ValueError(f"the truth of a multiple-choice task must be a letter, got {truth!r}")
    given = _letter(answer, choices)
    if given is None:
        return Verdict(False, "not_a_choice", {"answer": answer})
    return _compare(given, gold)


def _letter(text: str, choices: Sequence[str]) -> str | None:
    match = _CHOICE.match(unicodedata.normalize("NFKC", text).strip().casefold())
    if match:
        letter = match.group(1)
        return letter if not choices or ord(letter) - ord("a") < len(choices) else None
    matching = [index for index, choice in enumerate(choices) if normalise(choice) == normalise(text)]
    return chr(ord("a") + matching[0]) if len(matching) == 1 else None


def grade_set(answer: str, truth: Sequence[str], separator: str = ",") -> Verdict:
    """The same items in any order, nothing missing, nothing extra, nothing twice (unless the truth has it
    twice).
    """
    given, gold = sorted(_items(answer, separator)), sorted(normalise(item) for item in truth)
    return _compare(given, gold)


def grade_ordering(answer: str, truth: Sequence[str], separator: str = ",") -> Verdict:
    """The same items in the same order."""
    return _compare(_items(answer, separator), [normalise(item) for item in truth])


def grade_qa(answer: str, truths: Sequence[str]) -> Verdict:
    """Exact match with any accepted truth, after normalisation and without English articles (the SQuAD
    convention).
    """
    given = _without_articles(answer)
    accepted = [_without_articles(truth) for truth in truths]
    if not any(accepted):
        raise ValueError(f"a question needs an accepted answer that is not empty, got {list(truths)!r}")
    if given and given in accepted:
        return Verdict(True, "equal", {"answer": given})
    return Verdict(False, "different", {"answer": given, "accepted": accepted})


def _without_articles(text: str) -> str:
    return " ".join(_ARTICLES.sub(" ", normalise(text)).split())


def _items(answer: str, separator: str) -> list[str]:
    text = answer.strip()
    if len(text) >= 2 and text[0] + text[-1] in ("[]", "{}", "()"):
        text = text[1:-1]
    # An empty item is kept, so that "a,,b" is not "a,b".
    return [normalise(item) for item in text.split(separator)] if text.strip() else []


def _compare(given: str | list[str], gold: str | list[str]) -> Verdict:
    evidence = {"answer": given, "truth": gold}
    return Verdict(True, "equal", evidence) if given == gold else Verdict(False, "different", evidence)
