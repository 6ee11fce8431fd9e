"""What a reader sees of a text, and how words, sentences, paragraphs and list items are counted in it.

Chinese and Japanese do not separate words: a Han character, kana or hangul syllable counts as one, which is what
a length in 字 means.
"""

from __future__ import annotations

import re
import unicodedata

from rewards.exact import normalise, visible

_UNSEEN = re.compile(r"^[ \t]*(```|~~~).*?(?:^[ \t]*\1|\Z)|<!--.*?(?:-->|\Z)", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\[([^\[\]\n]*)\]\([^()\s]*\)")
# A run of marks is looked at once, from its beginning: trying it again from each mark takes quadratic time.
_SENTENCE_END = re.compile(r"(?<![.!?。！？])[.!?。！？]++(?=\s|$)|[。！？]")
_WIDE = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_WORD = re.compile(rf"[{_WIDE}]|(?:(?![{_WIDE}])[^\W_])+(?:['’-](?:(?![{_WIDE}])[^\W_])+){{0,2}}")
LONGEST_WORD = 40
"""Letters. What is longer is several words glued together, and counts as one for each started 40 letters."""
_BULLET = re.compile(r"^[ \t]*[-*+•·][ \t]+(.*)$", re.MULTILINE)
_HEADING = re.compile(r"^#{1,6}[ \t]+(.*)$", re.MULTILINE)
_HIGHLIGHT = re.compile(r"\*\*(?!\s)([^*\n]+)(?<!\s)\*\*|(?<!\*)\*(?![\s*])([^*\n]+)(?<!\s)\*(?!\*)")
_PLACEHOLDER = re.compile(r"\[([^\[\]\n]+)\](?!\()")
_SPELLED = re.compile(r"(?<!\w)\w(?:[ .*_~|-]\w)+(?!\w)")
_EMPHASIS = re.compile(r"(?<=\w)[*_~`]+(?=\w)")

# Letters of other alphabets that look like Latin ones (a selection of Unicode's confusables), in lower case.
_LOOKALIKES = str.maketrans(
    "авеіјкмнорстухѕԁһԛԝѵαβγηικμνορτυχωϲɑɡıⅼօսց",
    "abeijkmhopctyxsdhqwvabynikuvoptuxwcagiloug",
)


def prose(text: str) -> str:
    """The text without what a reader of the page does not read as text: code fences, HTML comments, link targets,
    invisible characters."""
    return _LINK.sub(r"\1", _UNSEEN.sub(" ", visible(text)))


def fold(text: str) -> str:
    """Normalised as for comparison (`exact.normalise`), with the punctuation at both ends kept."""
    # The marker words keep `normalise` from cutting at the ends.
    return normalise(f"x {text} x")[2:-2]


def occurrences(text: str, wanted: str) -> int:
    """How often `wanted` occurs as whole words, so that "art" is not found in "start"; a text in Han characters has
    no word edges. Case, width and spaces do not matter."""
    return len(_whole(normalise(wanted)).findall(fold(text)))


def mentions(text: str, wanted: str) -> bool:
    """Whether `wanted` occurs in any disguise: in code, with letters of other alphabets that look alike, spelled out
    with single separators (`s-e-a`), or with emphasis inside."""
    looked = fold(text)
    plain = _EMPHASIS.sub("", looked).translate(_LOOKALIKES)
    spelled = _SPELLED.sub(lambda match: re.sub(r"[ .*_~|-]", "", match[0]), looked.translate(_LOOKALIKES))
    pattern = _whole(normalise(wanted))
    folded = _whole(normalise(wanted).translate(_LOOKALIKES))
    return bool(pattern.search(looked) or folded.search(plain) or folded.search(spelled))


def _whole(wanted: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![a-z0-9]){re.escape(wanted)}(?![a-z0-9])" if wanted else r"(?!)")


def count_words(text: str) -> int:
    """Words: runs of letters and digits, with up to two apostrophes or hyphens inside ("mother-in-law"); each wide
    character is one."""
    return sum(1 + (len(word) - 1) // LONGEST_WORD for word in _WORD.findall(visible(text)))


def sentences(text: str) -> list[str]:
    """Sentences by their end marks; a last one without a mark counts too, one without a letter or digit does not."""
    parts, start = [], 0
    for end in _SENTENCE_END.finditer(text):
        parts.append(text[start : end.end()])
        start = end.end()
    return [part for part in (*parts, text[start:]) if has_word(part)]


def count_sentences(text: str) -> int:
    """How many `sentences` a text has, invisible characters left out."""
    return len(sentences(visible(text)))


def paragraphs(text: str) -> list[str]:
    """What blank lines separate, where it has a letter or digit in it."""
    return [part.strip() for part in re.split(r"\n[ \t]*\n", text) if has_word(part)]


def bullets(text: str) -> list[str]:
    """The items of Markdown lists with marks (`-`, `*`, `+`, `•`), empty ones left out."""
    return [item for item in _BULLET.findall(text) if has_word(item)]


def headings(text: str) -> list[str]:
    """Markdown headings (`## …`) with words in them."""
    return [heading for heading in _HEADING.findall(text) if has_word(heading)]


def highlights(text: str) -> list[str]:
    """What Markdown emphasises, `*so*` or `**so**`."""
    return [first or second for first, second in _HIGHLIGHT.findall(text) if has_word(first or second)]


def placeholders(text: str) -> list[str]:
    """What stands in square brackets, links left out."""
    return [inner for inner in _PLACEHOLDER.findall(text) if has_word(inner)]


def capital_words(text: str) -> list[str]:
    """Words of two letters or more, all of them capitals."""
    return [word for word in re.findall(r"[^\W\d_]{2,}", text) if word.isupper()]


def has_word(text: str) -> bool:
    return any(character.isalnum() for character in visible(text))


def count_letter(text: str, letter: str, disguised: bool) -> int:
    """How often a letter occurs, in either case; `disguised` counts look-alikes of other alphabets too."""
    folded = unicodedata.normalize("NFKC", visible(text)).casefold()
    return (folded.translate(_LOOKALIKES) if disguised else folded).count(letter.casefold())
