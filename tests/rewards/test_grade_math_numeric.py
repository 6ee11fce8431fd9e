"""The exact stage, and the proof of difference by floats, against numerics with 50 digits on random expressions."""

import random

import mpmath
import pytest

from rewards.math.answer import read
from rewards.math.form import check, same
from rewards.math.numeric import differ
from rewards.math.poly import TooLarge
from rewards.math.text import NotUnderstood
from rewards.math.tree import Node

LEAVES = ["2", "3", "5", "6", "8", "12", "1/2", "0.5", "x", "y", "n", r"\pi", "e", "i", "4", "9"]
BASES = ["2", "3", "e", "x", "4", "1/2", "6"]
EXPONENTS = ["2/3", "-1/2", "3", "n", "x", "0.5"]
SHAPES = [
    "({a})+({b})", "({a})-({b})", "({a})({b})", r"\frac{{{a}}}{{{b}}}", r"\sqrt{{{a}}}", r"\sqrt[3]{{{a}}}", "({a})^2",
    "({a})^{{-1}}", "({a})^{{1/2}}", "({base})^{{{b}}}", "({a})^{{{exponent}}}", r"\ln({number})",
]  # fmt: skip
REWRITTEN = [
    "{a}+0", r"\frac{{2({a})}}{{2}}", r"\sqrt{{({a})^2}}", r"\frac{{({a})\sqrt{{6}}}}{{\sqrt{{2}}\sqrt{{3}}}}",
    "(({a})^{{1/2}})^2", "({a})(1+x)/(x+1)", "({a})+1",
]  # fmt: skip


def expression(rng: random.Random, depth: int) -> str:
    if depth == 0 or rng.random() < 0.2:
        return rng.choice(LEAVES)
    return rng.choice(SHAPES).format(
        a=expression(rng, depth - 1), b=expression(rng, depth - 1), base=rng.choice(BASES),
        exponent=rng.choice(EXPONENTS), number=rng.choice(["2", "6", "8", "1/3", "e"]),
    )  # fmt: skip


def value(node: Node, names: dict) -> mpmath.mpc:
    if node.kind == "number":
        return mpmath.mpf(node.value.numerator) / node.value.denominator
    if node.kind == "symbol":
        return names[node.text]
    items = [value(item, names) for item in node.items]
    if node.kind == "root":
        odd_of_negative = int(items[0]) % 2 and mpmath.im(items[1]) == 0 and mpmath.re(items[1]) < 0
        return -mpmath.power(-items[1], 1 / items[0]) if odd_of_negative else mpmath.power(items[1], 1 / items[0])
    return {
        "neg": lambda a: -a, "add": lambda *terms: mpmath.fsum(terms), "mul": lambda *factors: mpmath.fprod(factors),
        "div": lambda a, b: a / b, "pow": mpmath.power, "call": mpmath.log,
    }[node.kind](*items)  # fmt: skip


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_decisions_agree_with_numerics(seed):
    rng = random.Random(seed)
    decided = {True: 0, False: 0}
    with mpmath.workdps(50):
        for _ in range(400):
            first = expression(rng, rng.randint(1, 3))
            second = rng.choice(REWRITTEN).format(a=first) if rng.random() < 0.7 else expression(rng, 2)
            try:
                trees = read(first), read(second)
                for tree in trees:
                    check(tree)
                verdict = same(*trees)
                if verdict is None and differ(*trees):
                    verdict = False
                if verdict is None:
                    continue
                gaps = []
                for _ in range(3):
                    names = {name: mpmath.mpf(rng.randint(100, 500)) / 97 for name in "xyn"}
                    names |= {"pi": mpmath.pi, "e": mpmath.e, "i": mpmath.mpc(0, 1)}
                    one, two = (value(tree, names) for tree in trees)
                    gaps.append(abs(one - two) / (1 + abs(one)))
            except (NotUnderstood, TooLarge, OverflowError, ZeroDivisionError):
                continue
            decided[verdict] += 1
            assert all(gap < 1e-30 for gap in gaps) is verdict, (first, second, gaps)
    assert min(decided.values()) > 40
