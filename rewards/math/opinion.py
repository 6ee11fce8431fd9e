"""Further opinions on two answers, by sympy and by Math-Verify. Runs only inside the sandbox's trusted child.

sympy gets the trees that our own parser has read, built with its constructors: no string of the answer reaches one of
its parsers. Math-Verify reads the texts by itself, as an independent implementation. Importing this module imports both
(about two seconds), which is why the child's zygote does it once.
"""

from __future__ import annotations

import sympy
from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

from rewards.math.answer import read
from rewards.math.compare import compare
from rewards.math.form import same
from rewards.math.poly import TooLarge
from rewards.math.text import NotUnderstood
from rewards.math.tree import Node

_CONFIGURATION = (LatexExtractionConfig(), ExprExtractionConfig())
_CONSTANTS = {"pi": sympy.pi, "e": sympy.E, "i": sympy.I, "oo": sympy.oo}
_FUNCTIONS = {
    "sin": sympy.sin, "cos": sympy.cos, "tan": sympy.tan, "cot": sympy.cot, "sec": sympy.sec, "csc": sympy.csc,
    "sinh": sympy.sinh, "cosh": sympy.cosh, "tanh": sympy.tanh, "arcsin": sympy.asin, "arccos": sympy.acos,
    "arctan": sympy.atan, "log": sympy.log, "ln": sympy.log, "exp": sympy.exp, "abs": sympy.Abs,
    "floor": sympy.floor, "ceil": sympy.ceiling,
}  # fmt: skip


def compare_texts(answer: str, truth: str) -> dict[str, bool | None]:
    """`{"truth_parsed", "answer_parsed", "sympy", "math_verify"}`; an opinion is None where there is none."""
    # Their own time limits need SIGALRM in a main thread; the child's limits are the ones that hold.
    gold = parse(f"${truth}$", _CONFIGURATION, parsing_timeout=None)
    given = parse(f"${answer}$", _CONFIGURATION, parsing_timeout=None)
    verified = bool(verify(gold, given, timeout_seconds=None)) if gold and given else None
    try:
        exact = compare(read(truth), read(answer), _same_by_sympy)
    except (NotUnderstood, TooLarge):
        exact = _same_as_parsed(gold[0], given[0]) if gold and given else None
    return {
        "truth_parsed": bool(gold) or exact is not None,
        "answer_parsed": bool(given) or exact is not None,
        "sympy": exact,
        "math_verify": verified,
    }


def _same_by_sympy(gold: Node, given: Node) -> bool | None:
    """Where the exact comparison is open: what sympy can prove."""
    exact = same(gold, given)
    if exact is not None:
        return exact
    return _equals(_built(gold), _built(given))


def _built(node: Node) -> sympy.Expr:
    """The sympy expression of a scalar tree. Symbols are real."""
    if node.kind == "number":
        return sympy.Rational(node.value.numerator, node.value.denominator)
    if node.kind == "symbol":
        return _CONSTANTS[node.text] if node.text in _CONSTANTS else sympy.Symbol(node.text, real=True)
    items = [_built(item) for item in node.items]
    match node.kind:
        case "neg":
            return -items[0]
        case "add":
            return sympy.Add(*items)
        case "mul":
            return sympy.Mul(*items)
        case "div":
            return items[0] / items[1]
        case "pow":
            return sympy.Pow(*items)
        case "root":
            return sympy.real_root(items[1], items[0]) if items[0] % 2 else sympy.root(items[1], items[0])
        case "mixed":
            return items[0] + items[1] / items[2]
        case "factorial":
            return sympy.factorial(items[0])
        case "binom":
            return sympy.binomial(*items)
        case _:
            return _FUNCTIONS[node.text](*items)


def _same_as_parsed(gold: object, given: object) -> bool | None:
    """For a text outside our grammar, on what Math-Verify parsed: equal as expressions, exactly."""
    if not (isinstance(gold, sympy.Expr) and isinstance(given, sympy.Expr)):
        return None
    if gold.has(sympy.Float) != given.has(sympy.Float):
        # A rounded decimal is not the number it rounds.
        return False
    return _equals(gold, given)


def _equals(gold: sympy.Expr, given: sympy.Expr) -> bool | None:
    if gold.free_symbols != given.free_symbols and not (gold.free_symbols & given.free_symbols):
        return False if gold.free_symbols or given.free_symbols else None
    equal: bool | None = gold.equals(given)
    return equal


# First uses build the grammar's tables and load half of sympy (150 ms or more). Done at import, in the
# zygote, they are inherited by each child.
for _answer, _truth in (
    (r"(x+1)^2", r"x^2+2x+1"),
    (r"y+1", r"x+1"),
    (r"word", r"x+1"),
    (r"\sqrt{3+2\sqrt{2}}", r"1+\sqrt{2}"),
    (r"1.41", r"2\pi"),
    (r"\sin(x)+\log_{2} 3", r"e^{-x}"),
    (r"2\sin(x)\cos(x)", r"\sin(2x)"),
    (r"(x, 1)", r"[0, 1)"),
):
    compare_texts(_answer, _truth)
