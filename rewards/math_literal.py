"""Literal mathematical answers, read exactly: integers, fractions, decimals, percent, tuples, sets,
intervals, lists.

This is an allow-list. Only *values* are read, never expressions: `3+4` is not a way to write 7, because an
answer that echoes the question's expression would otherwise be right by construction. All arithmetic is on
`Fraction` with bounded exponents; nothing is evaluated.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

MAX_CHARS = 200
MAX_EXPONENT = 30
MAX_DEPTH = 4

# Full-width ASCII and the typographic minus. Not NFKC: it would turn 2² into 22.
_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: 0x20, 0x2212: 0x2D, 0x00A0: 0x20}
_SPACING = re.compile(r"\\left|\\right|\\[,;:!]|\\ |~|\\quad")
_RELATION = re.compile(r"[=<>≤≥≠≈]|\\(?:le|ge|leq|geq|lt|gt|ne|neq|approx|equiv|sim)(?![A-Za-z])")

_INTEGER = re.compile(r"[0-9]+")
_THOUSANDS = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+(\.[0-9]+)?")
_DECIMAL = re.compile(r"[0-9]+(?:\.[0-9]+)?|\.[0-9]+")
_MIXED = re.compile(r"([0-9]+) ([0-9]+)/([0-9]+)|([0-9]+) ?\\frac\{([0-9]+)\}\{([0-9]+)\}")
_FRACTION = re.compile(r"([0-9]+)/([0-9]+)|\\frac\{(-?[0-9]+)\}\{(-?[0-9]+)\}|\\frac([0-9])([0-9])")
_SCIENTIFIC = re.compile(
    r"([1-9](?:\.[0-9]+)?)"
    r"(?: ?(?:\\times|\\cdot) ?10\^(?:\{([+-]?[0-9]{1,3})\}|([0-9]))|[eE]([+-]?[0-9]{1,3}))"
)
_PERCENT = re.compile(r"(.*?) ?\\?%")

_CLOSERS = {"(": ")]", "[": ")]", "{": "}"}


class NotLiteral(ValueError):
    """The text is no literal answer; `reason` is a stable name."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Group:
    """A tuple or interval (`opening` and `closing` as written), a set (`{`) or a bare comma list (no
    brackets).

    Sets and bare lists are compared without order; items of a set are distinct.
    """

    opening: str
    items: tuple[Literal, ...]
    closing: str


# Infinity is the string "inf" or "-inf": it may end an interval and equals only itself.
Literal = Fraction | str | Group


def clean(text: str) -> str:
    """One spelling: ASCII digits and signs, single spaces, no `$`, `\\left`, spacing commands or final full
    stop.
    """
    text = text.translate(_WIDTH).strip()
    for opening, closing in (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]")):
        if len(text) > len(opening + closing) and text.startswith(opening) and text.endswith(closing):
            text = text[len(opening) : -len(closing)]
            break
    text = _SPACING.sub(" ", text)
    text = re.sub(r"\\[dtc]frac", r"\\frac", text)
    text = re.sub(r"\\frac ?\{ ?([^{} ]*) ?\} ?\{ ?([^{} ]*) ?\}", r"\\frac{\1}{\2}", text)
    return " ".join(text.split()).removesuffix(".").strip()


def relations(text: str) -> int:
    """How many relation signs stand in the text."""
    return len(_RELATION.findall(text))


def parse_literal(text: str) -> Literal:
    """The value of a literal answer. Raises `NotLiteral` for everything else (see `NotLiteral.reason`)."""
    if len(text) > MAX_CHARS:
        raise NotLiteral("too_long")
    cleaned = clean(text)
    if not cleaned:
        raise NotLiteral("empty")
    if relations(cleaned):
        raise NotLiteral("relation")
    return _parse(cleaned, depth=0)


def _parse(text: str, depth: int) -> Literal:
    if depth > MAX_DEPTH:
        raise NotLiteral("too_deep")
    body = text.replace(r"\{", "{").replace(r"\}", "}")
    if body and body[0] in _CLOSERS and body[-1] in _CLOSERS[body[0]]:
        inner = body[1:-1].strip()
        parts = _split(inner) if inner else []
        if parts is not None:
            items = [_parse(part, depth + 1) for part in parts]
            if len(items) == 1 and body[0] != "{":
                return items[0]
            return _group(body[0], items, body[-1])
    if depth == 0 and not _THOUSANDS.fullmatch(text.lstrip("+-")):
        parts = _split(body)
        if parts is not None and len(parts) > 1:
            return _group("", [_parse(part, depth + 1) for part in parts], "")
    return _number(text)


def _group(opening: str, items: list[Literal], closing: str) -> Group:
    if opening == "{":
        items = list(dict.fromkeys(items))
    if opening in ("", "{"):
        items.sort(key=repr)
    return Group(opening, tuple(items), closing)


def _split(text: str) -> list[str] | None:
    """Split at the commas outside brackets; None when brackets close that were not open."""
    parts, depth, start = [], 0, 0
    for position, character in enumerate(text):
        if character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
            if depth < 0:
                return None
        elif character == "," and depth == 0:
            parts.append(text[start:position].strip())
            start = position + 1
    return [*parts, text[start:].strip()]


def _number(text: str) -> Literal:
    if text and text[0] in "+-":
        value = _unsigned(text[1:].strip())
        if text[0] == "+":
            return value
        return "-inf" if value == "inf" else -_rational(value)
    return _unsigned(text)


def _rational(value: Literal) -> Fraction:
    if not isinstance(value, Fraction):
        raise NotLiteral("not_a_literal")
    return value


def _unsigned(text: str) -> Literal:
    if text in (r"\infty", "∞"):
        return "inf"
    if match := _PERCENT.fullmatch(text):
        return _rational(_unsigned(match.group(1))) / 100
    if _INTEGER.fullmatch(text) or _DECIMAL.fullmatch(text):
        return Fraction(text)
    if _THOUSANDS.fullmatch(text):
        return Fraction(text.replace(",", ""))
    if match := _FRACTION.fullmatch(text):
        top, bottom = (int(part) for part in match.groups() if part is not None)
        return _reduced(top, bottom)
    if match := _MIXED.fullmatch(text):
        whole, top, bottom = (int(part) for part in match.groups() if part is not None)
        if top >= bottom:
            raise NotLiteral("unevaluated")
        return whole + _reduced(top, bottom)
    if match := _SCIENTIFIC.fullmatch(text):
        mantissa, *exponents = match.groups()
        exponent = next(int(part) for part in exponents if part is not None)
        if abs(exponent) > MAX_EXPONENT:
            raise NotLiteral("exponent_too_large")
        return Fraction(mantissa) * Fraction(10) ** exponent
    raise NotLiteral(
        "unevaluated" if re.search(r"[0-9].*[-+*/^!×÷·]|\\[A-Za-z]|[\^!]", text) else "not_a_literal"
    )


def _reduced(top: int, bottom: int) -> Fraction:
    """A fraction in lowest terms. `10/2` is a division that nobody carried out, as `3+4` is a sum."""
    if bottom == 0:
        raise NotLiteral("division_by_zero")
    value = Fraction(top, bottom)
    if value.denominator != abs(bottom) or value.denominator == 1:
        raise NotLiteral("unevaluated")
    return value
