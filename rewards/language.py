"""Language consistency: what share of a text is in the wanted language.

    share = sum of c(w) over the words of the language / sum of c(w) over all words,   c(w) = min(count of w, cap)

after DeepSeek-R1 (arXiv:2501.12948: share of target-language words in the chain of thought). What a word is, is ours to
say: a run of letters, or 1/1.7 of one for a Han character or kana (as whole words they would overestimate Chinese in a
mix). In this order:

- Formal parts (code, LaTeX, URLs, tags) are left out, but not prose that is hidden in them (`formal.split_formal`).
- A sentence counts once, and not at all where it is quoted from the prompt. `cap` is the square root of the number of
  different words, at least 3: one word of the target language, repeated, does not outweigh a text in another.
- The script decides where it can: Han is Chinese, or Japanese beside enough kana. Languages of one script are told
  apart by py3langid, on pieces of at least `detector_letters`, among the configured languages and the frequent ones of
  that script, so that romanised Chinese is not English because both are written in Latin letters.

No opinion (`share=None`) on too little text, and where most of the text was formal. Whoever pays must give such a
sample no advantage over others (`router`): else the policy stops writing words.
"""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rewards.exact import visible
from rewards.formal import split_formal

HAN_PER_WORD = 1.7
# For the minimum only: one Han character says about as much as three Latin letters.
LETTERS_PER_HAN = 3
LEAST_KANA = 0.2
"""Share of kana beside Han from which a sentence is Japanese; ordinary Japanese has about half."""
LEAST_PROBABILITY = 0.1
"""Below it a configured language is not meant, where another language of the script is likelier."""
LEAST_CAP = 3
LEAST_QUOTE = 6
"""Letters from which a sentence that stands in the prompt counts as quoted."""

_SENTENCE = re.compile(r"[^.!?。！？\n]+")
_SCRIPTS = {
    "han": re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]"),
    "kana": re.compile(r"[\u3040-\u30ff]"),
    "hangul": re.compile(r"[\uac00-\ud7af]+"),
    "cyrillic": re.compile(r"[\u0400-\u04ff]+"),
    "arabic": re.compile(r"[\u0600-\u06ff]+"),
    "latin": re.compile(r"[A-Za-z\u00c0-\u024f]+"),
}
_SCRIPT_OF = {
    "zh": "han", "ja": "kana", "ko": "hangul", "ru": "cyrillic", "uk": "cyrillic", "bg": "cyrillic",
    "ar": "arabic", "fa": "arabic",
}  # fmt: skip
_FREQUENT = {
    "latin": ("en", "de", "fr", "es", "it", "pt", "nl", "pl", "vi", "id", "sw", "tr"),
    "cyrillic": ("ru", "uk", "bg"),
    "arabic": ("ar", "fa"),
}
"""What a text of a script may be, beside the configured languages."""


_NOTATION = frozenset(
    ("sin", "cos", "tan", "log", "ln", "exp", "mod", "gcd", "lcm", "max", "min", "lim", "det", "arg", "cm", "kg")
)
"""What is written with Latin letters in every language."""


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
    prompt: str = "",
) -> LanguageScore:
    """The share of `text` in `language`, one of `languages` (ISO 639-1 codes).

    `min_letters` is the least text for an opinion, in Latin letters or their equivalent. `max_stripped` is the share of
    characters that may be code, LaTeX or URLs without prose in them (1.0 for code domains). Below `detector_letters`
    the script alone speaks: on short text a statistical detector guesses. Sentences of `prompt` do not count.
    """
    if language not in languages:
        raise ValueError(f"language {language!r} is not among the configured languages {tuple(languages)}")
    text = visible(text)
    split = split_formal(text)
    dense = _dense(split.plain) + _dense(split.formal)
    stripped = max(0.0, 1.0 - (_dense(split.plain) + _dense(split.hidden)) / dense) if dense else 0.0
    sentences = _own_sentences(f"{split.plain}\n{split.hidden}", prompt)
    letters = sum(map(_letters, sentences))
    evidence: dict[str, Any] = {"stripped": round(stripped, 4), "letters": letters}
    if stripped > max_stripped:
        return LanguageScore(None, {**evidence, "reason": "mostly_stripped"})
    if letters < min_letters:
        return LanguageScore(None, {**evidence, "reason": "too_little_text"})
    tally: dict[str, Counter[str]] = {}
    for name, tokens in _named_tokens(sentences, language, languages, detector_letters):
        tally.setdefault(name, Counter()).update(tokens)
    cap = max(LEAST_CAP, math.isqrt(sum(map(len, tally.values()))))
    words = {
        name: math.fsum(min(count, cap) * _weight(token) for token, count in counts.items())
        for name, counts in sorted(tally.items())
    }
    evidence["words"] = {name: round(count, 2) for name, count in words.items()}
    return LanguageScore(words.get(language, 0.0) / math.fsum(words.values()), evidence)


def _own_sentences(text: str, prompt: str) -> list[str]:
    """Each sentence once, in order, without those that the prompt holds word for word."""
    asked = _folded(prompt)
    own: dict[str, str] = {}
    for sentence in _SENTENCE.findall(text):
        folded = _folded(sentence)
        if not (len(folded) >= LEAST_QUOTE and folded in asked):
            own.setdefault(folded, sentence)
    return list(own.values())


def _folded(text: str) -> str:
    return "".join(character for character in text.casefold() if character.isalnum())


def _dense(text: str) -> int:
    return sum(not character.isspace() for character in text)


def _tokens(sentence: str) -> dict[str, list[str]]:
    """The words of a sentence by their script. A single Latin letter is a variable, in whatever language it stands."""
    found = {script: [token.casefold() for token in pattern.findall(sentence)] for script, pattern in _SCRIPTS.items()}
    found["latin"] = [token for token in found["latin"] if len(token) > 1 and token not in _NOTATION]
    return found


def _letters(sentence: str) -> int:
    return sum(
        len(token) * (LETTERS_PER_HAN if script in ("han", "kana", "hangul") else 1)
        for script, tokens in _tokens(sentence).items()
        for token in tokens
    )


def _weight(token: str) -> float:
    return 1.0 / HAN_PER_WORD if _SCRIPTS["han"].match(token) or _SCRIPTS["kana"].match(token) else 1.0


def _named_tokens(
    sentences: Sequence[str], language: str, languages: Sequence[str], detector_letters: int
) -> Iterator[tuple[str, list[str]]]:
    """Words with the name of their language, `other:…` for one that is not configured."""
    per_script: dict[str, list[list[str]]] = {script: [] for script in _SCRIPTS}
    for sentence in sentences:
        found = _tokens(sentence)
        if found["kana"] and len(found["kana"]) >= LEAST_KANA * (len(found["kana"]) + len(found["han"])):
            found["kana"] += found.pop("han")
        for script, tokens in found.items():
            if tokens:
                per_script[script].append(tokens)
    for script, runs in per_script.items():
        if script == "han":
            name = _han_language(runs, sum(map(len, per_script["kana"])), language, languages)
            yield from ((name(run), run) for run in runs)
            continue
        for run in _pieces(runs, detector_letters):
            yield _language_of(run, script, language, languages, detector_letters), run


def _han_language(runs: Sequence[list[str]], kana: int, language: str, languages: Sequence[str]) -> Any:
    """Which language a sentence in Han alone is in: Chinese, or a Japanese heading in a Japanese text."""
    japanese = kana >= LEAST_KANA * (kana + sum(map(len, runs))) and "ja" in languages

    def name(run: Sequence[str]) -> str:
        if japanese and len(run) < 8 and (language == "ja" or "zh" not in languages):
            return "ja"
        return "zh" if "zh" in languages else "other:han"

    return name


def _pieces(runs: Sequence[list[str]], least: int) -> list[list[str]]:
    """Neighbouring sentences joined to pieces of at least `least` letters; a short rest joins the last one."""
    pieces: list[list[str]] = []
    current: list[str] = []
    for run in runs:
        current = current + run
        if sum(map(len, current)) >= least:
            pieces.append(current)
            current = []
    if current and pieces:
        pieces[-1] = pieces[-1] + current
    elif current:
        pieces.append(current)
    return pieces


def _language_of(
    run: Sequence[str], script: str, language: str, languages: Sequence[str], detector_letters: int
) -> str:
    candidates = [name for name in languages if _SCRIPT_OF.get(name, "latin") == script]
    frequent = _FREQUENT.get(script, ())
    if not candidates:
        return f"other:{script}"
    if len(set(candidates) | set(frequent)) == 1:
        return candidates[0]
    if sum(map(len, run)) < detector_letters:
        # Too short to tell languages of one script apart: the benefit of the doubt.
        return language if language in candidates else candidates[0]
    ranked = _rank(" ".join(run), tuple(sorted({*candidates, *frequent})))
    best = max(candidates, key=lambda name: ranked[name])
    likeliest = max(ranked, key=lambda name: ranked[name])
    return best if ranked[best] >= LEAST_PROBABILITY else f"other:{likeliest}"


def _rank(text: str, candidates: tuple[str, ...]) -> dict[str, float]:
    return {str(name): float(probability) for name, probability in _identifier(candidates).rank(text)}


@functools.cache
def _identifier(candidates: tuple[str, ...]) -> Any:
    # Loading the model takes about a second, so it waits until languages of one script must be told apart.
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(list(candidates))
    return identifier
