"""Properties of the mathematics grader over generated values, spellings and junk."""

import time
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.math.answer import operators, read
from rewards.math.compare import check_scalars
from rewards.math.grade import grade_math
from rewards.math.poly import TooLarge
from rewards.math.text import NotUnderstood, clean

EXAMPLES = settings(max_examples=120, derandomize=True, deadline=None)
rationals = st.fractions(min_value=-10_000, max_value=10_000, max_denominator=999)
small = st.integers(min_value=-9, max_value=9)


def spellings(value: Fraction) -> list[str]:
    """Many ways to write one number, each of them a finished answer."""
    top, bottom, sign = abs(value.numerator), value.denominator, "-" if value < 0 else ""
    if bottom == 1:
        written = [f"{top}", f"{top:,}", f"{top}.0", f"${sign}{top}$"[len(sign) + 1 : -1], f"0{top}", f"{top}."]
        full_width = "".join(chr(ord(digit) + 0xFEE0) for digit in str(top))
        written += [full_width, rf"{100 * top}\%"]
    else:
        written = [f"{top}/{bottom}", rf"\frac{{{top}}}{{{bottom}}}", rf"\dfrac{{ {top} }}{{ {bottom} }}"]
        whole, rest = divmod(top, bottom)
        if whole:
            written += [f"{whole} {rest}/{bottom}", rf"{whole}\frac{{{rest}}}{{{bottom}}}"]
        if 10**6 % bottom == 0:
            written += [f"{Fraction(top, bottom).numerator * 10**6 // bottom / 10**6:.6f}"]
    return [sign + text for text in written] + [rf"$ {sign}{written[0]} $", rf"\({sign}{written[0]}\)"]


@EXAMPLES
@given(rationals)
def test_every_spelling_of_a_number_is_paid_and_of_another_is_not(value):
    for spelling in spellings(value):
        for truth in (str(value), rf"\frac{{{value.numerator}}}{{{value.denominator}}}"):
            assert grade_math(spelling, truth, None).correct is True, (spelling, truth)
        assert grade_math(spelling, str(value + 1), None).correct is False
        assert grade_math(spelling, str(value + Fraction(1, 10**9)), None).correct is False


@EXAMPLES
@given(st.lists(small, min_size=2, max_size=4), st.integers(2, 5), st.sampled_from("xyt"), st.data())
def test_a_polynomial_in_many_notations(coefficients, factor, name, data):
    def term(coefficient: int, power: int) -> str:
        sign = "-" if coefficient < 0 else "+"
        shape = data.draw(st.sampled_from(["{0}{1}^{2}", "{0}{1}^{{{2}}}", "{0}*{1}**{2}", r"{0}\cdot {1}^{2}"]))
        return sign + shape.format(abs(coefficient), name, power)

    terms = [term(c, power) for power, c in enumerate(coefficients)]
    truth = "0" + "".join(terms)
    shuffled = "".join(data.draw(st.permutations(terms))).lstrip("+")
    scaled = rf"\frac{{{factor}({shuffled})}}{{{factor}}}"
    other = [*coefficients[:-1], coefficients[-1] + 1]
    wrong = "".join(f"{'-' if c < 0 else '+'}{abs(c)}{name}^{power}" for power, c in enumerate(other)).lstrip("+")
    for answer in (shuffled, scaled, f"({shuffled})^1"):
        assert grade_math(answer, truth, None).correct is True, (answer, truth)
    assert grade_math(wrong, truth, None).correct is False
    assert grade_math(shuffled.replace(name, "z"), f"{truth}+{name}", None).correct is False


@EXAMPLES
@given(st.integers(1, 30), st.integers(2, 40), st.integers(2, 4))
def test_surds(outside, inside, index):
    truth = rf"{outside}\sqrt[{index}]{{{inside}}}+x"
    moved = rf"x+\sqrt[{index}]{{{outside**index * inside}}}"
    assert grade_math(moved, truth, None).correct is True
    assert grade_math(rf"x+\sqrt[{index}]{{{outside**index * inside + 1}}}", truth, None).correct is False
    assert grade_math(f"x+{outside * inside ** (1 / index):.12f}", truth, None).correct is (
        round(inside ** (1 / index)) ** index == inside
    )


@EXAMPLES
@given(st.lists(rationals, min_size=2, max_size=4, unique=True), st.randoms(use_true_random=False))
def test_tuples_keep_their_order_and_sets_do_not(values, random):
    shuffled = values[:]
    random.shuffle(shuffled)
    written = ["(" + ", ".join(spellings(v)[0] for v in order) + ")" for order in (values, shuffled)]
    truth = "(" + ",".join(map(str, values)) + ")"
    assert grade_math(written[0], truth, None).correct is True
    assert grade_math(written[1], truth, None).correct is (values == shuffled)
    as_set = [r"\{" + text[1:-1] + r"\}" for text in written]
    assert grade_math(as_set[1], as_set[0], None).correct is True
    other = r"\{" + ",".join(map(str, [*values[1:], max(values) + 1])) + r"\}"
    assert grade_math(as_set[1], other, None).correct is False


@EXAMPLES
@given(st.integers(1, 99), st.integers(1, 99), st.sampled_from(["+", "-", r"\cdot ", r"\times ", "*", "/", "^"]))
def test_arithmetic_that_nobody_did_is_never_paid(a, b, operator):
    value = {"+": a + b, "-": a - b, "/": Fraction(a, b), "^": a ** min(b, 20)}.get(operator, a * b)
    b = min(b, 20) if operator == "^" else b
    written = f"{a}{operator}{{{b}}}" if operator == "^" else f"{a}{operator}{b}"
    verdict = grade_math(written, str(value), None)
    reduced = operator == "/" and b > 1 and Fraction(a, b).denominator == b
    assert verdict.correct is reduced


ALPHABET = r"0123456789+-*/^_=<>!%&|;:.,'()[]{}\$ xyenπ√²½°７①٣"
WORDS = [
    r"\frac", r"\sqrt", r"\sum", r"\begin{pmatrix}", r"\end{pmatrix}", r"\text{", r"\left", r"\right", r"\pm", r"\cup",
    r"\infty", "sin", r"\log_", "^{", "}", "{", "(", ")", r"\\", "&", "1,000", "x", "2", r"\in", "or", r"\%", r"^\circ",
    r"\overline{", r"\binom", "!", "$", "e", "i", "|", "12:30", "cm", r"\mathrm{",
]  # fmt: skip
junk = st.text(alphabet=ALPHABET, max_size=120) | st.lists(st.sampled_from(WORDS), max_size=40).map("".join) | st.text()


@settings(max_examples=600, derandomize=True, deadline=None)
@given(junk)
def test_no_text_raises_anything_but_its_error(text):
    for reader in (read, operators):
        try:
            tree = reader(text)
            if reader is read:
                check_scalars(tree)
        except (NotUnderstood, TooLarge):
            pass
    assert clean(clean(text)) is not None
    for answer, truth in ((text, "7"), (text, "x+1"), ("7", text), (text, text + " ")):
        verdict = grade_math(answer, truth, None)
        assert verdict.correct in (True, False, None) and verdict.reason


LIMIT_S = 5.0
"""Ten times what the worst takes on an idle machine without tracing: no speed is measured here, only that nothing
explodes."""


def cpu_seconds(answer: str, truth: str) -> float:
    started = time.thread_time()
    grade_math(answer, truth, None)
    return time.thread_time() - started


@settings(max_examples=40, derandomize=True, deadline=None)
@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map("".join), st.integers(1, 10_000))
def test_no_text_takes_long(piece, length):
    text = (piece * length)[:length]
    for answer, truth in ((text, "7"), (text[:200], r"x+\sqrt{2}"), ("x+1", text[:2000])):
        assert cpu_seconds(answer, truth) < LIMIT_S, (answer, truth)


def test_the_worst_that_was_thought_of_takes_no_longer():
    worst = [
        "(a+b+c+d)^{40}", "(a+b)^{40}(c+d)^{40}(f+g)^{40}", "((a+b)^{9}+c)^{9}",
        r"\sqrt{999999999989}x",
        r"\frac{1}{a}+\frac{1}{b}+\frac{1}{c}+\frac{1}{d}+\frac{1}{f}+\frac{1}{g}+\frac{1}{h}+\frac{1}{j}", "300!+x",
        r"\{" + ",".join(f"x+{n}" for n in range(40)) + r"\}", r"\binom{300}{150}^{300}",
        "9^{999}x", "x" * 3 + "^x" * 9,
        r"\sqrt{2}\sqrt{3}\sqrt{5}\sqrt{7}(1+\sqrt{2}+\sqrt{3}+\sqrt{5}+\sqrt{7}+\sqrt{11})^{20}",
    ]  # fmt: skip
    for text in worst:
        for answer, truth in ((text, "x+1"), (text, text + "+1"), ("x+1", text)):
            assert cpu_seconds(answer, truth) < LIMIT_S, (answer, truth)
