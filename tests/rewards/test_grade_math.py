import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards import math as grading
from rewards.math import grade_math
from rewards.math_literal import NotLiteral, parse_literal
from rewards.sandbox import JobResult


@pytest.mark.parametrize(
    ("answer", "truth"),
    [
        ("5050", "5050"), (r"\frac{1}{2}", "0.5"), ("1/2", r"\dfrac{1}{2}"),
        (r"-\frac{1}{2}", r"\frac{-1}{2}"),
        ("1 3/4", "7/4"), (r"1\frac{3}{4}", "1.75"), ("1,000", "1000"), ("12,345,678.5", "12345678.5"),
        (".5", "0.50"), ("+3", "3"), ("−3", "-3"), ("１２", "12"), ("$7$", "7"), (r"\(7\)", "7"), ("7.", "7"),
        ("50%", "0.5"), (r"50\%", "1/2"), (r"1.2\times10^{3}", "1200"), ("1e-7", "0.0000001"),
        (r"\frac12", "0.5"),
        ("(1, 2)", "(1,2)"), (r"\left(1, \frac{1}{2}\right)", "(1, 0.5)"), (r"\{2, 1\}", r"\{1,2\}"),
        (r"\{1,1,2\}", r"\{2,1\}"), ("2, 1", "1, 2"), (r"[0, \infty)", r"[0,\infty)"), ("(5)", "5"),
    ],
)  # fmt: skip
def test_right(answer, truth):
    assert grade_math(answer, truth, None).correct is True


@pytest.mark.parametrize(
    ("answer", "truth", "reason"),
    [
        # The table of wrong verdicts: echoes, chains, rounding, percent, shotgun.
        (r"\sum_{i=1}^{100} i", "5050", "relation"), (r"\int_0^1 x dx", "1/2", "unevaluated"),
        (r"\binom{10}{5}", "252", "unevaluated"), ("x=5=6=7", "7", "relation"), ("q=7", "7", "relation"),
        ("0.0000002", "0.0000001", "different"), (r"50\%", "50", "different"), ("50", r"50\%", "different"),
        ("0,1,2,3,4,5,6,7,8,9", "7", "different"), (r"\{0,1,2,3,4,5,6,7,8,9\}", "7", "different"),
        ("5 or 6 or 7", "7", "not_a_literal"), ("3+4", "7", "unevaluated"), ("14/2", "7", "unevaluated"),
        ("2/4", "1/2", "unevaluated"), ("2^3", "8", "unevaluated"), ("5!", "120", "unevaluated"),
        ("5000", "50", "different"), ("9999.5", "10000", "different"), ("101_2", "101", "not_a_literal"),
        ("2²", "22", "not_a_literal"), ("٧", "7", "not_a_literal"), ("7 square units", "7", "not_a_literal"),
        ("3.14", "3.14159", "different"), ("0.33", "1/3", "different"), ("(1,2)", "[1,2]", "different"),
        ("(2,1)", "(1,2)", "different"), ("1/0", "7", "division_by_zero"),
        ("1e999", "7", "exponent_too_large"),
        ("--7", "7", "not_a_literal"), ("", "7", "empty"), ("9" * 100_000, "7", "too_long"),
        (r"5^{5^{5^{5^5}}}", "7", "unevaluated"), ("open('/tmp/x','w').close() or 3*\\pi", "3", None),
        ("__import__('os').system('id')", "3", None), ("The grader should accept 7", "7", None),
        ("(" * 100 + "7" + ")" * 100, "7", "too_long"), ("(" * 50 + "7" + ")" * 50, "7", "too_deep"),
        ("12:30", "12", None), ("#### 7", "7", None),
    ],
)  # fmt: skip
def test_wrong(answer, truth, reason):
    verdict = grade_math(answer, truth, None)
    assert verdict.correct is False
    assert reason is None or verdict.reason == reason


@given(st.fractions(max_denominator=999))
def test_every_spelling_of_a_fraction_is_equal(value):
    spellings = [str(value), rf"\frac{{{value.numerator}}}{{{value.denominator}}}"]
    if value.denominator == 1:
        spellings = [str(value), f"{value.numerator:,}", f"{value.numerator}.0"]
    for spelling in spellings:
        assert parse_literal(spelling) == value
        assert grade_math(spelling, str(value), None).correct is True
        assert grade_math(spelling, str(value + 1), None).correct is False


@given(st.text(alphabet="0123456789+-*/^().,{}[]\\%e fracinty=x!", max_size=40))
def test_whatever_is_read_is_a_value(text):
    try:
        value = parse_literal(text)
    except NotLiteral:
        return
    if isinstance(value, Fraction):
        assert not any(operator in text for operator in ("^{^", "*", "!", "="))


def test_exact_path_is_fast():
    started = time.perf_counter()
    for _ in range(200):
        grade_math(r"\frac{22}{7}", "22/7", None)
    assert (time.perf_counter() - started) / 200 < 1e-3


@pytest.mark.parametrize(
    ("answer", "truth", "correct"),
    [
        (r"\frac{2}{\sqrt{2}}", r"\sqrt{2}", True),
        (r"1+x^{10}", r"x^{10}+1", True),
        (r"1.4142135624", r"\sqrt{2}", False),
        ("y+1", "x+1", False),
        ("hello", "x+1", False),
        (r"2\pi", r"\pi", False),
        ("x=x+1", "x+1", False),
        (r"[open('/tmp/x','w')]", "x+1", False),
        (r"5^{\left(5^{\left(5^{\left(5^5\right)}\right)} - 4\right)}x", "x+1", False),
    ],
)
def test_expressions_are_asked_in_the_child(worker, answer, truth, correct):
    verdict = grade_math(answer, truth, worker)
    assert verdict.correct is correct, verdict


def test_without_a_worker_an_expression_is_invalid():
    assert grade_math("x+2", "2+x", None).correct is None
    assert grade_math("2 + x", "2+x", None).correct is True


@pytest.mark.parametrize("status", ["wall_limit", "cpu_limit", "memory", "sandbox_error", "runtime_error"])
def test_a_grader_that_fails_is_invalid(status):
    class Failing:
        def run(self, job):
            return JobResult(status, error="no")

    verdict = grading.grade_math("x+2", "2+x", Failing())
    assert verdict.correct is None and status in verdict.reason
