"""A cheap proof of difference: two scalars evaluated in floating point at a few positive values of their symbols.

Only *different* is ever concluded, and only from a gap far above what rounding can make. It keeps wrong answers that
the exact stage cannot take apart away from sympy, which may think about them until its time limit (and a time-out
would excuse the answer).
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable, Mapping

from rewards.math.compare import CONSTANT_NAMES, symbols
from rewards.math.tree import Node

GAP = 1e-6
MAX_CANCELLATION = 1e7
"""Largest intermediate value over the result: beyond it, 16 digits leave too few."""
_POINTS = ((0.37, 0.0911), (0.83, 0.1303), (1.19, 0.0577))
_CONSTANTS = {"pi": math.pi, "e": math.e, "i": 1j}
_FUNCTIONS: Mapping[str, Callable[[complex], complex]] = {
    "sin": cmath.sin, "cos": cmath.cos, "tan": cmath.tan, "sinh": cmath.sinh, "cosh": cmath.cosh, "tanh": cmath.tanh,
    "arcsin": cmath.asin, "arccos": cmath.acos, "arctan": cmath.atan, "ln": cmath.log, "exp": cmath.exp, "abs": abs,
    "cot": lambda z: 1 / cmath.tan(z), "sec": lambda z: 1 / cmath.cos(z), "csc": lambda z: 1 / cmath.sin(z),
}  # fmt: skip


class _Unclear(ArithmeticError):
    """A value that floating point does not give."""


def differ(left: Node, right: Node) -> bool:
    """Whether the two differ clearly at every point tried. Symbols stand for positive numbers."""
    names = sorted(symbols(left) | symbols(right))
    try:
        for start, step in _POINTS:
            point = {name: start + step * n for n, name in enumerate(names)}
            one, two = _evaluate(left, point), _evaluate(right, point)
            if abs(one - two) <= GAP * max(1.0, abs(one), abs(two)):
                return False
    except (ArithmeticError, ValueError):
        return False
    return True


def _evaluate(node: Node, point: Mapping[str, float]) -> complex:
    largest = [1.0]
    value = _value(node, point, largest)
    if not cmath.isfinite(value) or largest[0] > MAX_CANCELLATION * max(1.0, abs(value)):
        raise _Unclear
    return value


def _value(node: Node, point: Mapping[str, float], largest: list[float]) -> complex:
    """The value; `largest[0]` grows to the largest magnitude met."""
    items = [_value(item, point, largest) for item in node.items]
    value = _applied(node, items, point)
    largest[0] = max(largest[0], abs(value))
    return value


def _applied(node: Node, items: list[complex], point: Mapping[str, float]) -> complex:
    match node.kind:
        case "number":
            return float(node.value)
        case "symbol" if node.text in CONSTANT_NAMES:
            if node.text not in _CONSTANTS:
                raise _Unclear
            return _CONSTANTS[node.text]
        case "symbol":
            return point[node.text]
        case "neg":
            return -items[0]
        case "add":
            return sum(items)
        case "mul":
            return math.prod(items, start=complex(1))
        case "div":
            return items[0] / items[1]
        case "pow":
            return complex(items[0]) ** items[1]
        case "root":
            index, inner = items[0].real, complex(items[1])
            if index % 2 and inner.imag == 0 and inner.real < 0:
                return -((-inner) ** (1 / index))
            return inner ** (1 / index)
        case "mixed":
            return items[0] + items[1] / items[2]
        case "call" if node.text in _FUNCTIONS and len(items) == 1:
            return _FUNCTIONS[node.text](items[0])
        case "call" if node.text == "log" and len(items) == 2:
            return cmath.log(items[0]) / cmath.log(items[1])
    raise _Unclear
