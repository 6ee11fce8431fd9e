r"""Tokens of one scalar expression to a tree. Nothing is evaluated; `form` gives the tree its value.

The grammar is the school's: sums, products (also unwritten), quotients, powers, roots, a few functions. `1/2x` is
(1/2)·x, read from the left; `x^10` is the tenth power; `1 3/4` and `1\frac{3}{4}` are mixed numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from rewards.math.text import NotUnderstood, Token

MAX_DEPTH = 24
MAX_SCIENTIFIC_EXPONENT = 30


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


GREEK = _names(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau "
    "upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega ell"
)
FUNCTIONS = _names(
    "sin cos tan cot sec csc sinh cosh tanh arcsin arccos arctan asin acos atan log ln lg exp abs floor ceil"
)
UNEVALUATED = _names(
    "sum prod int iint iiint oint lim limsup liminf binom choose det max min gcd lcm sup inf argmax argmin mod bmod "
    "pmod integrate simplify solve factorial deg dim rank tr trace Pr"
)
"""Operators that a final answer has carried out. `binom` and `!` are read where the truth has them."""
CONSTANTS = {"pi": "pi", "infty": "oo", "infinity": "oo"}
NAMES = FUNCTIONS | UNEVALUATED | CONSTANTS.keys() | {"sqrt", "cbrt", "frac", "cup", "pm"} | GREEK
_CLOSER = {"(": ")", "[": "]", "{": "}"}
_ROMAN = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "lg": "log"}
_FACTORS = FUNCTIONS | GREEK | CONSTANTS.keys() | {"sqrt", "cbrt", "frac", "binom"}


@dataclass(frozen=True)
class Node:
    """A tree. Scalars: number, symbol, neg, add, mul, div, pow, root, mixed, call, factorial, binom. Structures (built
    by `answer`): group, union, matrix, relation, measure, percent, based, word. `text` is a name, an operator or
    the brackets; `value` the value of a number."""

    kind: str
    items: tuple[Node, ...] = ()
    text: str = ""
    value: Fraction = field(default=Fraction(0))


def number(value: Fraction | int) -> Node:
    return Node("number", value=Fraction(value))


def negative(node: Node) -> Node:
    return Node("neg", (node,))


def parse_expression(tokens: Sequence[Token]) -> Node:
    """The tree of a scalar. Raises `NotUnderstood` ("not_understood", "too_deep", "exponent_too_large")."""
    if not tokens:
        raise NotUnderstood("not_understood")
    parser = _Parser(_spell(tokens))
    tree = parser.sum()
    if parser.position < len(parser.tokens):
        raise NotUnderstood("not_understood")
    return tree


def _spell(tokens: Sequence[Token]) -> list[Token]:
    """Runs of letters as names (`sin`, `pi`) or, up to three letters long, as single symbols: `xy` is x·y."""
    spelled: list[Token] = []
    for token in tokens:
        if token.kind == "letters" and token.text in NAMES:
            spelled.append(Token("command", token.text, token.spaced))
        elif token.kind == "letters" and len(token.text) > 3:
            raise NotUnderstood("not_understood")
        elif token.kind == "letters":
            spelled.extend(Token("letters", c, token.spaced and not n) for n, c in enumerate(token.text))
        elif token.kind == "text" and len(token.text) == 1 and token.text.isascii() and token.text.isalpha():
            spelled.append(Token("letters", token.text, token.spaced))
        elif token.kind == "text" and token.text in NAMES:
            spelled.append(Token("command", token.text, token.spaced))
        else:
            spelled.append(token)
    return spelled


class _Parser:
    """Recursive descent; each method leaves `position` behind what it has read."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self.tokens = tokens
        self.position = 0
        self.depth = 0

    def peek(self, ahead: int = 0) -> Token | None:
        place = self.position + ahead
        return self.tokens[place] if place < len(self.tokens) else None

    def at(self, *texts: str, kind: str = "sign", ahead: int = 0) -> bool:
        token = self.peek(ahead)
        return token is not None and token.kind == kind and token.text in texts

    def take(self, *texts: str, kind: str = "sign") -> bool:
        if self.at(*texts, kind=kind):
            self.position += 1
            return True
        return False

    def next(self) -> Token:
        token = self.peek()
        if token is None:
            raise NotUnderstood("not_understood")
        self.position += 1
        return token

    def expect(self, text: str) -> None:
        if not self.take(text):
            raise NotUnderstood("not_understood")

    def enter(self) -> None:
        """Every nesting of the grammar passes through `factor` or `argument`, which count."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise NotUnderstood("too_deep")

    def sum(self) -> Node:
        terms = [self.signed()]
        while self.at("+", "-"):
            terms.append(self.signed())
        return terms[0] if len(terms) == 1 else Node("add", tuple(terms))

    def signed(self) -> Node:
        if self.take("-"):
            return negative(self.product())
        self.take("+")
        return self.product()

    def product(self) -> Node:
        value = self.factor()
        factors = [value]
        while True:
            if self.take("*") or self.take("cdot", "times", kind="command"):
                factors.append(self.signed_factor())
            elif self.take("/") or self.take("div", kind="command"):
                top = factors[0] if len(factors) == 1 else Node("mul", tuple(factors))
                factors = [Node("div", (top, self.signed_factor()))]
            elif self.starts_factor():
                factors.append(self.factor())
            else:
                return factors[0] if len(factors) == 1 else Node("mul", tuple(factors))

    def signed_factor(self) -> Node:
        return negative(self.factor()) if self.take("-") else self.factor()

    def starts_factor(self) -> bool:
        """Whether an unwritten product goes on. Two numbers side by side are none: `1 2` is not 2."""
        token = self.peek()
        if token is None or token.kind == "number":
            return False
        if token.kind == "command":
            return token.text in _FACTORS
        return token.kind == "letters" or (token.kind == "sign" and token.text in "([{")

    def factor(self) -> Node:
        self.enter()
        value = self.mixed() or self.powered()
        self.depth -= 1
        return value

    def powered(self) -> Node:
        base = self.atom()
        while True:
            if self.take("!"):
                base = Node("factorial", (base,))
            elif self.at("^") and self.degree_mark():
                self.position += 4 if self.at("{", ahead=1) else 2
                base = Node("mul", (base, Node("div", (Node("symbol", text="pi"), number(180)))))
            elif self.take("^") or self.take("**"):
                return Node("pow", (base, self.exponent()))
            else:
                return base

    def degree_mark(self) -> bool:
        inside = 2 if self.at("{", ahead=1) else 1
        return self.at("circ", kind="command", ahead=inside) and (inside == 1 or self.at("}", ahead=3))

    def exponent(self) -> Node:
        if self.take("{"):
            inner = self.sum()
            self.expect("}")
            return inner
        return negative(self.factor()) if self.take("-") else self.factor()

    def mixed(self) -> Node | None:
        """A whole number with a proper fraction behind it; `None` where there is none."""
        whole = self.integer(0)
        if whole is None:
            return None
        if self.at("frac", kind="command", ahead=1):
            top, bottom, length = self.integer(3), self.integer(6), 8
            braces = all(
                self.at(sign, ahead=place) for sign, place in (("{", 2), ("}", 4), ("{", 5), ("}", 7))
            )
            if not braces:
                return None
        else:
            top, bottom, length = self.integer(1), self.integer(3), 4
            token = self.peek(1)
            if token is None or not token.spaced or not self.at("/", ahead=2):
                return None
        if top is None or bottom is None:
            return None
        if not 0 < top < bottom:
            raise NotUnderstood("unevaluated")
        self.position += length
        return Node("mixed", (number(whole), number(top), number(bottom)))

    def integer(self, ahead: int) -> int | None:
        token = self.peek(ahead)
        return int(token.text) if token is not None and token.kind == "number" and token.text.isdigit() else None

    def atom(self) -> Node:
        token = self.next()
        if token.kind == "number":
            return self.numeral(token.text)
        if token.kind == "letters":
            return self.symbol(token.text)
        if token.kind == "command":
            return self.command(token.text)
        if token.kind == "sign" and token.text in _CLOSER:
            inner = self.sum()
            self.expect(_CLOSER[token.text])
            return inner
        if token.kind == "sign" and token.text == "|":
            inner = self.sum()
            self.expect("|")
            return Node("call", (inner,), "abs")
        raise NotUnderstood("not_understood")

    def numeral(self, text: str) -> Node:
        if "e" in text.lower() and abs(int(text.lower().partition("e")[2])) > MAX_SCIENTIFIC_EXPONENT:
            raise NotUnderstood("exponent_too_large")
        if self.at("overline", kind="command"):
            self.position += 1
            return number(self.repeating(text))
        return number(Fraction(text.removesuffix(".")))

    def repeating(self, text: str) -> Fraction:
        r"""`0.1\overline{6}` is 1/6."""
        self.expect("{")
        period = self.next()
        self.expect("}")
        if "." not in text or "e" in text.lower() or period.kind != "number" or not period.text.isdigit():
            raise NotUnderstood("not_understood")
        places = len(text.partition(".")[2])
        return Fraction(text.removesuffix(".")) + Fraction(int(period.text), (10 ** len(period.text) - 1) * 10**places)

    def symbol(self, name: str) -> Node:
        if not self.take("_"):
            return Node("symbol", text=name)
        if self.take("{"):
            parts = []
            while not self.at("}"):
                parts.append(self.next().text)
            self.expect("}")
            return Node("symbol", text=f"{name}_{''.join(parts)}")
        return Node("symbol", text=f"{name}_{self.next().text}")

    def command(self, name: str) -> Node:
        if name in CONSTANTS:
            return Node("symbol", text=CONSTANTS[name])
        if name in GREEK:
            return self.symbol(name)
        if name in ("frac", "binom"):
            top, bottom = self.argument(), self.argument()
            return Node("div" if name == "frac" else "binom", (top, bottom))
        if name == "sqrt":
            index = number(2)
            if self.take("["):
                index = self.sum()
                self.expect("]")
            return Node("root", (index, self.argument()))
        if name == "cbrt":
            return Node("root", (number(3), self.argument()))
        if name in FUNCTIONS:
            return self.call(_ROMAN.get(name, name))
        raise NotUnderstood("not_understood")

    def argument(self) -> Node:
        r"""What a LaTeX command applies to: braces or one sign; of `\frac12` one digit each."""
        token = self.peek()
        if token is not None and token.kind == "number" and token.text.isdigit() and len(token.text) == 2:
            follows = self.tokens[self.position - 1]
            if follows.kind == "command" and follows.text == "frac":
                tens, ones = (Token("number", digit, False) for digit in token.text)
                self.tokens = [*self.tokens[: self.position], tens, ones, *self.tokens[self.position + 1 :]]
        self.enter()
        value = self.atom()
        self.depth -= 1
        return value

    def call(self, name: str) -> Node:
        r"""`\sin x`, `\sin^2 x`, `\log_2 8`; without brackets the argument is the unwritten product behind."""
        base: tuple[Node, ...] = ()
        if self.take("_"):
            if name != "log":
                raise NotUnderstood("not_understood")
            base = (self.argument(),)
        power = self.exponent() if self.take("^") else None
        if power == negative(number(1)) and name in ("sin", "cos", "tan"):
            name, power = f"arc{name}", None
        if self.at("(", "[", "{", "|"):
            inner = self.argument()
        else:
            factors = [self.factor()]
            while self.starts_factor() and not self.at(*FUNCTIONS, kind="command"):
                factors.append(self.factor())
            inner = factors[0] if len(factors) == 1 else Node("mul", tuple(factors))
        applied = Node("call", (inner, *base), name)
        return applied if power is None else Node("pow", (applied, power))
