r"""A whole answer to a tree: lists, tuples, sets, intervals, matrices, relations, units, words around scalars.

`read` is the one way from text to tree, for the truth and for the answer alike.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from rewards.math.text import MAX_TRUTH_CHARS, NotUnderstood, Token, clean, tokenize
from rewards.math.tree import FUNCTIONS, NAMES, UNEVALUATED, Node, number, parse_expression

MAX_NESTING = 4
MAX_ITEMS = 60

RELATIONS = {
    "=": "=", "<": "<", ">": ">", "<=": "<=", ">=": ">=", "!=": "!=", "le": "<=", "leq": "<=", "leqslant": "<=",
    "ge": ">=", "geq": ">=", "geqslant": ">=", "lt": "<", "gt": ">", "ne": "!=", "neq": "!=", "approx": "~",
    "equiv": "==", "sim": "~", "simeq": "~", "to": "->", "in": "in", "implies": "=>", "iff": "<=>",
    "Rightarrow": "=>", "rightarrow": "->", "cong": "~", "propto": "~", "subset": "sub", "subseteq": "sub",
}  # fmt: skip
_BETWEEN = frozenset({"or", "and"})
_OPENERS, _CLOSERS = {"(": ")]", "[": ")]", "{": "}"}, ")]}"
_MATRICES = frozenset({"matrix", "pmatrix", "bmatrix", "Bmatrix", "smallmatrix", "array"})
_WORDS = frozenset("yes no odd all any not dne none".upper().split())

_UNITS = {
    "mm": "millimeter millimetre", "cm": "centimeter centimetre", "m": "meter metre", "km": "kilometer kilometre",
    "mi": "mile", "ft": "foot feet", "in": "inch inches", "yd": "yard", "mg": "milligram", "g": "gram",
    "kg": "kilogram", "lb": "pound lbs", "oz": "ounce", "s": "second sec", "min": "minute", "h": "hour hr", "day": "",
    "week": "", "month": "", "year": "yr", "ml": "milliliter millilitre mL", "l": "liter litre L",
    "km/h": "km/hr kph", "m/s": "", "mph": "",
    "N": "newton", "J": "joule", "W": "watt", "Hz": "hertz", "K": "kelvin", "mol": "mole", "degree": "deg",
    "unit": "", "$": "dollar usd", "cent": "¢", "€": "euro eur", "£": "gbp", "¥": "yen yuan rmb cny 元", "%": "percent",
}  # fmt: skip
_UNIT_OF = {alias: unit for unit, aliases in _UNITS.items() for alias in (unit, *aliases.split())}
CURRENCIES = frozenset("$€£¥")
_UNIT_TEXT = re.compile(r"[A-Za-z€£¥元$%. /°]+")
_CLOCK = re.compile(r"([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?([ap])?m?")


def read(text: str) -> Node:
    """The tree of an answer. Raises `NotUnderstood` with a stable reason, and nothing else."""
    if len(text) > MAX_TRUTH_CHARS:
        raise NotUnderstood("too_long")
    tokens = tokenize(clean(text))
    if not tokens:
        raise NotUnderstood("empty")
    return _list(tokens, 0)


def operators(text: str) -> frozenset[str]:
    """Names of the operators and functions that a text leaves unevaluated ("sum", "!", "sin", "log"). Raises
    `NotUnderstood`."""
    tokens = tokenize(clean(text))
    found = {"!"} if any(token.kind == "sign" and token.text == "!" for token in tokens) else set()
    for place, token in enumerate(tokens):
        following = tokens[place + 1] if place + 1 < len(tokens) else None
        applied = following is not None and following.text in ("(", "_", "{", "^", "[")
        if token.text in FUNCTIONS - {"exp"} and token.kind in ("command", "letters", "text"):
            found.add("log" if token.text in ("ln", "lg") else token.text)
        elif token.text in UNEVALUATED and (token.kind == "command" or (applied and token.kind != "sign")):
            found.add(token.text)
    return frozenset(found)


def relation_count(text: str) -> int:
    """How many relation signs stand in a text. Raises `NotUnderstood`."""
    return sum(_relates(token) for token in tokenize(clean(text)))


def _relates(token: Token) -> bool:
    return token.kind in ("sign", "command") and token.text in RELATIONS


def _list(tokens: Sequence[Token], depth: int) -> Node:
    """Items with commas, semicolons, "or" and "and" between them; several make a group without brackets."""
    parts = _split(tokens, _separates)
    if len(parts) > 2 and not parts[-2] and parts[-1]:
        del parts[-2]  # "1, 2, and 3"
    items = [item for part in parts for item in _items(part, depth)]
    return items[0] if len(items) == 1 else Node("group", _bounded(items), "")


def _bounded(items: Sequence[Node]) -> tuple[Node, ...]:
    if len(items) > MAX_ITEMS:
        raise NotUnderstood("too_many_items")
    return tuple(items)


def _separates(token: Token) -> bool:
    if token.kind == "sign":
        return token.text in ",;"
    return token.kind in ("text", "letters") and token.text in _BETWEEN


def _split(tokens: Sequence[Token], cuts: Callable[[Token], bool]) -> list[list[Token]]:
    """Cut at the tokens outside brackets for which `cuts` holds."""
    parts: list[list[Token]] = [[]]
    depth = 0
    for token in tokens:
        depth += _opens(token) - _closes(token)
        if depth < 0:
            raise NotUnderstood("not_understood")
        if depth == 0 and cuts(token):
            parts.append([])
        else:
            parts[-1].append(token)
    if depth:
        raise NotUnderstood("not_understood")
    return parts


def _opens(token: Token) -> bool:
    if token.kind == "command":
        return token.text in ("{", "begin", "lbrace", "langle")
    return token.kind == "sign" and token.text in _OPENERS


def _closes(token: Token) -> bool:
    if token.kind == "command":
        return token.text in ("}", "end", "rbrace", "rangle")
    return token.kind == "sign" and token.text in _CLOSERS


def _items(tokens: Sequence[Token], depth: int) -> list[Node]:
    """One item, or the two that a plus-minus sign stands for."""
    if any(token.kind == "command" and token.text in ("pm", "mp") for token in tokens):
        return [_relation(_with_signs(tokens, signs), depth) for signs in ("+-", "-+")]
    return [_relation(tokens, depth)]


def _with_signs(tokens: Sequence[Token], signs: str) -> list[Token]:
    chosen = dict(zip(("pm", "mp"), signs, strict=True))
    return [
        Token("sign", chosen[t.text], t.spaced) if t.kind == "command" and t.text in chosen else t for t in tokens
    ]


def _relation(tokens: Sequence[Token], depth: int) -> Node:
    sides = _split(tokens, _relates)
    if len(sides) == 1:
        return _union(sides[0], depth)
    outside, nesting = [], 0
    for token in tokens:
        nesting += _opens(token) - _closes(token)
        if nesting == 0 and _relates(token):
            outside.append(RELATIONS[token.text])
    return Node("relation", tuple(_union(side, depth) for side in sides), " ".join(outside))


def _union(tokens: Sequence[Token], depth: int) -> Node:
    parts = _split(tokens, lambda token: token.kind == "command" and token.text == "cup")
    if len(parts) == 1:
        return _value(tokens, depth)
    return Node("union", _bounded([_value(part, depth) for part in parts]))


def _value(tokens: Sequence[Token], depth: int) -> Node:
    if depth > MAX_NESTING:
        raise NotUnderstood("too_deep")
    if not tokens:
        raise NotUnderstood("not_understood")
    return _word(tokens) or _clock(tokens) or _bracketed(tokens, depth) or _matrix(tokens) or _measure(tokens)


def _word(tokens: Sequence[Token]) -> Node | None:
    r"""`\text{(A)}`, `No`, `no solution`: words alone, without regard to case."""
    if len(tokens) == 1 and tokens[0].kind == "command" and tokens[0].text in ("emptyset", "varnothing"):
        return Node("group", (), "{}")
    if any(token.kind not in ("text", "letters") for token in tokens):
        return None
    text = " ".join(token.text for token in tokens).strip()
    inner = re.fullmatch(r"\(?([A-Za-z])\)?[.:]?", text)
    if inner:
        return Node("symbol", text=inner.group(1))
    only_text = all(token.kind == "text" for token in tokens) and text not in NAMES
    known = text.upper() in _WORDS or any(len(t.text) > 3 and t.text not in NAMES for t in tokens)
    return Node("word", text=" ".join(text.casefold().split())) if only_text or known else None


def _clock(tokens: Sequence[Token]) -> Node | None:
    """A time or a ratio, part by part: 9:05 is 09:05, and 2:4 is not 1:2."""
    text = "".join(token.text for token in tokens).lower().replace(".", "").replace(" ", "")
    if match := _CLOCK.fullmatch(text):
        hours, minutes, seconds, half = match.groups()
        numbers = [number(int(part)) for part in (hours, minutes, seconds) if part is not None]
        return Node("group", tuple(numbers), f":{half or ''}")
    parts = _split(tokens, lambda token: token.kind == "sign" and token.text == ":")
    if len(parts) == 1:
        return None
    return Node("group", _bounded([parse_expression(part) for part in parts]), ":")


def _bracketed(tokens: Sequence[Token], depth: int) -> Node | None:
    first, last = tokens[0], tokens[-1]
    opening = "{" if first.text in ("lbrace", "{") else "(" if first.text == "langle" else first.text
    closing = "}" if last.text in ("rbrace", "}") else ")" if last.text == "rangle" else last.text
    if not (_opens(first) and _closes(last) and closing in _OPENERS.get(opening, "")):
        return None
    nesting = 0
    for token in tokens[:-1]:
        nesting += _opens(token) - _closes(token)
        if nesting == 0:
            return None
    inside = tokens[1:-1]
    parts = _split(inside, _separates) if inside else []
    items = [item for part in parts for item in _items(part, depth + 1)]
    if len(items) == 1 and opening != "{":
        return items[0]
    return Node("group", _bounded(items), opening + closing)


def _matrix(tokens: Sequence[Token]) -> Node | None:
    r"""`\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}`, with a scalar before it or not."""
    starts = [n for n, token in enumerate(tokens) if token.kind == "command" and token.text == "begin"]
    if not starts:
        return None
    start = starts[0]
    opening, body, closing = tokens[start + 1 : start + 4], tokens[start + 4 : -4], tokens[-4:]
    name = "".join(token.text for token in opening)
    if name == "{array}" and body and body[0].text == "{":
        body = body[1 + next((n for n, token in enumerate(body) if token.text == "}"), 0) :]  # the columns' places
    if name[1:-1] not in _MATRICES or "".join(token.text for token in closing) != f"end{name}":
        raise NotUnderstood("not_understood")
    factor = parse_expression(tokens[:start]) if start else None
    rows = _split(body, lambda token: token.kind == "command" and token.text == "\\")
    if len(rows) > 1 and not rows[-1]:
        rows.pop()
    parsed = []
    for row in rows:
        cells = [parse_expression(cell) for cell in _split(row, lambda t: t.kind == "sign" and t.text == "&")]
        parsed.append(Node("row", tuple(cells if factor is None else [Node("mul", (factor, c)) for c in cells])))
    return Node("matrix", _bounded(parsed))


def _measure(tokens: Sequence[Token]) -> Node:
    """A scalar, with a unit or a percent sign around it or without."""
    tokens = list(tokens)
    sign = [tokens.pop(0)] if tokens[0].kind == "sign" and tokens[0].text in "+-" and len(tokens) > 1 else []
    if tokens[0].text in CURRENCIES and len(tokens) > 1:
        return Node("measure", (parse_expression([*sign, *tokens[1:]]),), tokens[0].text)
    body, unit = _unit(tokens)
    if unit == "%":
        return Node("percent", (parse_expression([*sign, *body]),))
    if unit:
        return Node("measure", (parse_expression([*sign, *body]),), unit)
    if len(tokens) > 2 and tokens[0].kind == "number" and tokens[1].text == "_":
        base = "".join(token.text for token in tokens[2:] if token.text not in ("{", "}"))
        if base.isdigit() and tokens[0].text.isdigit():
            return Node("based", text=f"{''.join(t.text for t in sign)}{tokens[0].text}_{base}")
    return parse_expression([*sign, *tokens])


def _unit(tokens: list[Token]) -> tuple[list[Token], str]:
    r"""The scalar in front and the unit's own name behind it ("" without one). A plain single letter is a symbol, so a
    unit of one letter needs `\text{m}`."""
    end, suffix = len(tokens), ""
    if (
        end > 2
        and tokens[-2].text == "^"
        and tokens[-1].text in ("2", "3")
        and tokens[-3].kind in ("text", "letters")
    ):
        suffix, end = f"^{tokens[-1].text}", end - 2
    elif end > 4 and "".join(t.text for t in tokens[-4:]) in ("^{2}", "^{3}") and tokens[-5].kind == "text":
        suffix, end = f"^{tokens[-2].text}", end - 4
    degree = 4 if "".join(t.text for t in tokens[-4:]) == "^{circ}" else 2
    if end == len(tokens) > degree and "".join(t.text for t in tokens[-degree:]) in ("^circ", "^{circ}"):
        rest = tokens[:-degree]
        return (tokens, "") if any(t.text == "circ" or t.text in FUNCTIONS for t in rest) else (rest, "degree")
    if tokens[-1].text in ("%", "$") and len(tokens) > 1:
        return tokens[:-1], tokens[-1].text
    start = end
    while start > 1 and (tokens[start - 1].kind in ("text", "letters") or tokens[start - 1].text == "/"):
        start -= 1
    while start < end and tokens[start].text == "/":
        start += 1
    name = "".join(f" {t.text}" if t.spaced or t.kind == "text" else t.text for t in tokens[start:end]).strip()
    plain = all(token.kind == "letters" or token.text == "/" for token in tokens[start:end])
    if name in ("", "i", "e") or not _UNIT_TEXT.fullmatch(name):
        return tokens, ""
    unit = _unit_name(name)
    if plain:
        numeric = all(t.kind == "number" or t.text in ("/", "frac", "{", "}") for t in tokens[:start])
        symbols = any(token.text in NAMES or len(token.text) == 1 for token in tokens[start:end] if token.text != "/")
        if not numeric or (unit is None and (symbols or len(name) < 4)) or len(name) == 1:
            return tokens, ""
    return tokens[:start], (unit or name.casefold().removesuffix("s")) + suffix


def _unit_name(name: str) -> str | None:
    """The short name of a unit on the list, None for any other word."""
    words = name.replace(" / ", "/").replace("/ ", "/").replace(" /", "/").rstrip(".").strip()
    one = words.removesuffix("s") if len(words) > 2 else words  # "ms" are no metres
    for candidate in (words, words.casefold(), one, one.casefold()):
        if candidate in _UNIT_OF:
            return _UNIT_OF[candidate]
    return None
