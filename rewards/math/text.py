r"""Mathematical text to tokens: one spelling for the many ways to write the same sign.

Plain text and LaTeX are read by the same rules. What is not on the lists of this file is no mathematics here: a
look-alike digit, a zero-width character or an unknown command raises `NotUnderstood` and is never guessed at.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

MAX_CHARS = 200
"""Longest answer. A truth may be `MAX_TRUTH_CHARS` long: it is the task's, not the policy's."""
MAX_TRUTH_CHARS = 2000


class NotUnderstood(ValueError):
    """The text is outside what these rules read; `reason` is a stable name."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


Kind = Literal["number", "letters", "command", "text", "sign"]


@dataclass(frozen=True)
class Token:
    """One sign. `text` is a command's name without the backslash, the content of a `\\text{}`, else as written.

    `spaced` says whether white space stood before it ("1 3/4" is not "13/4").
    """

    kind: Kind
    text: str
    spaced: bool


# Full-width ASCII, typographic minus and spaces. Not NFKC: it would turn 2² into 22.
_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_WIDTH |= {0x3000: 0x20, 0x2212: 0x2D, 0x2013: 0x2D, 0x00A0: 0x20, 0x202F: 0x20, 0x2009: 0x20}
_SIGNS = {
    "π": r"\pi ", "∞": r"\infty ", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": r"\div ", "≤": r"\le ",
    "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "∈": r"\in ", "∪": r"\cup ", "±": r"\pm ", "∓": r"\mp ",
    "°": r"^\circ ", "∅": r"\emptyset ", "√": r"\sqrt ", "、": ",", "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ",
    "θ": r"\theta ", "λ": r"\lambda ", "μ": r"\mu ", "φ": r"\phi ", "ω": r"\omega ", "½": r"\frac{1}{2}",
    "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "或": r"\text{or}",
    "和": r"\text{and}", "€": r"\text{€}", "£": r"\text{£}", "¥": r"\text{¥}",
}  # fmt: skip
_TRANSLATE = str.maketrans({**{chr(a): chr(b) for a, b in _WIDTH.items()}, **_SIGNS})
_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n", strict=True))
_SUPERSCRIPT = re.compile(f"[{''.join(_SUPERSCRIPTS)}]+")

# Layout only: sizes and fonts of brackets and of the whole formula.
_LAYOUT = re.compile(r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|textstyle|limits)(?![A-Za-z])|\\!")
_SPACE = re.compile(r"(?<!\\)\\[,;:> ]|\\q?quad(?![A-Za-z])|~|\s+")
_FONT = re.compile(r"\\(?:text(?:rm|bf|it|normal)?|mbox|math(?:rm|bf|it)|boldsymbol|operatorname)(?![A-Za-z])\*? *")
_NUMERIC_TEXT = re.compile(r"\\text\{([-+0-9.,:/ ]+)\}")
_LATEX_THOUSANDS = re.compile(r"(?<=[0-9])(?:\{,\}|,\\! ?|\\,|\\ )(?=[0-9]{3}(?![0-9]))")
_NUMBER_WITH_COMMAS = re.compile(r"(?<![0-9.,])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?!,[0-9])")

_IDLE_SPACE = re.compile(r"(?<![A-Za-z0-9]) | (?![A-Za-z0-9])")

_TOKEN = re.compile(
    r"(?P<space> +)"
    r"|(?P<number>(?:[0-9]+(?:\.[0-9]+|\.(?=\\overline))?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,6}(?=[ ,;)\]}%]|\\\}|\Z))?)"
    r"|(?P<text>\\text\{[^{}\\]*\})"
    r"|(?P<command>\\(?:[A-Za-z]+|[{}%$|#&\\]))"
    r"|(?P<letters>[A-Za-z]+)"
    r"|(?P<sign>\*\*|<=|>=|!=|[-+*/^_=<>()\[\]{}|,;:!%$&])"
)


def clean(text: str) -> str:
    """One spelling: ASCII digits and signs, LaTeX for the rest, single spaces, no math delimiters, layout commands or
    final full stop."""
    text = _SUPERSCRIPT.sub(lambda run: "^{" + "".join(_SUPERSCRIPTS[c] for c in run.group()) + "}", text)
    text = text.translate(_TRANSLATE).strip().rstrip("。").strip()
    for opening, closing in (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]")):
        if len(text) > len(opening + closing) and text.startswith(opening) and text.endswith(closing):
            text = text[len(opening) : -len(closing)]
            break
    text = _LATEX_THOUSANDS.sub("", text)
    text = _SPACE.sub(" ", _LAYOUT.sub("", text))
    text = re.sub(r"\\[dtc]frac(?![A-Za-z])", r"\\frac", text)
    text = re.sub(r"\\[dt]binom(?![A-Za-z])", r"\\binom", text)
    text = _NUMERIC_TEXT.sub(r"\1", _FONT.sub(r"\\text", text))
    text = re.sub(r"\\mathbb ?(?:\{([A-Z])\}|([A-Z]))", r"\\text{set \1\2}", text)
    text = re.sub(r"(?<![A-Za-z])([aApP])\.[mM]\.?(?![A-Za-z])", r"\1m", text)
    text = " ".join(text.split())
    return text if text.endswith("..") else text.removesuffix(".").strip()


def squeeze(text: str) -> str:
    """A cleaned text without the spaces that part nothing: "1 3/4" keeps its own, being no "13/4"."""
    return _IDLE_SPACE.sub("", text)


def tokenize(text: str) -> list[Token]:
    """The tokens of a cleaned text. Raises `NotUnderstood("unknown_sign")` at the first sign that is on no list."""
    text = _without_thousands(text)
    tokens: list[Token] = []
    position, spaced = 0, False
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise NotUnderstood("unknown_sign")
        position, kind, written = match.end(), match.lastgroup, match.group()
        if kind == "space":
            spaced = True
            continue
        if kind == "text":
            written = written[len(r"\text{") : -1].strip()
        elif kind == "command":
            written = written[1:]
        tokens.append(Token(kind, written, spaced))  # type: ignore[arg-type]
        spaced = False
    return tokens


def _without_thousands(text: str) -> str:
    """Commas that group digits taken out, if every comma outside brackets does: `1,000` is one number, `(1,000)` and
    `1,000, 2` are lists."""
    outside, depth = [], 0
    for position, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            outside.append(position)
    numbers = [match.span() for match in _NUMBER_WITH_COMMAS.finditer(text)]
    if not outside or not all(any(a < comma < b for a, b in numbers) for comma in outside):
        return text
    return "".join(c for position, c in enumerate(text) if position not in outside)
