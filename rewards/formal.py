"""Formal parts of a text (code, LaTeX, URLs, tags), and the prose that is hidden in them.

A language is told from prose, so formal parts are left out. But what is written as words in them is prose all the same:
a policy that moves its thinking into a code fence, into `\\text{}`, or into the path of a URL has not left language.
"""

from __future__ import annotations

import keyword
import re
from typing import NamedTuple

_FORMAL = re.compile(
    r"(?P<fence>```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z))"
    r"|(?P<inline>`[^`\n]*`)"
    r"|(?P<display>\$\$.*?(?:\$\$|\Z)|\\\[.*?(?:\\\]|\Z)|\\begin\{(?P<name>\w+\*?)\}.*?(?:\\end\{(?P=name)\}|\Z))"
    r"|(?P<math>\$[^$\n]*\$|\\\([^\n]*?(?:\\\)|(?=\n)|\Z))"
    r"|(?P<command>\\[A-Za-z]+(?:\{[^{}]*\})*)"
    r"|(?P<url>(?:https?://|www\.)[!-~]+)"
    r"|(?P<tag><[^<>\n]{1,80}>)",
    re.DOTALL,
)
_OPENING = re.compile(r"\A(?:```|~~~)[\w+-]*")
_COMMAND = re.compile(r"\\[A-Za-z]+")
_MARKUP = re.compile(r"[`$~{}<>\[\]]|\\[()\[\]]")
_URL_MARKS = re.compile(r"%20|[-_/.+?=&#]|https?:")
_GLUED = re.compile(
    r"(?<![^\W\d_])(?:[^\W\d_]{2,}+(?:[_-][^\W\d_]{2,}+){4,}|[^\W\d_][a-zà-ÿ]++(?:[A-Z][a-zà-ÿ]++){4,})"
)
_HUMP = re.compile(r"[_-]|(?<=[a-zà-ÿ])(?=[A-Z])")
_RUN = re.compile(r"[^\W\d_]{2,}(?:['’][^\W\d_]+)?(?:\s+[^\W\d_]+(?:['’][^\W\d_]+)?)*")
_WIDE = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af，。、！？：；]{2,}")

LEAST_RUN, LEAST_URL_RUN = 3, 6
"""Words in a row that make prose; the path of an honest URL has some."""
CODE_WORDS = frozenset(keyword.kwlist).union(
    ("int", "float", "double", "char", "void", "bool", "string", "str", "list", "dict", "public", "private", "static"),
    ("const", "let", "var", "function", "new", "struct", "null", "true", "false", "print", "range", "len", "self"),
)
"""What programs are written with: it neither is prose nor joins words to prose."""


class Split(NamedTuple):
    """A text without its formal parts (`plain`), those without their markup (`formal`: what was written there, but for
    the names of LaTeX commands), and the prose hidden in them (`hidden`), a line for each run of words."""

    plain: str
    formal: str
    hidden: str


def split_formal(text: str) -> Split:
    """Takes the formal parts out of a text."""
    hidden: list[str] = []
    addresses: list[str] = []
    code: list[str] = []
    for match in _FORMAL.finditer(text):
        if match["url"]:
            addresses.append(_URL_MARKS.sub(" ", match[0]))
            hidden += _prose(addresses[-1], LEAST_URL_RUN)
        else:
            code.append(_bare(match[0]))
    # Joined first: prose in many small pieces (`we` `add` `the` `numbers`) is prose.
    hidden += _prose(" ".join(code), LEAST_RUN)
    return Split(_FORMAL.sub(" ", text), " ".join(code + addresses), "\n".join(hidden))


def _bare(part: str) -> str:
    """A formal part without its markup; operators and brackets of code stay and separate its names."""
    words = _MARKUP.sub(" ", _COMMAND.sub(" ", _OPENING.sub(" ", part)))
    return _GLUED.sub(lambda match: " ".join(_HUMP.split(match[0])), words)


def _prose(text: str, least: int) -> list[str]:
    """Runs of at least `least` words with nothing but space between them, words of programming languages apart."""
    runs: list[list[str]] = []
    for match in _RUN.finditer(text):
        run: list[str] = []
        for word in match[0].split():
            if word.casefold() in CODE_WORDS or len(word) < 2:
                runs.append(run)
                run = []
            else:
                run.append(word)
        runs.append(run)
    found = [" ".join(run) for run in runs if len(run) >= least and not _WIDE.search("".join(run))]
    return found + _WIDE.findall(text)
