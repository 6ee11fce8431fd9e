"""The grader of multiple choice: one choice, by its letter, by its text, or by both where they agree."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from string import ascii_lowercase

from rewards.exact import normalise, unwrap, visible
from rewards.types import Verdict

_LETTER = r"[(\[]?\s*([a-z])\s*[)\]]?"
_NAMED = re.compile(rf"^(?:option|choice|选项|选)?\s*{_LETTER}\s*[.:、,)]?$")
_WITH_TEXT = re.compile(rf"^(?:option\s+|choice\s+|选项)?{_LETTER}\s*(?:[.:、,)\]-]|(?<=[)\]]))\s*(.+)$", re.DOTALL)


def grade_choice(answer: str, truth: str, choices: Sequence[str] = ()) -> Verdict:
    """One choice: `B`, `(b)`, `B.`, `Option B`; where `choices` are given, also its full text and `B) text`.

    `truth` is the letter; `choices[0]` is A. Two letters, "A or B", a letter with another choice's text, and a
    letter that no choice has are wrong. A single letter is read as a letter even where some choice's text is
    that letter. Raises `ValueError` for a truth that is no letter of the choices.
    """
    gold = choice_of(truth, choices)
    if gold is None:
        raise ValueError(
            f"the truth of a multiple-choice task must be one of its letters, got {truth!r} "
            f"for {len(choices) or 'unnamed'} choices"
        )
    given = choice_of(answer, choices)
    if given is None:
        return Verdict(False, "not_a_choice", {"answer": answer, "truth": gold})
    evidence = {"answer": given, "truth": gold}
    return Verdict(True, "equal", evidence) if given == gold else Verdict(False, "different", evidence)


def choice_of(answer: str, choices: Sequence[str]) -> str | None:
    """The letter (lower case) of the one choice that `answer` names; None where it names none, or more."""
    text = visible(unicodedata.normalize("NFKC", unwrap(answer)).casefold()).strip()
    if match := _NAMED.match(text):
        return _existing(match[1], choices)
    texts = [normalise(choice) for choice in choices]
    wanted = normalise(text)
    by_text = [letter for letter, choice in zip(ascii_lowercase, texts, strict=False) if choice == wanted]
    if len(by_text) == 1:
        return by_text[0]
    match = _WITH_TEXT.match(text)
    # "A, B" names two letters, even where B happens to be the text of A.
    if (
        match
        and choices
        and not _NAMED.match(normalise(match[2]))
        and (letter := _existing(match[1], choices)) is not None
    ):
        return letter if texts[ascii_lowercase.index(letter)] == normalise(unwrap(match[2])) else None
    return None


def _existing(letter: str, choices: Sequence[str]) -> str | None:
    return letter if not choices or ascii_lowercase.index(letter) < len(choices) else None
