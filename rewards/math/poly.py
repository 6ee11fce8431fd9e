r"""Exact arithmetic on quotients of polynomials whose letters are symbols, radicals, i, π, e and ln of primes.

A polynomial maps monomials to rational coefficients; a monomial is a sorted tuple of (letter, exponent). The letters:
`#p` for a prime p, with an exponent in (0, 1), so that `#2` to the 1/3 is the cube root of 2; `i` with i² = -1; `pi`,
`e`, `ln#p`; a symbol's own name; `exp(b|m)` for b to a power with symbols in it; and `?...` for what this arithmetic
cannot take apart. Real radicals of distinct primes are linearly independent over the rationals (Besicovitch, "On the
linear independence of fractional powers of integers", 1940), hence two polynomials without a `?` letter are the same
number or function exactly if they are the same dictionary. For π, e and logarithms of primes together that independence
is assumed, as no relation between them is known.

Work is bounded: `TooLarge` is raised instead of a long computation.
"""

from __future__ import annotations

from fractions import Fraction
from math import comb, floor

Rational = int | Fraction
Monomial = tuple[tuple[str, Rational], ...]
Poly = dict[Monomial, Rational]

MAX_PRODUCTS = 3000
"""Term products in one comparison; 3 to 20 microseconds each."""
MAX_BITS = 4096
MAX_EXPANSION = 1500
"""Term products of one power that is expanded; a longer one stays folded."""
MAX_POWER = 1000
MAX_TRIAL_DIVISOR = 2000


class TooLarge(ValueError):
    """A number, power or expansion beyond the bounds."""


class Budget:
    """Counts term products of one comparison."""

    def __init__(self, products: int = MAX_PRODUCTS) -> None:
        self.left = products

    def spend(self, products: int) -> None:
        self.left -= products
        if self.left < 0:
            raise TooLarge("expansion")


def plain(value: Rational) -> Rational:
    """An int where the value is whole: ints are many times faster than Fractions."""
    return value.numerator if isinstance(value, Fraction) and value.denominator == 1 else value


def constant(value: Rational) -> Poly:
    return {(): plain(value)} if value else {}


def letter(name: str, exponent: Rational = 1) -> Poly:
    return {((name, exponent),): 1}


def rational_of(poly: Poly) -> Rational | None:
    """The value of a polynomial that is a rational number, else None."""
    if not poly:
        return 0
    return poly[()] if len(poly) == 1 and () in poly else None


def add(left: Poly, right: Poly, sign: int = 1) -> Poly:
    total = dict(left)
    for monomial, coefficient in right.items():
        value = total.get(monomial, 0) + sign * coefficient
        if value:
            total[monomial] = plain(value)
        else:
            total.pop(monomial, None)
    return total


def multiply(left: Poly, right: Poly, budget: Budget) -> Poly:
    budget.spend(len(left) * len(right))
    total: Poly = {}
    for first, a in left.items():
        for second, b in right.items():
            factor, monomial = join(first, second) if first and second else (1, first or second)
            value = total.get(monomial, 0) + a * b * factor
            bounded(value)
            if value:
                total[monomial] = plain(value)
            else:
                total.pop(monomial, None)
    return total


def join(first: Monomial, second: Monomial) -> tuple[Rational, Monomial]:
    """The product of two monomials as a rational factor and a monomial."""
    exponents = dict(first)
    for name, exponent in second:
        exponents[name] = exponents.get(name, 0) + exponent
    return settle(exponents)


def settle(exponents: dict[str, Rational]) -> tuple[Rational, Monomial]:
    """Whole powers of primes and of i taken out of the exponents; every other letter keeps its exponent."""
    factor: Rational = 1
    kept: dict[str, Rational] = {}
    for name, exponent in exponents.items():
        if name[0] == "#":
            whole = floor(exponent)
            factor = factor * prime_power(int(name[1:]), whole)
            exponent = exponent - whole
        elif name == "i":
            turns = int(exponent) % 4
            factor, exponent = (-factor if turns >= 2 else factor), turns % 2
        if exponent:
            kept[name] = plain(exponent)
    return plain(factor), tuple(sorted(kept.items()))


def prime_power(base: int, exponent: int) -> Rational:
    if base.bit_length() * abs(exponent) > MAX_BITS:
        raise TooLarge("power")
    return Fraction(base) ** exponent if exponent < 0 else base**exponent


def bounded(value: Rational) -> None:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise TooLarge("number")


def power(poly: Poly, exponent: int, budget: Budget) -> Poly | None:
    """`poly` to a whole exponent >= 0; None where expanding it would be too long (the caller keeps it folded)."""
    if exponent > MAX_POWER and rational_of(poly) is None:
        raise TooLarge("power")
    if len(poly) == 1:
        ((monomial, coefficient),) = poly.items()
        bits = max(coefficient.numerator.bit_length(), coefficient.denominator.bit_length())
        if abs(coefficient) != 1 and bits * exponent > MAX_BITS:
            raise TooLarge("power")
        factor, raised = settle({name: e * exponent for name, e in monomial})
        return {raised: plain(coefficient**exponent * factor)}
    if poly and exponent * comb(exponent + len(poly) - 1, exponent) > MAX_EXPANSION:
        return None
    result = constant(1)
    for _ in range(exponent):
        result = multiply(result, poly, budget)
    return result


def factorise(value: int) -> dict[int, int] | None:
    """The prime factors of a positive number, or None where trial division up to 2000 does not finish."""
    factors: dict[int, int] = {}
    divisor = 2
    while divisor * divisor <= value and divisor <= MAX_TRIAL_DIVISOR:
        while value % divisor == 0:
            factors[divisor] = factors.get(divisor, 0) + 1
            value //= divisor
        divisor += 1 if divisor == 2 else 2
    if divisor * divisor <= value:
        return None
    if value > 1:
        factors[value] = factors.get(value, 0) + 1
    return factors


def opaque(poly: Poly) -> bool:
    """Whether a letter stands for something not taken apart: then a difference proves nothing."""
    return any("?" in name for monomial in poly for name, _ in monomial)


def key(poly: Poly) -> str:
    """A text that two equal polynomials share."""
    return "+".join(
        f"{coefficient}" + "".join(f"*{name}^{exponent}" for name, exponent in monomial)
        for monomial, coefficient in sorted(poly.items(), key=repr)
    )
