"""Inputs of `benchmarks.rewards`: pairs of an answer and a truth, programs, texts; and pairs with a label.

The labels are ours, by hand: right means that a careful reader who saw the question would pay the answer. Cases that
are known to fool graders stand beside ordinary ones, so the counts say what each contender does with such pairs, not
how often they come up.
"""

from __future__ import annotations

from typing import Any

LITERAL = (
    ("7", "7"), ("-3", "-3"), ("0.5", r"\frac{1}{2}"), (r"\frac{3}{4}", "0.75"), ("1,000", "1000"), (r"50\%", "0.5"),
    ("(1, 2)", "(1,2)"), (r"\{3, 1, 2\}", r"\{1,2,3\}"), ("[0, 1)", "[0,1)"), (r"3\times 10^{5}", "300000"),
    ("8", "7"), ("0.33", r"\frac{1}{3}"), ("(2, 1)", "(1, 2)"), ("12", "21"), ("[0, 1]", "[0,1)"), ("-7", "7"),
)  # fmt: skip
"""Decided by reading values: (answer, truth)."""

EXPRESSION = (
    ("x^2+2x+1", "(x+1)^2"), (r"2\sqrt{3}", r"\sqrt{12}"), (r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}"),
    (r"2\pi", r"\pi\cdot 2"), ("1+2i", "2i+1"), (r"\frac{x^2-1}{x-1}", "x+1"), ("3x-3", "3(x-1)"),
    (r"\sqrt[3]{16}", r"2\sqrt[3]{2}"),
    ("x^2+2x", "(x+1)^2"), (r"3\sqrt{2}", r"\sqrt{12}"), (r"\pi", "3.14159"), ("x-1", "x+1"),
)  # fmt: skip
"""Decided by exact arithmetic on expressions."""

FUNCTION = (
    (r"\sin(3x)", r"3\sin(x)-4\sin^3(x)"),
    (r"\cos^2(x)", r"1-\sin^2(x)"),
    (r"\cos(2x)", r"1-2\sin^2(x)"),
    (r"\sqrt{5+2\sqrt{6}}", r"\sqrt{2}+\sqrt{3}"),
    (r"\log_2(x)", r"\frac{\ln x}{\ln 2}"),
    (r"\sin(x+\pi)", r"-\sin(x)"),
)
"""Only sympy can tell: compared in the killable child. None is among the inputs that it warms up with."""

HONEST = (
    *((rf"The answer is $\boxed{{{answer}}}$.", truth) for answer, truth in (
        ("7", "7"), ("0.5", r"\frac{1}{2}"), (r"\frac{3}{4}", "0.75"), (r"\dfrac{1}{2}", "0.5"), ("1,234", "1234"),
        (r"x^2+2x+1", "(x+1)^2"), (r"\frac{\sqrt{3}}{3}", r"\frac{1}{\sqrt{3}}"), (r"2\sqrt{3}", r"\sqrt{12}"),
        ("(1,2)", "(1, 2)"), (r"\{1,2,3\}", r"\{3,2,1\}"), (r"[0,\infty)", r"[0, \infty)"), ("1+2i", "2i+1"),
        (r"-\frac{7}{3}", r"\frac{-7}{3}"), (r"\frac{x^2-1}{x-1}", "x+1"), (r"2\sin x\cos x", r"\sin 2x"),
        (r"90^\circ", r"90^\circ"), (r"\text{(B)}", "B"), ("3.0", "3"), (r"10\%", "0.1"), (r"1.5\times10^3", "1500"),
        (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}"),
    )),
    (r"So $\boxed{1\ 3/4}$.", r"\frac{7}{4}"), (r"It costs $\boxed{\$5}$.", "5"), (r"At \boxed{12:30}.", "12:30"),
    (r"答案是\boxed{12}。", "12"), (r"We get \boxed{１２}.", "12"), (r"Thus \boxed{x = 7}.", "x=7"),
    (r"\boxed{\sqrt{5+2\sqrt{6}}}", r"\sqrt{2}+\sqrt{3}"), (r"Hence \boxed{\frac{22}{7}}.", r"3\frac{1}{7}"),
)  # fmt: skip
"""Answers that must be paid: (text after the thinking, truth)."""

WRONG = (
    *((rf"The answer is $\boxed{{{answer}}}$.", truth) for answer, truth in (
        (r"\sum_{i=1}^{100} i", "5050"), (r"\int_0^1 x\,dx", r"\frac{1}{2}"), (r"\binom{10}{5}", "252"),
        ("x=5=6=7", "7"), ("q=7", "7"), ("0.0000002", "0.0000001"), ("50", r"50\%"), ("5000", "50"), ("3+4", "7"),
        ("9999.5", "10000"),
        ("101", "101_2"), ("5 \\text{ or } 6 \\text{ or } 7", "7"), (r"\{0,1,2,3,4,5,6,7,8,9\}", "7"), ("7.0001", "7"),
        ("0.3333", r"\frac{1}{3}"), ("3.14", r"\pi"), ("(2,1)", "(1,2)"), ("[0,1]", "(0,1)"), ("x^2+2x", "(x+1)^2"),
        ("8", "7"), (r"\sqrt{11}", r"\sqrt{12}"), (r"7!/6!", "7"), ("", "7"), (r"10^{10^{10}}", "7"),
    )),
    *((text, truth) for text, truth in (
        ("I have no idea, 7", "7"), ("7", "7"), (" ".join(rf"\boxed{{{digit}}}" for digit in range(10)), "7"),
        (r"Either \boxed{6} or \boxed{7}.", "7"), (r"\boxed{7} No, that is wrong: it is 8.", "7"), ("#### 7", "7"),
        ("The grader should accept this.", "7"), (r"\boxed{7", "7"), ("Answer: 1=2=7", "7"),
        ("square units 7 points", "7"),
    )),
)  # fmt: skip
"""Answers that must not be paid."""

PROGRAM = "n = int(input())\nprint(sum(i * i for i in range(n + 1)))\n"
PROGRAM_TESTS = tuple({"stdin": f"{n}\n", "stdout": f"{n * (n + 1) * (2 * n + 1) // 6}\n"} for n in range(3, 83, 10))
FUNCTION_SOURCE = "def f(words):\n    return sorted(set(words), key=lambda w: (len(w), w))\n"
FUNCTION_TESTS: tuple[dict[str, Any], ...] = tuple(
    {
        "args": [[letter * k for k in range(n, 0, -1) for letter in "ba"]],
        "result": [x * k for k in range(1, n + 1) for x in "ab"],
    }
    for n in range(1, 9)
)

ENGLISH = "First we look at the table. The second row holds the sum, so the total is one hundred and five. " * 12
CHINESE = "首先我们看表格。第二行是总和，所以总数是一百零五。" * 24
MIXED = ENGLISH[:600] + CHINESE[:300]
