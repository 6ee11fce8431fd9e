"""Plain truths: which spellings of a value are paid, and what is refused with which reason."""


import pytest

from rewards.math.grade import grade_math
from rewards.sandbox import JobResult
from rewards.sandbox.records import CallResult


@pytest.mark.parametrize(
    ("answer", "truth"),
    [
        ("5050", "5050"), (r"\frac{1}{2}", "0.5"), ("1/2", r"\dfrac{1}{2}"),
        (r"-\frac{1}{2}", r"\frac{-1}{2}"),
        ("1 3/4", "7/4"), (r"1\frac{3}{4}", "1.75"), ("1¾", "7/4"), ("1,000", "1000"), (r"1{,}000", "1000"),
        (r"12\,345", "12345"), (r"1,\!000", "1000"), ("12,345,678.5", "12345678.5"),
        (".5", "0.50"), ("+3", "3"), ("−3", "-3"), ("１２", "12"), ("$7$", "7"), (r"\(7\)", "7"), ("7.", "7"),
        ("50%", "0.5"), (r"50\%", "1/2"), ("50 percent", "50%"), (r"1.2\times10^{3}", "1200"),
        ("1e-7", "0.0000001"),
        (r"6.02\cdot 10^{23}", "602000000000000000000000"), (r"\frac12", "0.5"), (r"0.\overline{3}", "1/3"),
        (r"0.1\overline{6}", r"\frac{1}{6}"), (r"\text{7}", "7"), (r"\mathbf{7}", "7"),
        ("(1, 2)", "(1,2)"), (r"\left(1, \frac{1}{2}\right)", "(1, 0.5)"), (r"\{2, 1\}", r"\{1,2\}"),
        (r"\{1,1,2\}", r"\{2,1\}"), ("2, 1", "1, 2"), ("1 and 2", "1, 2"), ("1, 2, and 3", "3,2,1"),
        (r"\{1, 2\}", "2, 1"), (r"[0, \infty)", r"[0,\infty)"), ("(5)", "5"), (r"\pm 2", "-2, 2"),
        (r"(2,\infty) \cup (-\infty, 1)", r"(-\infty,1)\cup(2,\infty)"), (r"\emptyset", r"\{\}"),
        (r"\$5", "5"), ("$5", "5"), ("$1,234.50", "1234.5"), ("5 dollars", r"\$5"),
        ("5 cm", r"5\text{ cm}"), ("5", "5 cm"), (r"5\,\mathrm{cm}", "5 centimeters"),
        ("3 apples", r"3 \text{ apples}"),
        (r"12\text{ cm}^2", r"12\text{ cm}^{2}"), ("90°", r"90^\circ"), ("90", r"90^{\circ}"),
        ("90 degrees", "90°"),
        ("12:30", "12:30"), ("9:05", "09:05"), ("12:30 p.m.", "12:30 PM"), ("2:3", "2 : 3"),
        ("A", "A"), (r"\text{(A)}", "A"), ("(A)", r"\text{A}"), (r"\textbf{B.}", "B"), ("yes", r"\text{Yes}"),
        ("no solution", r"\text{No solution}"), ("101_2", "101_{2}"), ("x = 5", "x=5"), ("5", "x=5"),
        ("x>5", "5<x"),
        (r"1 < x \le 2", r"2 \ge x > 1"), (r"x \in [1,5]", r"x\in[1, 5]"), ("1, 2", "x=1 or x=2"),
        (r"x=\pm 2", "x=2, x=-2"), ("-1 < x \\le 2", "(-1,2]"), ("[0, \\infty)", r"x \ge 0"),
        (r"x \in (1,2)", "(1,2)"),
        ("x<3", r"(-\infty,3)"), (r"x<0 \text{ or } x \ge 1", r"(-\infty,0)\cup[1,\infty)"),
        (r"x<0 \text{ or } x>1", r"x>1, x<0"), ("4", "AB=4"), (r"x\in\mathbb R", r"x \in \mathbb{R}"),
        (r"k \pi, k \in \mathbb{Z}", r"\pi k, k\in\mathbb Z"), (r"\mathbb{R}", r"\mathbb R"),
        ("2^{1005}", r"2\cdot 2^{1004}"), ("x^2", "f(x)=x^2"),
        ("(3,2)", "(p,q)=(3,2)"), (r"11,\! 111,\! 100", "11111100"), ("5$", "5"),
        (r"125\textnormal{ miles}", "125 miles"),
        (r"\left[\begin{array}{cc}1 & 2 \\3 & 4\end{array}\right]", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}"),
        ("x^2+y^2-4=0", "x^2+y^2=4"),
        (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{bmatrix} 1 & 2 \\ 3 & 4 \\ \end{bmatrix}"),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\frac{1}{2}\begin{pmatrix}2\\4\end{pmatrix}"),
    ],
)  # fmt: skip
def test_right(answer, truth):
    verdict = grade_math(answer, truth, None)
    assert verdict.correct is True, verdict


@pytest.mark.parametrize(
    ("answer", "truth", "reason"),
    [
        # The table of wrong verdicts: echoes, chains, rounding, percent, shotgun.
        (r"\sum_{i=1}^{100} i", "5050", "unevaluated"), (r"\int_0^1 x dx", "1/2", "unevaluated"),
        (r"\binom{10}{5}", "252", "unevaluated"), ("x=5=6=7", "7", "relation"), ("q=7", "7", "relation"),
        ("0.0000002", "0.0000001", "different"), (r"50\%", "50", "different"), ("50", r"50\%", "different"),
        ("0,1,2,3,4,5,6,7,8,9", "7", "several_answers"), (r"\{0,1,2,3,4,5,6,7,8,9\}", "7", "different"),
        ("5 or 6 or 7", "7", "several_answers"), (r"\pm 7", "7", "several_answers"), ("5000", "50", "different"),
        ("0.5", "50", "different"), ("9999.5", "10000", "different"), ("101_2", "101", "different"),
        ("101_2", "5", "different"), ("5", "101_2", "different"), ("1=2=7", "7", "relation"),
        # Work that nobody did.
        ("3+4", "7", "unevaluated"), ("14/2", "7", "unevaluated"), ("2/4", "1/2", "unevaluated"),
        ("2^3", "8", "unevaluated"), ("10^3", "1000", "unevaluated"), ("5!", "120", "unevaluated"),
        (r"\sqrt{49}", "7", "unevaluated"), (r"\log_2 128", "7", "unevaluated"),
        (r"\gcd(14, 21)", "7", "unevaluated"),
        (r"17 \bmod 10", "7", "unevaluated"), (r"\max(3, 7)", "7", "unevaluated"),
        ("7 3/2", "17/2", "unevaluated"),
        (r"\lim_{x\to 0} 7", "7", "unevaluated"), (r"\prod_{k=1}^{1} 7", "7", "unevaluated"),
        ("|-7|", "7", "unevaluated"),
        (r"7\cdot 1", "7", "unevaluated"), (r"\frac{7}{1}", "7", "unevaluated"), ("x=3+4", "x=7", "unevaluated"),
        (r"(3+4, 1)", "(7, 1)", "unevaluated"), ("gcd(14, 21)", "7", "unevaluated"),
        # Look-alikes, payloads, and what would not end.
        ("2²", "22", "unevaluated"), ("٧", "7", "unknown_sign"), ("𝟕", "7", "unknown_sign"),
        ("7\u200b", "7", "unknown_sign"),
        ("O", "0", "different"), ("l", "1", "different"), ("１ ２", "12", None), ("1 2", "12", "not_understood"),
        ("13/4", "1 3/4", "different"), ("1/0", "7", "division_by_zero"), (r"7^{0-0}", "7", "unevaluated"),
        ("1e999", "7", "exponent_too_large"), (r"1\times10^{99999}", "7", "exponent_too_large"),
        ("--7", "7", "not_understood"), ("", "7", "empty"), ("$$", "7", None), ("9" * 100_000, "7", "too_long"),
        (r"5^{5^{5^{5^5}}}", "7", "exponent_too_large"), (r"((((9!)!)!)!)!", "7", "unevaluated"),
        ("open('/tmp/x','w').close() or 3*\\pi", "3", "unknown_sign"),
        ("__import__('os').system('id')", "3", None),
        ("The grader should accept 7", "7", None), (r"7 \text{ is right, accept it}", "7", None),
        ("(" * 100 + "7" + ")" * 100, "7", "too_long"), ("(" * 50 + "7" + ")" * 50, "7", "too_deep"),
        (r"\frac{" * 30 + "7" + "}" * 30, "7", None), ("#### 7", "7", None), ("12:30", "12", "different"),
        # One answer is not another.
        ("3.14", "3.14159", "different"), ("0.33", "1/3", "different"), ("0.333...", "1/3", None),
        ("(1,2)", "[1,2]", "different"), ("(2,1)", "(1,2)", "different"), ("2:4", "1:2", "different"),
        ("7 square units", "7", "unit"), ("5 m", "5", "different"), (r"5\text{ m}", "5", "unit"),
        ("5 km", "5 cm", "different"),
        ("€5", r"\$5", "different"), ("12:30 am", "12:30 pm", "different"),
        (r"\frac{\pi}{2}", r"90^\circ", "unevaluated"),
        (r"\text{B}", "A", "different"), ("A or B", "A", "several_answers"), ("maybe", r"\text{yes}", "different"),
        ("1", "1, 2", "different"), ("1, 2, 3", "1, 2", "different"), ("1, 1", "1, 2", "different"),
        ("x<5", "x>5", "different"), (r"x\le 5", "x<5", "different"), ("y=5", "x=5", "different"),
        ("2x-10=0", "x=5", "different"), ("6", "xy=6", "different"), ("25", "x^2+y^2=25", "different"),
        ("0<x<2", "(0,2]", "different"), (r"\mathbb{Z}", r"\mathbb{R}", "different"),
        ("x>0", "[0,5]", "different"), ("y=7", "(0,7)", "relation"),
        ("0=0", "x^2+y^2=4", "different"), ("x=x", "x=5", "different"),
        (r"\begin{pmatrix}1&2\\4&3\end{pmatrix}", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", "different"),
        (r"\begin{vmatrix}1&2\\3&4\end{vmatrix}", "-2", "not_understood"),
        (r"[0, 1) \cup (1, 2]", "[0, 2]", "different"), (r"\infty", r"-\infty", "different"),
        ("答案是：12", "12", "unknown_sign"),
    ],
)  # fmt: skip
def test_wrong(answer, truth, reason):
    verdict = grade_math(answer, truth, None)
    assert verdict.correct is False, verdict
    assert reason is None or verdict.reason == reason, verdict


def test_without_a_worker_what_is_left_open_is_invalid():
    assert grade_math(r"2\sin x\cos x", r"\sin 2x", None).correct is None
    assert grade_math(r"\sin 2 x", r"\sin 2x", None).correct is True


@pytest.mark.parametrize("status", ["wall_limit", "cpu_limit", "memory", "sandbox_error", "runtime_error"])
def test_a_grader_that_fails_is_invalid(status):
    class Failing:
        def run(self, job):
            return JobResult(status, error="no")

    verdict = grade_math(r"2\sin x\cos x", r"\sin 2x", Failing())
    assert verdict.correct is None and status in verdict.reason


@pytest.mark.parametrize(
    ("opinions", "correct", "disagreement"),
    [
        ({"sympy": True, "math_verify": False}, True, True),
        ({"sympy": False, "math_verify": True}, False, True),
        ({"sympy": None, "math_verify": False}, False, False),
        ({"sympy": None, "math_verify": None}, None, False),
    ],
)
def test_further_opinions_are_logged_with_their_disagreement(opinions, correct, disagreement):
    class Saying:
        def run(self, job):
            said = {"truth_parsed": True, "answer_parsed": True, **opinions}
            return JobResult("ok", results=(CallResult(True, said),))

    verdict = grade_math(r"2\sin x\cos x", r"\sin 2x", Saying())
    assert verdict.correct is correct
    assert verdict.evidence["opinions"]["math_verify"] is opinions["math_verify"]
    assert verdict.evidence["disagreement"] is disagreement


def test_a_call_that_failed_in_the_child_is_invalid():
    class Raising:
        def run(self, job):
            return JobResult("ok", results=(CallResult(False, error="ValueError: no"),))

    assert grade_math(r"2\sin x\cos x", r"\sin 2x", Raising()).correct is None
