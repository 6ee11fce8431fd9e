"""Constraints on a text that a program can check, after IFEval (arXiv:2311.07911), in English and Chinese.

A specification is an object with a `kind` and that kind's fields, as `{"kind": "bullets", "count": 3}`. Counts take
`count` (exactly), or `min` and `max` (one of them is enough). The table `CHECKS` is all there is; `instruction_problem`
says what is wrong with a specification.

Nothing is counted in the answer's favour that a reader does not see: a least amount is counted without code fences,
comments and invisible characters, a largest amount with them. A word that must occur must occur as itself; a word that
must not occur may not occur in disguise either (see `prose.mentions`).
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rewards import prose
from rewards.exact import normalise, visible
from rewards.json_value import NotJson, parse_json
from rewards.language import language_consistency
from rewards.prose import count_words
from rewards.types import Verdict

Spec = Mapping[str, Any]
_QUOTES = (('"', '"'), ("“", "”"), ("「", "」"), ("『", "』"), ("«", "»"))
_LOW_COMMA = "\u201a"


@dataclass(frozen=True)
class Check:
    """One kind: `holds` decides, `required` and `optional` name the fields with their types (`_TYPES`)."""

    holds: Callable[[Spec, str], bool]
    required: Mapping[str, str] = field(default_factory=dict)
    optional: Mapping[str, str] = field(default_factory=dict)
    counts: bool = False
    """Whether it takes `count`, or `min` and `max`."""


def check_criterion(spec: Spec, answer: str) -> bool:
    """Whether `answer` meets the specification. Pure; an answer in which nothing is to be seen meets none.

    Raises `ValueError` for a specification that is none (`instruction_problem`).
    """
    if (problem := _problem(spec)) is not None:
        raise ValueError(problem)
    return bool(visible(answer).strip()) and CHECKS[spec["kind"]].holds(spec, answer)


def check_instructions(specs: Sequence[Spec], answer: str) -> Verdict:
    """Right where every specification is met; the reason names the first that is not."""
    missed = [spec["kind"] for spec in specs if not check_criterion(spec, answer)]
    return Verdict(not missed, f"missed: {missed[0]}" if missed else "all met", {"missed": missed})


def instruction_problem(specs: Any) -> str | None:
    """Why `specs` is no list of specifications, as a sentence; None where it is one."""
    if not isinstance(specs, Sequence) or isinstance(specs, str) or not specs:
        return f"expected a list of checks, each an object with a 'kind', got {specs!r:.80}"
    return next((problem for spec in specs if (problem := _problem(spec)) is not None), None)


def _problem(spec: Any) -> str | None:
    if not isinstance(spec, Mapping) or spec.get("kind") not in CHECKS:
        shown = dict(spec) if isinstance(spec, Mapping) else spec
        return f"unknown check {shown!r:.80}; kinds: {', '.join(sorted(CHECKS))}"
    kind = spec["kind"]
    check = CHECKS[kind]
    counts = {"count": "number", "min": "number", "max": "number"} if check.counts else {}
    known = {**check.required, **check.optional, **counts}
    for name in check.required:
        if name not in spec:
            return f"check {kind!r} needs the field {name!r}"
    for name, value in spec.items():
        if name == "kind":
            continue
        if name not in known:
            return f"check {kind!r} has no field {name!r}; fields: {', '.join(known)}"
        if not _TYPES[known[name]](value):
            return f"check {kind!r}, field {name!r}: expected {_WORDS[known[name]]}, got {value!r:.60}"
    if check.counts and (("count" in spec) == ("min" in spec or "max" in spec)):
        return f"check {kind!r} needs either 'count', or 'min' or 'max' (or both)"
    if spec.get("language", "en") not in spec.get("languages", [spec.get("language", "en")]):
        return f"check {kind!r}: language {spec['language']!r} is not among its languages {list(spec['languages'])!r}"
    if check.counts and spec.get("min", 0) > spec.get("max", math.inf):
        return f"check {kind!r}: min {spec['min']} is above max {spec['max']}"
    return None


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(normalise(value))


_TYPES: Mapping[str, Callable[[Any], bool]] = {
    "text": _is_text,
    "texts": lambda value: (
        isinstance(value, Sequence) and not isinstance(value, str) and bool(value) and all(map(_is_text, value))
    ),
    "letter": lambda value: isinstance(value, str) and len(value) == 1 and value.isalpha(),
    "number": lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= 0,
    "share": lambda value: isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1,
}
_WORDS = {
    "text": "a text with a letter or digit in it",
    "texts": "a list of texts",
    "letter": "one letter",
    "number": "an integer from 0",
    "share": "a number from 0 to 1",
}


def _within(spec: Spec, least: int, most: int) -> bool:
    """`least` is counted strictly, `most` generously; both must lie in what is wanted."""
    low, high = spec.get("count", spec.get("min", 0)), spec.get("count", spec.get("max", math.inf))
    return bool(low <= least and most <= high)


def _counted(measure: Callable[[str], int]) -> Callable[[Spec, str], bool]:
    def holds(spec: Spec, answer: str) -> bool:
        return _within(spec, measure(prose.prose(answer)), measure(visible(answer)))

    return holds


def _contains(spec: Spec, answer: str) -> bool:
    return prose.occurrences(prose.prose(answer), spec["text"]) >= spec.get("times", 1)


def _occurrences(spec: Spec, answer: str) -> bool:
    text = spec["text"]
    return _within(spec, prose.occurrences(prose.prose(answer), text), prose.occurrences(answer, text))


def _starts_with(spec: Spec, answer: str) -> bool:
    wanted, text = prose.fold(spec["text"]), prose.fold(answer)
    return text.startswith(wanted) and not _inside_word(wanted[-1], text[len(wanted) :][:1])


def _ends_with(spec: Spec, answer: str) -> bool:
    wanted, text = normalise(spec["text"]), normalise(answer)
    return text.endswith(wanted) and not _inside_word(text[: -len(wanted)][-1:], wanted[0])


def _inside_word(before: str, after: str) -> bool:
    """Whether two neighbours are letters or digits of one word, as "r" and "e" in "Dearest"."""
    return before.isascii() and after.isascii() and before.isalnum() and after.isalnum()


def _paragraph_starts(spec: Spec, answer: str) -> bool:
    found = prose.paragraphs(prose.prose(answer))
    number = spec["number"]
    return 1 <= number <= len(found) and _starts_with(spec, found[number - 1])


def _letters(spec: Spec, answer: str) -> bool:
    least = prose.count_letter(prose.prose(answer), spec["letter"], disguised=False)
    return _within(spec, least, prose.count_letter(answer, spec["letter"], disguised=True))


def _one_case(wanted: str, other: str) -> Callable[[Spec, str], bool]:
    """All letters that have a case have the wanted one, and there is such a letter."""

    def holds(spec: Spec, answer: str) -> bool:
        kinds = {unicodedata.category(character) for character in visible(answer)}
        return wanted in kinds and not kinds & {other, "Lt"}

    return holds


def _json(spec: Spec, answer: str) -> bool:
    try:
        value = parse_json(answer)
    except NotJson:
        return False
    return "keys" not in spec or (isinstance(value, dict) and set(spec["keys"]) <= value.keys())


def _title(spec: Spec, answer: str) -> bool:
    first = next((line.strip() for line in prose.prose(answer).splitlines() if line.strip()), "")
    return any(
        first.startswith(opening) and first.endswith(closing) and prose.has_word(first)
        for opening, closing in (("<<", ">>"), ("《", "》"))
    )


def _quoted(spec: Spec, answer: str) -> bool:
    text = visible(answer).strip()
    return any(
        text.startswith(opening)
        and text.endswith(closing)
        and prose.has_word(text)
        and not {opening, closing} & set(text[1:-1])
        for opening, closing in _QUOTES
    )


def _no_commas(spec: Spec, answer: str) -> bool:
    return not any("COMMA" in unicodedata.name(character, "") or character == _LOW_COMMA for character in answer)


def _postscript(spec: Spec, answer: str) -> bool:
    found = prose.paragraphs(prose.prose(answer))
    mark = spec.get("text", "P.S.")
    return len(found) > 1 and found[-1].startswith(mark) and prose.has_word(found[-1][len(mark) :])


def _language(spec: Spec, answer: str) -> bool:
    languages = spec.get("languages", sorted({"en", "zh", spec["language"]}))
    score = language_consistency(answer, spec["language"], languages, min_letters=4)
    return score.share is not None and score.share >= spec.get("min_share", 0.8)


CHECKS: Mapping[str, Check] = {
    "contains": Check(_contains, {"text": "text"}, {"times": "number"}),
    "contains_all": Check(
        lambda spec, answer: all(_contains({"text": text}, answer) for text in spec["texts"]), {"texts": "texts"}
    ),
    "occurrences": Check(_occurrences, {"text": "text"}, counts=True),
    "mentions": Check(lambda spec, answer: prose.mentions(answer, spec["text"]), {"text": "text"}),
    "excludes": Check(lambda spec, answer: not prose.mentions(answer, spec["text"]), {"text": "text"}),
    "equals": Check(lambda spec, answer: normalise(answer) == normalise(spec["text"]), {"text": "text"}),
    "one_of": Check(
        lambda spec, answer: normalise(answer) in [normalise(text) for text in spec["texts"]], {"texts": "texts"}
    ),
    "starts_with": Check(_starts_with, {"text": "text"}),
    "ends_with": Check(_ends_with, {"text": "text"}),
    "paragraph_starts": Check(_paragraph_starts, {"number": "number", "text": "text"}),
    "postscript": Check(_postscript, optional={"text": "text"}),
    "sentences": Check(_counted(prose.count_sentences), counts=True),
    "paragraphs": Check(_counted(lambda text: len(prose.paragraphs(text))), counts=True),
    "bullets": Check(_counted(lambda text: len(prose.bullets(text))), counts=True),
    "headings": Check(_counted(lambda text: len(prose.headings(text))), counts=True),
    "highlights": Check(_counted(lambda text: len(prose.highlights(text))), counts=True),
    "placeholders": Check(_counted(lambda text: len(prose.placeholders(text))), counts=True),
    "capital_words": Check(_counted(lambda text: len(prose.capital_words(text))), counts=True),
    "characters": Check(_counted(lambda text: sum(not c.isspace() for c in text)), counts=True),
    "max_words": Check(lambda spec, answer: count_words(answer) <= spec["count"], {"count": "number"}),
    "min_words": Check(lambda spec, answer: count_words(prose.prose(answer)) >= spec["count"], {"count": "number"}),
    "letters": Check(_letters, {"letter": "letter"}, counts=True),
    "lowercase": Check(_one_case("Ll", "Lu")),
    "uppercase": Check(_one_case("Lu", "Ll")),
    "json": Check(_json, optional={"keys": "texts"}),
    "title": Check(_title),
    "quoted": Check(_quoted),
    "no_commas": Check(_no_commas),
    "language": Check(_language, {"language": "text"}, {"languages": "texts", "min_share": "share"}),
}
"""kind -> check."""
