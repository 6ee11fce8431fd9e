"""Truths that are expressions: what the exact stage decides, what it leaves to the child, and what it refuses."""

import pytest

from rewards.math.grade import grade_math


@pytest.mark.parametrize(
    ("answer", "truth"),
    [
        ("x²+2x+1", "(x+1)^2"), ("(x-1)(x+1)", "x^2-1"), ("1+x^{10}", "x^{10}+1"), ("yx", "xy"), ("x*x*x", "x^3"),
        (r"\frac{x^2-1}{x-1}", "x+1"), (r"\frac{1}{x}+\frac{1}{y}", r"\frac{x+y}{xy}"),
        ("(2x+1)/3", r"\frac{2x+1}{3}"),
        ("1/x", "x^{-1}"), (r"x^{-1/2}", r"\frac{1}{\sqrt{x}}"), ("0.5x", "x/2"), ("-(x-1)", "1-x"),
        ("1/2x", r"\frac{x}{2}"),
        ("x_1+x_2", "x_2+x_1"), (r"\alpha+\beta", r"\beta+\alpha"), (r"a_{12}", "a_{12}"), ("2(x+1)", "2x+2"),
        (r"\frac{2}{\sqrt{2}}", r"\sqrt{2}"), (r"\sqrt{12}", r"2\sqrt{3}"), (r"\sqrt[3]{16}", r"2\sqrt[3]{2}"),
        (r"\frac{1}{1+\sqrt2}", r"\sqrt{2}-1"), (r"\frac{\sqrt{6}}{2}", r"\sqrt{1.5}"), ("sqrt(8)", r"2\sqrt{2}"),
        (r"\frac{1+\sqrt5}{2}", r"\frac{2}{\sqrt{5}-1}"), ("2^{1/2}", r"\sqrt 2"), (r"\sqrt[4]{4}", r"\sqrt{2}"),
        (r"(\sqrt{2}+\sqrt{3})^2", r"5+2\sqrt{6}"), ("√2", r"\sqrt{2}"), (r"\sqrt[3]{-16}", r"-2\sqrt[3]{2}"),
        (r"\frac{\pi}{2}", r"0.5\pi"), ("2pi", r"2\pi"), ("π/3", r"\frac{1}{3}\pi"), (r"\pi r^2", r"r^2\pi"),
        ("3+4i", "4i+3"), (r"\sqrt{-4}", "2i"), (r"(1+i)^2", "2i"), (r"\frac{1}{i}", "-i"),
        (r"\frac{5}{2-i}", "2+i"),
        (r"2^{n+1}-2", r"2(2^n-1)"), ("4^n", "2^{2n}"), (r"\left(\frac12\right)^n", "2^{-n}"),
        ("e^{-x}", r"\frac{1}{e^x}"),
        ("e^{x+1}", r"e\cdot e^x"), (r"\exp(2x)", "(e^x)^2"), ("x^{n+1}", r"x\cdot x^n"), ("n!", "n!"),
        (r"\ln 8", r"3\ln 2"), (r"\log_2 12", r"2+\log_2 3"), (r"\ln\frac{1}{2}", r"-\ln 2"), ("10!", "3628800"),
        (r"\binom{10}{5}", r"\binom{10}{5}+0"), (r"\sqrt{x}\sqrt{x}", "x"), (r"\frac{x}{x}", "1x^0"),
        (r"(1+\sqrt{2}, 2)", r"(\sqrt 2+1, 2)"), (r"1\pm\sqrt{2}", r"1-\sqrt{2}, 1+\sqrt{2}"),
        ("y=2x+1", "y = 1+2x"),
        (r"\sin(\pi x)", r"\sin \pi x"), (r"(x+1)^{100}", "(1+x)^{100}"), (r"\sqrt{1+x}", r"\sqrt{x+1}"),
    ],
)  # fmt: skip
def test_the_exact_stage_finds_them_equal(answer, truth):
    if truth == "3628800":
        answer, truth = truth, answer  # an evaluated answer to an unevaluated truth
    verdict = grade_math(answer, truth, None)
    assert verdict.correct is True, verdict


@pytest.mark.parametrize(
    ("answer", "truth", "reason"),
    [
        (r"1.4142135624", r"\sqrt{2}", "different"), ("3.14159", r"\pi", "different"),
        (r"\frac{22}{7}", r"\pi", "different"),
        ("y+1", "x+1", "different"), ("x+1", "x+2", "different"), ("X+1", "x+1", "different"),
        (r"2\pi", r"\pi", "different"),
        (r"\sqrt{2}+\sqrt{3}", r"\sqrt{5}", "different"), (r"\sqrt[3]{2}", r"\sqrt{2}", "different"),
        ("3-4i", "3+4i", "different"),
        ("2^{n}", "2^{n+1}", "different"), ("x^2-1", "(x-1)^2", "different"), ("x=x+1", "x+1", "relation"),
        ("", "x+1", "empty"),
        (r"\frac{x+1}{x+1-x-1}", "x+1", "division_by_zero"), (r"\frac{1}{0}x", "x", "division_by_zero"),
        # Unfinished work, where the truth is a constant.
        (r"\sin 45^\circ", r"\frac{\sqrt2}{2}", "unevaluated"), (r"\tan\frac{\pi}{3}", r"\sqrt{3}", "unevaluated"),
        (r"\sqrt{3+9}", r"2\sqrt{3}", "unevaluated"), (r"2\cdot 3\sqrt{5}", r"6\sqrt{5}", "unevaluated"),
        (r"\sqrt{4}\pi", r"2\pi", "unevaluated"), (r"2^3\pi", r"8\pi", "unevaluated"),
        (r"\frac{2}{4}\pi", r"\frac{\pi}{2}", "unevaluated"),
        (r"e^{\ln 3}\pi", r"3\pi", "unevaluated"), (r"\int_0^\pi \sin x\,dx", r"2\sqrt{1}", "unevaluated"),
        (r"\sum_{k=0}^n k", r"\frac{n(n+1)}{2}", "unevaluated"),
        (r"\binom{n}{2}", r"\frac{n(n-1)}{2}", "unevaluated"),
        (r"\frac{n!}{(n-2)!}", "n(n-1)", "unevaluated"),
        (r"\lim_{h\to0}\frac{(x+h)^2-x^2}{h}", "2x", "unevaluated"),
        (r"\int 2x\,dx", "x^2", "unevaluated"), (r"\cos x", "1-x", "unevaluated"),
        (r"\ln(e^x)", "x", "unevaluated"),
        # Nothing that takes long, and nothing that runs.
        (r"[open('/tmp/x','w')]", "x+1", "unknown_sign"), ("x.__class__", "x", "unknown_sign"),
        ("lambda x: x", "x", None),
        (r"5^{\left(5^{\left(5^{\left(5^5\right)}\right)} - 4\right)}x", "x+1", "exponent_too_large"),
        ("x^{10000}", "x", "exponent_too_large"), ("(a+b+c+d+e+f)^{40}", "a", "different"),
        ("9^{9^{9}}x", "x", "exponent_too_large"),
        ("(a+b)^{30}(c+d)^{30}(f+g)^{30}", "a", "too_large"), ("2^" * 60 + "x", "x", "too_deep"),
        (r"\sqrt" * 38 + "x", "x", "too_deep"), (r"\sin" * 45 + " x", r"\sin x", "too_deep"),
        ("(" * 30 + "x" + ")" * 30, "x", "too_deep"),
        ("a,b,c,d,e" * 15, "a", None), (r"\vec{x}", "x", "not_understood"), ("x+", "x", "not_understood"),
        ("hello", "x+1", "different"),
    ],
)  # fmt: skip
def test_refused_without_asking_anybody(answer, truth, reason):
    verdict = grade_math(answer, truth, None)
    assert verdict.correct is False, verdict
    assert reason is None or verdict.reason == reason, verdict


@pytest.mark.parametrize(
    ("answer", "truth", "correct"),
    [
        (r"\sqrt{3+2\sqrt2}", r"1+\sqrt2", True),
        (r"2\sin x\cos x", r"\sin 2x", True),
        (r"1-\sin^2 x", r"\cos^2 x", True),
        (r"(1, \sqrt{3+2\sqrt2})", r"(1, 1+\sqrt2)", True),
        (r"\log 2", r"\ln 2", True),
        (r"\vec{b}+\vec{a}", r"\vec{a}+\vec{b}", True),
        (r"\vec{a}-\vec{b}", r"\vec{a}+\vec{b}", False),
    ],
)
def test_what_the_exact_stage_leaves_open_is_asked_in_the_child(worker, answer, truth, correct):
    verdict = grade_math(answer, truth, worker)
    assert verdict.correct is correct, verdict
    assert set(verdict.evidence["opinions"]) == {"truth_parsed", "answer_parsed", "sympy", "math_verify"}


@pytest.mark.parametrize(
    ("answer", "truth"),
    [
        (r"\sqrt{3+2\sqrt2}", r"1+\sqrt3"), (r"\sin(2y)", r"\sin(2x)"), (r"\cos 2x", r"\sin 2x"),
        ("(x+1)^{100}", "(x+2)^{100}"),
        (r"\sqrt{1+\sqrt{2+\sqrt{3+\sqrt{5+\sqrt{6+\sqrt7}}}}}", r"\sqrt{2}"), (r"\log_2 x", r"\log_3 x"),
        (r"(1, \sqrt{3+2\sqrt2})", r"(1, 2+\sqrt2)"), ("(a+b+c)^{39}", "(a+b+c)^{38}"),
        (r"\arctan x^2", r"\arctan x"),
    ],
)  # fmt: skip
def test_what_differs_clearly_in_number_is_asked_nobody(answer, truth):
    assert grade_math(answer, truth, None).reason == "different"


@pytest.mark.parametrize(
    ("answer", "truth", "reason"),
    [
        (r"\vec{c}=\vec{a}", r"\vec{a}", "relation"), (r"\sum_k \vec{a}", r"\vec{a}", "unevaluated"),
        ("9^{9^{9^{9}}}", r"\vec{a}", "exponent_too_large"), ("(((((((((1", r"\vec{a}", None),
    ],
)  # fmt: skip
def test_a_truth_outside_the_grammar_opens_no_door(answer, truth, reason):
    verdict = grade_math(answer, truth, None)
    assert verdict.correct is not True and (reason is None or verdict.reason == reason)


def test_a_truth_that_would_hang_the_grader_is_invalid(worker):
    verdict = grade_math("7^{999999}", "7^{7^{7^{7}}}", worker)
    assert verdict.correct is None and verdict.reason == "math_grader_cpu_limit"
    assert grade_math(r"\sqrt{3+2\sqrt2}", r"1+\sqrt2", worker).correct is True


def test_an_echo_of_the_question_is_no_answer():
    question = r"Expand $(x+1)^2$."
    assert grade_math("(x+1)^2", "x^2+2x+1", None, question).reason == "echo"
    assert grade_math(r"\left(x + 1\right)^{2}", "x^2+2x+1", None, question).reason == "echo"
    assert grade_math("1+2x+x^2", "x^2+2x+1", None, question).correct is True
    assert grade_math("(x+1)^2", "(x+1)^2", None, r"Factor $x^2+2x+1$.").correct is True
    coins = r"A coin shows heads with probability $\frac{1}{2}$, at $(1,2)$ or $2\pi/3$."
    for copied, truth in ((r"\frac{1}{2}", "0.5"), ("(1,2)", "(1, 2.0)"), (r"2\pi/3", r"\frac{2\pi}{3}")):
        assert grade_math(copied, truth, None, coins).correct is True
    assert grade_math("-1<x<2", "(-1,2)", None, "Write $-1<x<2$ as an interval.").reason == "echo"
    assert grade_math("x+1", "x+1", None, "Which is larger, $x+1$ or $x$?").correct is True


@pytest.mark.parametrize(
    ("answer", "truth", "correct"),
    [("北京", "北京", True), ("上海", "北京", False), ("7", "北京", False), ("St. louis", "St. Louis", True)],
)
def test_a_truth_with_other_signs_is_compared_as_text(answer, truth, correct):
    assert grade_math(answer, truth, None).correct is correct
