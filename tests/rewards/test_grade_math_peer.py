"""The exact stage beside Math-Verify, an independent implementation, on generated pairs and on the table of its wrong
verdicts."""

import random
from fractions import Fraction

import pytest
from math_verify import parse, verify

from rewards.extract import FormatError, Thinking, boxed_answer, split_thinking
from rewards.math.grade import grade_math


def by_math_verify(answer: str, truth: str) -> bool:
    return bool(verify(parse(f"${truth}$"), parse(f"${answer}$")))


def rational(rng: random.Random) -> Fraction:
    return Fraction(rng.randint(-99, 99), rng.choice([1, 2, 3, 4, 5, 7, 8, 9, 12]))


def fraction(value: Fraction) -> str:
    sign = "-" if value < 0 else ""
    return str(value) if value.denominator == 1 else rf"{sign}\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"


def of_rationals(rng: random.Random) -> tuple[str, str]:
    value = rational(rng)
    other = value if rng.random() < 0.5 else rational(rng)
    return rng.choice([fraction(other), str(other)]), rng.choice([fraction(value), str(value)])


def of_polynomials(rng: random.Random) -> tuple[str, str]:
    coefficients = [rng.randint(1, 9) for _ in range(3)]
    terms = [f"{c}x^{power}" for power, c in enumerate(coefficients, 1)]
    rng.shuffle(terms)
    other = coefficients if rng.random() < 0.5 else [*coefficients[:2], coefficients[2] + 1]
    a, b, c = other
    halved = rf"\frac{{{2 * a}x+{2 * b}x^2+{2 * c}x^3}}{{2}}"
    return "+".join(terms), rng.choice([f"{a}x+{b}x^2+{c}x^3", f"x({a}+{b}x+{c}x^2)", halved])


def of_products(rng: random.Random) -> tuple[str, str]:
    a, b = rng.randint(1, 9), rng.randint(1, 9)
    total = a + b if rng.random() < 0.5 else a + b + 1
    return f"(x+{a})(x+{b})", f"x^2+{total}x+{a * b}"


def of_surds(rng: random.Random) -> tuple[str, str]:
    outside, inside = rng.randint(2, 9), rng.choice([2, 3, 5, 6, 7, 10])
    moved = outside**2 * inside + (0 if rng.random() < 0.5 else rng.randint(1, 5))
    return rf"\sqrt{{{moved}}}", rf"{outside}\sqrt{{{inside}}}"


def of_constants(rng: random.Random) -> tuple[str, str]:
    value = rational(rng) or Fraction(1)
    other = value if rng.random() < 0.5 else value + 1
    name = rng.choice([r"\pi", r"\sqrt{3}", "e"])
    return f"{fraction(other)}{name}", rf"{fraction(value)} \cdot {name}"


def of_complex(rng: random.Random) -> tuple[str, str]:
    a, b = rng.randint(1, 9), rng.randint(2, 9)
    return f"{b}i+{a}", f"{a}+{b if rng.random() < 0.5 else b + 1}i"


def of_tuples(rng: random.Random) -> tuple[str, str]:
    values = [rational(rng) for _ in range(3)]
    other = values if rng.random() < 0.5 else values[::-1]
    return f"({', '.join(map(fraction, other))})", f"({','.join(map(fraction, values))})"


def of_sets(rng: random.Random) -> tuple[str, str]:
    values = rng.sample(range(-20, 20), 3)
    other = values[::-1] if rng.random() < 0.5 else [*values[:2], 33]
    return rf"\{{{', '.join(map(str, other))}\}}", rf"\{{{','.join(map(str, values))}\}}"


def of_intervals(rng: random.Random) -> tuple[str, str]:
    a, b = rng.randint(-9, 0), rng.randint(1, 9)
    opening, other = rng.choice("(["), rng.choice("([")
    return f"{other}{a}, {b})", f"{opening}{a},{b})"


FAMILIES = [
    of_rationals, of_polynomials, of_products, of_surds, of_constants, of_complex, of_tuples, of_sets, of_intervals,
]  # fmt: skip


def test_both_agree_on_generated_pairs():
    rng = random.Random(4)
    pairs = [family(rng) for _ in range(30) for family in FAMILIES]
    verdicts = [grade_math(answer, truth, None).correct for answer, truth in pairs]
    apart = [
        (answer, truth, ours)
        for (answer, truth), ours in zip(pairs, verdicts, strict=True)
        if ours != by_math_verify(answer, truth)
    ]
    assert not apart
    assert 80 < verdicts.count(True) < 190 and verdicts.count(None) == 0


@pytest.mark.parametrize(
    ("answer", "truth", "ours"),
    [
        # It accepts what nobody has worked out, the last of a chain, and any symbol.
        (r"\sum_{i=1}^{100} i", "5050", False), (r"\int_0^1 x dx", r"\frac{1}{2}", False),
        (r"\binom{10}{5}", "252", False),
        ("3+4", "7", False), ("14/2", "7", False), ("5!", "120", False), ("2^3", "8", False),
        (r"\sqrt{49}", "7", False),
        ("x=5=6=7", "7", False), ("q=7", "7", False), ("101_2", "101", False), ("1,2", "(1,2)", False),
        # It rounds to six decimals.
        ("0.0000002", "0.0000001", False), ("0.333333", r"\frac{1}{3}", False), ("1.414214", r"\sqrt{2}", False),
        # To it a percentage is both of its readings. Here it is a hundredth: 50 % is 0.5 and is not 50.
        (r"50\%", "50", False), ("50", r"50\%", False),
        # Notations that it does not read.
        ("1 3/4", "7/4", True), ("１２", "12", True),
    ],
)  # fmt: skip
def test_the_listed_exceptions(answer, truth, ours):
    """Each of them is decided otherwise by Math-Verify 0.9, and on purpose."""
    assert grade_math(answer, truth, None).correct is ours
    assert by_math_verify(answer, truth) is not ours


@pytest.mark.parametrize(
    ("completion", "mode", "truth", "expected"),
    [
        ("I have no idea, 7", "direct", "7", "no_answer"),
        (r"\boxed{3}</think> I do not know", "thinking", "3", "no_answer"),
        (" ".join(rf"\boxed{{{n}}}" for n in range(10)), "direct", "7", "several_answers"),
        (r"\boxed{\{0,1,2,3,4,5,6,7,8,9\}}", "direct", "7", "different"),
        (r"\boxed{5 or 6 or 7}", "direct", "7", "several_answers"),
        # An answer is a box in these rules, in every language.
        ("答案是：12", "direct", "12", "no_answer"),
        (r"答案是：\boxed{12}。", "direct", "12", "same_text"),
        (r"\boxed{１２}", "direct", "12", "same_text"),
        (r"It costs \boxed{\$5}.", "direct", "5", "equal"),
        (r"\boxed{12:30}", "direct", "12:30", "same_text"),
        (r"\boxed{1 3/4}", "direct", "7/4", "equal"),
        (r"\boxed{A}", "direct", "A", "same_text"),
        (r"\boxed{50\%}", "direct", "0.5", "equal"),
        (r"so</think>\boxed{50}", "thinking", r"50\%", "different"),
    ],
)
def test_whole_completions(completion, mode, truth, expected):
    parts = split_thinking(completion, mode)
    assert isinstance(parts, Thinking)
    answer = boxed_answer(parts.answer_text)
    reason = answer.name if isinstance(answer, FormatError) else grade_math(answer, truth, None).reason
    assert reason == expected
