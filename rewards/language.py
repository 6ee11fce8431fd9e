"""Language consistency: what share of a text is in the wanted language.

Code, LaTeX and URLs are stripped first (that matters more than the detector). Then the script decides where
it can: Han is Chinese, Latin is English when no other configured language is written in Latin. Only between
configured languages of one script is py3langid asked, sentence by sentence and restricted to them. The
share is weighted by words, where a Han character or kana counts 1/1.7 of a word; counting each as a word
overestimates Chinese in a mix.

No opinion (`share=None`, neutral) on too little text, and where most of the text was stripped: else the
policy moves its thinking into a code block.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

HAN_PER_WORD = 1.7
# For the minimum only: one Han character says about as much as three Latin letters.
LETTERS_PER_HAN = 3

_STRIPPED = (
    re.compile(r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)", re.DOTALL),
    re.compile(r"`[^`\n]*`"),
    re.compile(r"\$\$.*?\$\$|\\\[.*?\\\]|\\begin\{(\w+\*?)\}.*?\\end\{\1\}", re.DOTALL),
    re.compile(r"\$[^$\n]*\$|\\\(.*?\\\)"),
    re.compile(r"\\[A-Za-z]+(?:\{[^{}]*\})*"),
    re.compile(r"(?:https?://|www\.)\S+"),
    re.compile(r"<[^<>\n]{1,80}>"),
)
_SENTENCE = re.compile(r"[^.!?。！？\n]+")
_SCRIPTS = {
    "han": re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]"),
    "kana": re.compile(r"[\u3040-\u30ff]"),
    "hangul": re.compile(r"[\uac00-\ud7af]"),
    "cyrillic": re.compile(r"[\u0400-\u04ff]+"),
    "arabic": re.compile(r"[\u0600-\u06ff]+"),
    "latin": re.compile(r"[A-Za-z\u00c0-\u024f]+"),
}
_SCRIPT_OF = {
    "zh": "han", "ja": "kana", "ko": "hangul", "ru": "cyrillic", "uk": "cyrillic", "bg": "cyrillic",
    "ar": "arabic", "fa": "arabic",
}  # fmt: skip


@dataclass(frozen=True)
class LanguageScore:
    """`share` in [0, 1], or None for no opinion; the evidence says why and how the words were counted."""

    share: float | None
    evidence: Mapping[str, Any] = field(default_factory=dict)


def language_consistency(
    text: str,
    language: str,
    languages: Sequence[str] = ("en", "zh"),
    min_letters: int = 20,
    max_stripped: float = 0.6,
    detector_letters: int = 60,
) -> LanguageScore:
    """The share of `text` in `language`, one of `languages` (ISO 639-1 codes).

    `min_letters` is the least text for an opinion, in Latin letters or their equivalent. `max_stripped` is
    the share of characters that may be code, LaTeX or URLs (1.0 for code domains). Below `detector_letters`
    the script alone speaks: on short text a statistical detector guesses.
    """
    if language not in languages:
        raise ValueError(f"language {language!r} is not among the configured languages {tuple(languages)}")
    plain = strip_formal(text)
    dense, kept = _dense(text), _dense(plain)
    stripped = 1.0 - kept / dense if dense else 0.0
    letters = _letters(plain)
    evidence: dict[str, Any] = {"stripped": round(stripped, 4), "letters": letters}
    if stripped > max_stripped:
        return LanguageScore(None, {**evidence, "reason": "mostly_stripped"})
    if letters < min_letters:
        return LanguageScore(None, {**evidence, "reason": "too_little_text"})
    words: dict[str, float] = {}
    for sentence in _SENTENCE.findall(plain):
        for script, count in _words(sentence).items():
            name = _language_of(
                sentence, script, languages, use_detector=letters >= detector_letters, prefer=language
            )
            words[name] = words.get(name, 0.0) + count
    total = sum(words.values())
    evidence["words"] = {name: round(count, 2) for name, count in sorted(words.items())}
    return LanguageScore(words.get(language, 0.0) / total, evidence)


def strip_formal(text: str) -> str:
    """The text without code, LaTeX, URLs and tags."""
    for pattern in _STRIPPED:
        text = pattern.sub(" ", text)
    return text


def _dense(text: str) -> int:
    return sum(not character.isspace() for character in text)


def _letters(text: str) -> int:
    wide = sum(len(_SCRIPTS[script].findall(text)) for script in ("han", "kana", "hangul"))
    narrow = sum(
        len(word) for script in ("latin", "cyrillic", "arabic") for word in _SCRIPTS[script].findall(text)
    )
    return narrow + LETTERS_PER_HAN * wide


def _words(sentence: str) -> dict[str, float]:
    """Words per script; Han beside kana is Japanese writing and counts there."""
    counts = {script: float(len(pattern.findall(sentence))) for script, pattern in _SCRIPTS.items()}
    if counts["kana"]:
        counts["kana"] += counts.pop("han")
    for script in ("han", "kana"):
        if script in counts:
            counts[script] /= HAN_PER_WORD
    return {script: count for script, count in counts.items() if count}


def _language_of(
    sentence: str, script: str, languages: Sequence[str], use_detector: bool, prefer: str
) -> str:
    candidates = [name for name in languages if _SCRIPT_OF.get(name, "latin") == script]
    if not candidates:
        return f"other:{script}"
    if len(candidates) == 1:
        return candidates[0]
    if use_detector:
        return _detect(sentence, tuple(candidates))
    # Too short to tell languages of one script apart: the benefit of the doubt.
    return prefer if prefer in candidates else candidates[0]


def _detect(sentence: str, candidates: tuple[str, ...]) -> str:
    name, _ = _identifier(candidates).classify(sentence)
    return str(name)


@functools.cache
def _identifier(candidates: tuple[str, ...]) -> Any:
    # Loading the model takes about a second, so it waits until two languages of one script must be told
    # apart.
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    identifier.set_languages(list(candidates))
    return identifier
