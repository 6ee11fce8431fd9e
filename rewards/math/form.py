r"""The exact value of a scalar tree, as a quotient of two polynomials (`poly`), and whether two are the same.

Three answers: same, different, or None where the value has a part that this arithmetic cannot take apart (a sine, a
root of a sum, a power that would fill the memory). Roots and powers with symbols mean their real principal branch:
`x^{1/2}` is `\sqrt{x}`, while `\sqrt{x^2}` stays folded, being |x|.
"""

from __future__ import annotations

from fractions import Fraction
from math import comb, factorial
from typing import NamedTuple

from rewards.math import poly as polynomials
from rewards.math.poly import Budget, Poly, Rational, TooLarge, constant, letter, multiply, plain, rational_of
from rewards.math.text import NotUnderstood
from rewards.math.tree import Node

MAX_FACTORIAL = 300
MAX_ROOT = 60


class Quotient(NamedTuple):
    """`top / bottom`; not in lowest terms. The bottom is never zero."""

    top: Poly
    bottom: Poly


ONE = constant(1)


def same(left: Node, right: Node) -> bool | None:
    """Whether two scalars are equal, exactly; None where that is not decided here.

    Raises `TooLarge`, and `NotUnderstood` for a division by zero or a tree that is no scalar.
    """
    if left == right:
        return True
    difference = _difference(left, right, Budget())
    if not difference:
        return True
    return None if polynomials.opaque(difference) else False


def proportional(left: tuple[Node, Node], right: tuple[Node, Node]) -> bool | None:
    """Whether two equations a = b have the same difference of sides up to a rational factor that is not 0."""
    budget = Budget()
    first, second = (_difference_form(*sides, budget) for sides in (left, right))
    one, two = multiply(first.top, second.bottom, budget), multiply(second.top, first.bottom, budget)
    if polynomials.opaque(one) or polynomials.opaque(two):
        return None
    if not one or one.keys() != two.keys():
        return False
    return len({Fraction(one[monomial]) / Fraction(two[monomial]) for monomial in one}) == 1


def check(node: Node) -> None:
    """Raises what `same` would raise for this side alone, so that a bad answer is told from a bad truth."""
    form(node, Budget())


def rational(node: Node) -> Rational | None:
    """The value of a scalar that is a rational number, else None (also beyond the bounds)."""
    try:
        value = form(node, Budget())
    except (TooLarge, NotUnderstood):
        return None
    return _rational(value)


def _difference(left: Node, right: Node, budget: Budget) -> Poly:
    return _difference_form(left, right, budget).top


def _difference_form(left: Node, right: Node, budget: Budget) -> Quotient:
    return _plus(form(left, budget), form(right, budget), budget, -1)


def form(node: Node, budget: Budget) -> Quotient:
    """The value of a scalar tree."""
    match node.kind:
        case "number":
            return Quotient(constant(node.value), ONE)
        case "symbol":
            return Quotient(letter(node.text), ONE)
        case "neg":
            inner = form(node.items[0], budget)
            return Quotient({monomial: -c for monomial, c in inner.top.items()}, inner.bottom)
        case "mixed":
            whole, top, bottom = (item.value for item in node.items)
            return Quotient(constant(whole + top / bottom), ONE)
        case "factorial" | "binom":
            return _counted(node, budget)
        case "pow":
            return _power(node, budget)
        case "root":
            index, radicand = node.items
            return _root(form(radicand, budget), _whole(form(index, budget)), budget)
        case "call":
            return _call(node.text, [form(item, budget) for item in node.items], budget)
        case "add" | "mul" | "div":
            forms = [form(item, budget) for item in node.items]
            total = forms[0]
            for other in forms[1:]:
                if node.kind == "add":
                    total = _plus(total, other, budget)
                else:
                    total = _times(total, other if node.kind == "mul" else _inverse(other), budget)
            return total
    raise NotUnderstood("not_a_scalar")


def _plus(left: Quotient, right: Quotient, budget: Budget, sign: int = 1) -> Quotient:
    if left.bottom == right.bottom:
        return Quotient(polynomials.add(left.top, right.top, sign), left.bottom)
    top = polynomials.add(
        multiply(left.top, right.bottom, budget), multiply(right.top, left.bottom, budget), sign
    )
    return Quotient(top, multiply(left.bottom, right.bottom, budget))


def _times(left: Quotient, right: Quotient, budget: Budget) -> Quotient:
    return Quotient(multiply(left.top, right.top, budget), multiply(left.bottom, right.bottom, budget))


def _inverse(value: Quotient) -> Quotient:
    if not value.top:
        raise NotUnderstood("division_by_zero")
    return Quotient(value.bottom, value.top)


def _rational(value: Quotient) -> Rational | None:
    top, bottom = rational_of(value.top), rational_of(value.bottom)
    return None if top is None or not bottom else plain(Fraction(top) / Fraction(bottom))


def _whole(value: Quotient) -> int:
    whole = _rational(value)
    if not isinstance(whole, int):
        raise NotUnderstood("not_understood")
    return whole


def _key(value: Quotient) -> str:
    return f"{polynomials.key(value.top)}/{polynomials.key(value.bottom)}"


def _folded(name: str, *arguments: Quotient) -> Quotient:
    """A letter for a value that is not taken apart."""
    return Quotient(letter(f"?{name}({'|'.join(map(_key, arguments))})"), ONE)


def _power(node: Node, budget: Budget) -> Quotient:
    base, exponent = (form(item, budget) for item in node.items)
    value = _rational(exponent)
    if isinstance(value, int):
        return _whole_power(base, value, budget)
    if value is not None:
        return _fractional_power(base, value, budget)
    return _symbolic_power(base, exponent, budget)


def _whole_power(base: Quotient, exponent: int, budget: Budget) -> Quotient:
    if exponent < 0:
        base, exponent = _inverse(base), -exponent
    if exponent == 0 and not base.top:
        raise NotUnderstood("zero_to_the_zero")
    top, bottom = (polynomials.power(part, exponent, budget) for part in base)
    if top is None or bottom is None:
        return _folded("power", base, Quotient(constant(exponent), ONE))
    return Quotient(top, bottom)


def _root(base: Quotient, index: int, budget: Budget) -> Quotient:
    r"""The real root: `\sqrt[3]{-8}` is -2."""
    if not 2 <= index <= MAX_ROOT:
        raise NotUnderstood("not_understood")
    value = _rational(base)
    if value is not None and value < 0 and index % 2:
        root = _root(Quotient(constant(-value), ONE), index, budget)
        return Quotient({monomial: -c for monomial, c in root.top.items()}, root.bottom)
    return _fractional_power(base, Fraction(1, index), budget)


def _fractional_power(base: Quotient, exponent: Rational, budget: Budget) -> Quotient:
    """`base` to a rational exponent, where base is one product of positive numbers and at most one bare symbol."""
    if not base.top and exponent > 0:
        return base
    if exponent < 0:
        base, exponent = _inverse(base), -exponent
    exponent = Fraction(exponent)
    value = _rational(base)
    if value is not None and value < 0:
        if exponent.denominator != 2:
            return _folded("power", base, Quotient(constant(exponent), ONE))
        root = _fractional_power(Quotient(constant(-value), ONE), exponent, budget)
        turns, unit = polynomials.settle({"i": exponent.numerator % 4})
        return _times(root, Quotient({unit: turns}, ONE), budget)
    parts = [_monomial_power(part, exponent) for part in base]
    if parts[0] is None or parts[1] is None:
        return _folded("power", base, Quotient(constant(exponent), ONE))
    return Quotient(parts[0], parts[1])


def _monomial_power(poly: Poly, exponent: Fraction) -> Poly | None:
    if len(poly) != 1:
        return None
    ((monomial, coefficient),) = poly.items()
    unsure = [power for name, power in monomial if not _positive(name)]
    if coefficient < 0 or len(unsure) > 1 or any(power != 1 for power in unsure):
        return None
    exponents: dict[str, Rational] = {name: power * exponent for name, power in monomial}
    if any("?" in name or name in ("i", "oo") for name in exponents):
        return None
    for part, sign in ((coefficient.numerator, 1), (coefficient.denominator, -1)):
        factors = polynomials.factorise(part)
        if factors is None:
            return None
        for prime, count in factors.items():
            exponents[f"#{prime}"] = exponents.get(f"#{prime}", 0) + sign * count * exponent
    factor, raised = polynomials.settle(exponents)
    return {raised: factor}


def _positive(name: str) -> bool:
    return name[0] == "#" or name in ("pi", "e") or name.startswith(("exp(", "ln#"))


def _symbolic_power(base: Quotient, exponent: Quotient, budget: Budget) -> Quotient:
    """b to a polynomial in symbols, term by term: 2^{n+1} is 2·2^n. The base is e, a positive rational or a symbol."""
    value, bottom = _rational(base), rational_of(exponent.bottom)
    bases: dict[str, int] | None = None
    if value is not None and value > 0 and value != 1:
        over, under = (polynomials.factorise(part) for part in (value.numerator, value.denominator))
        if over is not None and under is not None:
            bases = {str(p): count for p, count in over.items()} | {str(p): -count for p, count in under.items()}
    elif base.bottom == ONE and len(base.top) == 1:
        ((monomial, coefficient),) = base.top.items()
        if coefficient == 1 and len(monomial) == 1 and monomial[0][1] == 1 and _can_be_base(monomial[0][0]):
            bases = {monomial[0][0]: 1}
    if bases is None or bottom is None or any(not _exponent_term(m) for m in exponent.top):
        return _folded("power", base, exponent)
    result = Quotient(ONE, ONE)
    for monomial, coefficient in exponent.top.items():
        share = Fraction(coefficient) / Fraction(bottom)
        if not monomial:
            step = _fractional_power(base, share, budget)
            if isinstance(plain(share), int):
                step = _whole_power(base, int(share), budget)
            result = _times(result, step, budget)
            continue
        for name, count in bases.items():
            raised = letter(f"exp({name}|{polynomials.key({monomial: 1})})", plain(abs(share * count)))
            step = Quotient(raised, ONE) if share * count > 0 else Quotient(ONE, raised)
            result = _times(result, step, budget)
    return result


def _can_be_base(name: str) -> bool:
    return name == "e" or not (_positive(name) or name in ("i", "oo") or name[0] == "?")


def _exponent_term(monomial: polynomials.Monomial) -> bool:
    """A rational number, or a term that holds a symbol and none of i, infinity, logarithms and folded parts: with those
    the same value has several forms (e^{x ln 2} is 2^x)."""
    names = [name for name, _ in monomial]
    if any(name in ("i", "oo") or "?" in name or name.startswith("ln#") for name in names):
        return False
    return not names or not all(_positive(name) for name in names)


def _counted(node: Node, budget: Budget) -> Quotient:
    """n! and binomials: of whole numbers by their definition, of anything else folded."""
    forms = [form(item, budget) for item in node.items]
    values = [value for value in map(_rational, forms) if isinstance(value, int)]
    if len(values) < len(forms):
        return _folded(node.kind, *forms)
    if any(not 0 <= value <= MAX_FACTORIAL for value in values):
        raise TooLarge("factorial")
    counted: int = comb(*values) if node.kind == "binom" else factorial(values[0])
    return Quotient(constant(counted), ONE)


def _call(name: str, arguments: list[Quotient], budget: Budget) -> Quotient:
    value = _rational(arguments[0])
    if name == "exp":
        return _symbolic_or_number(arguments[0], budget)
    if name == "abs" and value is not None:
        return Quotient(constant(value if value > 0 else -value), ONE)
    if name == "ln":
        return _logarithm(arguments[0]) or _folded(name, *arguments)
    if name == "log" and len(arguments) == 2:
        top, bottom = _logarithm(arguments[0]), _logarithm(arguments[1])
        if top is not None and bottom is not None:
            return _times(top, _inverse(bottom), budget)
    return _folded(name, *arguments)


def _symbolic_or_number(exponent: Quotient, budget: Budget) -> Quotient:
    value, base = _rational(exponent), Quotient(letter("e"), ONE)
    if value is None:
        return _symbolic_power(base, exponent, budget)
    return _whole_power(base, value, budget) if isinstance(value, int) else _fractional_power(base, value, budget)


def _logarithm(argument: Quotient) -> Quotient | None:
    """ln of a positive rational as a sum of ln of primes, of e as 1; None for everything else."""
    if argument == Quotient(letter("e"), ONE):
        return Quotient(ONE, ONE)
    value = _rational(argument)
    if value is None or value <= 0:
        return None
    total: Poly = {}
    for part, sign in ((value.numerator, 1), (value.denominator, -1)):
        factors = polynomials.factorise(part)
        if factors is None:
            return None
        for prime, count in factors.items():
            total = polynomials.add(total, {((f"ln#{prime}", 1),): sign * count})
    return Quotient(total, ONE)
