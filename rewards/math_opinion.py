"""Second opinions on two expressions, by sympy and by Math-Verify. Runs only inside the sandbox's trusted
child.

Importing this module imports both (about two seconds), which is why the child's zygote does it once.
"""

from __future__ import annotations

import sympy
from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

_CONFIGURATION = (LatexExtractionConfig(), ExprExtractionConfig())


def compare(answer: str, truth: str) -> dict[str, bool | None]:
    """`{"truth_parsed", "answer_parsed", "sympy", "math_verify"}`; an opinion is None where there is none."""
    # Their own time limits need SIGALRM in a main thread; the child's limits are the ones that hold.
    gold = parse(f"${truth}$", _CONFIGURATION, parsing_timeout=None)
    given = parse(f"${answer}$", _CONFIGURATION, parsing_timeout=None)
    opinions: dict[str, bool | None] = {
        "truth_parsed": bool(gold),
        "answer_parsed": bool(given),
        "sympy": None,
        "math_verify": None,
    }
    if gold and given:
        opinions["sympy"] = _same(gold[0], given[0])
        opinions["math_verify"] = bool(verify(gold, given, timeout_seconds=None))
    return opinions


def _same(gold: object, given: object) -> bool | None:
    """Equal as expressions, exactly; None where sympy cannot decide or the objects are no expressions."""
    if not (isinstance(gold, sympy.Expr) and isinstance(given, sympy.Expr)):
        return None
    if gold.free_symbols != given.free_symbols and not (gold.free_symbols & given.free_symbols):
        return False if gold.free_symbols or given.free_symbols else None
    if gold.has(sympy.Float) != given.has(sympy.Float):
        # A rounded decimal is not the number it rounds.
        return False
    same: bool | None = gold.equals(given)
    return same


# First uses build the grammar's tables and load half of sympy (150 ms or more). Done at import, in the
# zygote, they are inherited by each child.
for _answer, _truth in (
    (r"(x+1)^2", r"x^2+2x+1"),
    (r"y+1", r"x+1"),
    (r"word", r"x+1"),
    (r"\frac{2}{\sqrt{2}}", r"\sqrt{2}"),
    (r"1.41", r"2\pi"),
    (r"\sin(x)+\log_{2} 3", r"e^{-x}"),
    (r"(x, 1)", r"[0, 1)"),
):
    compare(_answer, _truth)
