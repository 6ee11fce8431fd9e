r"""Right answers to mathematical questions, in the notations that people and models use: all of them must be paid.

`NOTATIONS` maps a truth, as datasets write it, to the contents of a box; `COMPLETIONS` are whole completions, for what
stands around the box. What is refused by a rule of the grader (`3+4` for 7, a bare 50 for 50 %, an unasked-for unit)
is no case here; those rules stand in `rewards.math.compare`.
"""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.audit.cases import Case, MathSubject, say
from rollout.records import MODES, Mode

NOTATIONS: Mapping[str, tuple[str, ...]] = {
    # Integers.
    "42": (
        "42", "42.", "42.0", "+42", "042", "$42$", r"\(42\)", r"\text{42}", r"\mathbf{42}", "４２", "42.00",
        r"\;42\,",
    ),
    "-7": ("-7", "−7", "- 7", "-7.0", r"$-7$", "－7", "(-7)"),
    "0": ("0", "-0", "0.0", "00", r"0\%"),
    "1000000": (
        "1000000", "1,000,000", r"1{,}000{,}000", r"1\,000\,000", r"1\times 10^{6}", r"1 \cdot 10^6", "1e6",
        r"1,\!000,\!000",
    ),
    "5050": ("5050", "5,050", "5050.0", r"5.05\times10^3", r"5.05 \times 10^{3}", "5.05e3"),
    # Fractions, decimals, mixed numbers.
    r"\frac{1}{2}": (
        "1/2", r"\frac{1}{2}", r"\dfrac{1}{2}", r"\tfrac12", r"\frac 1 2", "0.5", ".5", "0.50", r"50\%", "50%",
        "½", "1 / 2", r"\frac{ 1 }{ 2 }",
    ),
    r"\frac{7}{4}": ("7/4", "1.75", "1 3/4", r"1\frac{3}{4}", r"1 \frac{3}{4}", "1¾", r"\frac74", r"175\%"),
    r"-\frac{2}{3}": ("-2/3", r"\frac{-2}{3}", r"\frac{2}{-3}", r"-\dfrac{2}{3}", r"-0.\overline{6}", "−2/3"),
    "0.125": ("1/8", "0.125", ".125", r"12.5\%", r"\frac{1}{8}", r"1.25\times10^{-1}"),
    r"\frac{1}{3}": ("1/3", r"0.\overline{3}", r"\frac13", r"\cfrac{1}{3}"),
    "3.14": ("3.14", "3.140", "157/50", r"\frac{157}{50}", r"3\frac{7}{50}"),
    "0.00032": ("0.00032", r"3.2\times 10^{-4}", "3.2e-4", r"3.2 \cdot 10^{-4}", "1/3125"),
    r"50\%": ("50%", r"50\%", "1/2", "0.5", "50 percent", r"50\text{ percent}", "50.0%"),
    # Roots, pi, e, logarithms, complex numbers.
    r"\sqrt{2}": (
        r"\sqrt{2}", r"\sqrt2", "sqrt(2)", "√2", "2^{1/2}", r"2^{0.5}", r"\frac{2}{\sqrt{2}}", r"\sqrt[2]{2}",
        r"\sqrt{\,2\,}",
    ),
    r"2\sqrt{3}": (
        r"2\sqrt{3}", r"\sqrt{12}", r"2 \cdot \sqrt{3}", r"2\times\sqrt 3", "2*sqrt(3)", r"\frac{6}{\sqrt{3}}",
        "2√3", r"\sqrt{3}\cdot 2",
    ),
    r"\frac{\sqrt{3}}{2}": (
        r"\frac{\sqrt{3}}{2}", r"\frac{\sqrt3}{2}", "sqrt(3)/2", r"\frac12\sqrt3", r"\sqrt{3}/2",
        r"\sqrt{\frac{3}{4}}", r"\sqrt{0.75}", "√3/2",
    ),
    r"\frac{1+\sqrt{5}}{2}": (
        r"\frac{1+\sqrt{5}}{2}", r"\frac{\sqrt5+1}{2}", "(1+sqrt(5))/2", r"\frac12+\frac{\sqrt5}{2}",
        r"0.5(1+\sqrt{5})", r"\frac{2}{\sqrt5-1}",
    ),
    r"\sqrt[3]{4}": (r"\sqrt[3]{4}", r"4^{1/3}", r"2^{2/3}", r"4^{\frac{1}{3}}", "4^(1/3)", r"\sqrt[3]{4}\,"),
    r"\sqrt{2}-1": (r"\sqrt{2}-1", r"-1+\sqrt2", r"\frac{1}{1+\sqrt{2}}", "√2 - 1"),
    r"3-2\sqrt{2}": (r"3-2\sqrt{2}", r"(\sqrt2-1)^2", r"3 - \sqrt{8}", r"-2\sqrt2+3"),
    r"\frac{\pi}{2}": (r"\frac{\pi}{2}", "pi/2", "π/2", r"0.5\pi", r"\frac12\pi", r"\pi/2", r"\frac{1}{2} \cdot \pi"),
    r"100\pi": (r"100\pi", "100π", "100 pi", "100*pi", r"\pi\cdot 100", r"100\cdot\pi"),
    r"\frac{4}{3}\pi r^3": (r"\frac{4}{3}\pi r^3", r"\frac{4\pi r^3}{3}", "4/3 pi r^3", r"\frac43\pi r^{3}"),
    "e^2": ("e^2", "e^{2}", r"\mathrm{e}^2", r"e\cdot e", r"\exp(2)"),
    r"\frac{1}{e}": (r"\frac{1}{e}", "e^{-1}", "1/e", r"\exp(-1)"),
    r"\ln 2": (r"\ln 2", r"\ln(2)", "ln 2", "ln(2)", r"\ln{2}", r"-\ln\frac{1}{2}", r"\frac{1}{2}\ln 4"),
    r"\log_2 3": (r"\log_2 3", r"\log_{2}{3}", r"\log_2(3)", r"\frac{\ln 3}{\ln 2}"),
    "3+4i": ("3+4i", "4i+3", "3 + 4 i", r"3+4\mathrm{i}", r"3 + 4\cdot i"),
    "-2i": ("-2i", r"-2\,i", "0-2i"),
    r"\frac{1}{2}+\frac{\sqrt{3}}{2}i": (
        r"\frac{1}{2}+\frac{\sqrt{3}}{2}i", r"\frac{1+i\sqrt{3}}{2}", r"\frac{1}{2}(1+\sqrt{3}i)",
    ),
    # Algebra.
    "x^2+2x+1": ("x^2+2x+1", "(x+1)^2", "1+2x+x^2", "x²+2x+1", r"x^{2} + 2x + 1", "x*x+2*x+1", "x**2 + 2*x + 1"),
    "(x-2)(x+3)": (
        "(x-2)(x+3)", "(x+3)(x-2)", r"\left(x-2\right)\left(x+3\right)", "x^2+x-6", r"(x - 2) \cdot (x + 3)",
    ),
    r"\frac{x+1}{x-1}": (
        r"\frac{x+1}{x-1}", "(x+1)/(x-1)", r"\dfrac{x + 1}{x - 1}", r"\frac{1+x}{-1+x}", r"1+\frac{2}{x-1}",
    ),
    r"\frac{1}{x}": (r"\frac{1}{x}", "1/x", "x^{-1}"),
    r"\frac{n(n+1)}{2}": (
        r"\frac{n(n+1)}{2}", "n(n+1)/2", r"\frac{n^2+n}{2}", r"\frac{1}{2}n(n+1)", r"\tfrac{1}{2}(n^2+n)",
    ),
    r"2^{n}-1": ("2^n-1", "2^{n} - 1", "-1+2^n", r"2\cdot 2^{n-1}-1"),
    r"a_n=2n+1": ("a_n=2n+1", "a_{n} = 2n + 1", "2n+1", "1+2n"),
    r"\sin x": (r"\sin x", r"\sin(x)", "sin(x)", "sin x", r"\sin{x}", r"\sin\left(x\right)"),
    r"\sin 2x": (r"\sin 2x", r"\sin(2x)", r"2\sin x\cos x", r"\sin{2x}"),
    r"\tan x": (r"\tan x", r"\frac{\sin x}{\cos x}", "tan(x)"),
    r"x\ln x-x": (r"x\ln x-x", r"x \ln(x) - x", r"x(\ln x-1)", "-x + x ln(x)"),
    r"e^{-x}": (r"e^{-x}", r"\frac{1}{e^x}", r"\exp(-x)", "e^(-x)"),
    "y=2x+3": ("y=2x+3", "y = 2x + 3", "2x+3", "y=3+2x", "2x+3=y"),
    "x^2+y^2=25": ("x^2+y^2=25", "x^2 + y^2 = 25", "y^2+x^2=25", "x^2+y^2-25=0", "25=x^2+y^2", "2x^2+2y^2=50"),
    # Several values, tuples, sets, intervals, inequalities, matrices.
    "x=5": ("5", "x=5", "x = 5", "$x = 5$", "5.0"),
    "1, 2": ("1, 2", "2, 1", "1,2", "1 and 2", "2 or 1", r"1 \text{ and } 2", r"\{1, 2\}", "1; 2", "2,1"),
    r"\pm 3": (r"\pm 3", "3, -3", "-3, 3", "±3", r"3 \text{ or } -3", r"\{-3, 3\}"),
    r"2\pm\sqrt{3}": (r"2\pm\sqrt{3}", r"2+\sqrt3, 2-\sqrt3", r"2-\sqrt{3}, 2+\sqrt{3}", r"2 \pm \sqrt 3"),
    "x=2, x=-2": ("x=2, x=-2", "x=-2 or x=2", r"x=\pm 2", "2, -2", r"x = -2 \text{ or } x = 2"),
    "(3, -4)": ("(3, -4)", "(3,-4)", r"\left(3, -4\right)", "( 3 , -4 )", "（3，-4）", "(3.0, -4.0)"),
    r"\left(\frac{1}{2}, 2\right)": ("(1/2, 2)", "(0.5, 2)", r"\left(\frac12,2\right)", r"(\dfrac{1}{2}, 2)"),
    r"\{1,2,3\}": (
        r"\{1,2,3\}", r"\{3, 2, 1\}", r"\left\{1,2,3\right\}", "{1,2,3}", "1, 2, 3", r"\lbrace 1, 2, 3 \rbrace",
    ),
    r"\emptyset": (r"\emptyset", r"\varnothing", r"\{\}", "∅"),
    "[0,1)": ("[0,1)", "[0, 1)", r"\left[0,1\right)", r"[0, 1.0)"),
    r"(-\infty, 2]": (r"(-\infty, 2]", r"(-\infty,2]", "(-∞, 2]", r"\left(-\infty, 2\right]"),
    r"(-\infty,-1)\cup(1,\infty)": (
        r"(-\infty,-1)\cup(1,\infty)", r"(1,\infty)\cup(-\infty,-1)", "(-∞,-1)∪(1,∞)",
        r"(-\infty, -1) \cup (1, +\infty)",
    ),
    r"x>3": ("x>3", "x > 3", "3<x", r"x \gt 3", r"3 \lt x"),
    r"-1\le x<2": (r"-1\le x<2", r"-1 \leq x < 2", r"2>x\ge -1", "-1 <= x < 2", "-1 ≤ x < 2"),
    r"x\in[1,5]": (r"x\in[1,5]", r"x \in [1, 5]", "[1,5]", "x∈[1,5]"),
    r"\begin{pmatrix}1&0\\0&1\end{pmatrix}": (
        r"\begin{pmatrix}1&0\\0&1\end{pmatrix}", r"\begin{bmatrix} 1 & 0 \\ 0 & 1 \end{bmatrix}",
        r"\begin{pmatrix} 1 & 0 \\ 0 & 1 \\ \end{pmatrix}",
    ),
    r"\begin{pmatrix}-2\\3\\1\end{pmatrix}": (
        r"\begin{pmatrix} -2 \\ 3 \\ 1 \end{pmatrix}", r"\begin{bmatrix}-2\\3\\1\end{bmatrix}",
    ),
    "(-1,2]": (r"-1 < x \le 2", "(-1, 2]", r"x\in(-1,2]", r"2 \ge x > -1"),
    r"(-\infty,0)\cup(4,\infty)": (r"x<0 \text{ or } x>4", r"x \in (-\infty,0)\cup(4,\infty)", "x > 4 or x < 0"),
    r"x\ge 0": (r"[0,\infty)", r"x \geq 0", r"0 \le x"),
    "f(x)=x^2+1": ("f(x) = x^2+1", "x^2+1", "1+x^2"),
    "AB=4": ("4", "AB = 4"),
    # Units, money, times, ratios, choices, words, other bases.
    r"12\text{ cm}": (r"12\text{ cm}", "12 cm", "12cm", "12", r"12\,\mathrm{cm}", "12 centimeters", r"12~\text{cm}"),
    r"30\text{ m}^2": (r"30\text{ m}^2", r"30\,\text{m}^2", r"30\ \mathrm{m}^{2}", "30"),
    r"60\text{ km/h}": (r"60\text{ km/h}", "60 km/h", "60", r"60\ \mathrm{km/h}"),
    r"120^\circ": (r"120^\circ", r"120^{\circ}", "120°", "120", "120 degrees", r"120\text{ degrees}"),
    r"\$18": (r"\$18", "18", "$18", r"\$18.00", "18 dollars", r"18\text{ dollars}"),
    "18": (r"\$18", "$18", "18", r"\$18.00", "€18"),
    "1234.5": (r"\$1,234.50", "1,234.5", "1234.50", r"\$1234.5"),
    "7:45": ("7:45", "07:45", "7 : 45"),
    "12:30 pm": ("12:30 pm", "12:30 p.m.", "12:30 PM", r"12:30\text{ p.m.}"),
    "3:2": ("3:2", "3 : 2"),
    "B": ("B", r"\text{B}", r"\text{(B)}", "(B)", r"\textbf{(B)}", "B.", r"\mathrm{B}", r"\mathbf{B}"),
    r"\text{Yes}": ("Yes", "yes", r"\text{yes}", r"\text{Yes}", "YES", r"\textbf{Yes}"),
    r"\text{even}": ("even", "Even", r"\text{even}"),
    r"\text{no solution}": ("no solution", r"\text{No solution}", "No Solution", r"\text{no}\ \text{solution}"),
    "1011_2": ("1011_2", "1011_{2}", r"1011_{\text{2}}"),
    r"n!": ("n!", "(n)!"),
    r"\binom{n}{2}": (r"\binom{n}{2}", r"\dbinom{n}{2}"),
}  # fmt: skip

COMPLETIONS: tuple[tuple[str, str, str], ...] = (
    ("bare box", r"\boxed{12}", "12"),
    ("a sentence", r"The answer is \boxed{12}.", "12"),
    ("dollar signs", r"So the final answer is $\boxed{12}$.", "12"),
    ("a displayed formula", "Hence\n\\[\n\\boxed{12}\n\\]", "12"),
    ("double dollars", "Therefore:\n\n$$\\boxed{12}$$\n", "12"),
    ("bold", r"**Final answer:** **\boxed{12}**", "12"),
    ("an equation around it", r"$x = \boxed{12}$", "12"),
    ("an aligned environment", "\\begin{align*}\nx &= 3\\cdot 4 \\\\\n&= \\boxed{12}\n\\end{align*}", "12"),
    ("the rest of the sentence", r"She has $\boxed{12}$ apples left.", "12"),
    ("a unit behind the box", r"The side is $\boxed{12}$ cm.", "12"),
    ("a unit in text behind the box", r"$\boxed{12}\text{ cm}$", "12"),
    ("degrees behind the box", r"The angle is $\boxed{12}^\circ$.", "12"),
    ("work before the box", "3 + 4 = 7, then 7 + 5 = 12. Check: 12 - 5 = 7.\n\nAnswer: \\boxed{12}", "12"),
    ("another candidate dismissed before", r"It might be 10, but 10 is not divisible by 3, so \boxed{12}.", "12"),
    ("other numbers before", r"Of 100 students 88 passed, so \boxed{12} did", "12"),
    ("a list of steps", "1. Add 7 and 5.\n2. The sum is 12.\n\n\\boxed{12}", "12"),
    ("a space before the brace", r"\boxed {12}", "12"),
    ("spaces in the box", r"\boxed{ 12 }", "12"),
    ("an exclamation mark", r"It is \boxed{12}!", "12"),
    ("a line after another", "\\boxed{12}\n\n", "12"),
    ("Chinese", r"所以答案是：\boxed{12}。", "12"),
    ("Chinese with a measure word", r"一共有\boxed{12}个苹果。", "12"),
    ("Chinese, bold", r"**答案：** $\boxed{12}$", "12"),
    ("Chinese full width", r"因此\boxed{１２}。", "12"),
    ("a fraction in a sentence", r"The probability is $\boxed{\dfrac{3}{8}}$.", "3/8"),
    ("a set in a sentence", r"The solutions are $\boxed{\{-1, 4\}}$.", r"\{4,-1\}"),
    ("quotation marks", r'The answer is "\boxed{12}".', "12"),
    ("a bracketed box", r"(Answer: \boxed{12})", "12"),
    ("a heading before", "### Solution\nAdd them.\n### Answer\n\\boxed{12}", "12"),
    ("Spanish", r"La respuesta es \boxed{12}.", "12"),
    ("German", r"Also ist $x=\boxed{12}$ die Lösung.", "12"),
)

THOUGHTS = (
    "3 times 4 is 12.",
    r"Perhaps \boxed{10}? No: 3 times 4 is 12.",
    "Let me check with code:\n```python\nprint(3 * 4)\n```\nIt is 12.",
    "先算3乘4，得12。",
)


def _cases() -> tuple[Case, ...]:
    cases = [
        _paid(f"{answer} for {truth}", f"\\boxed{{{answer}}}", truth, "direct")
        for truth, answers in NOTATIONS.items()
        for answer in answers
    ]
    cases += [_paid(f"{name}, {mode}", text, truth, mode) for name, text, truth in COMPLETIONS for mode in MODES]
    for number, thought in enumerate(THOUGHTS):
        subject = MathSubject("What is 3 times 4?", "12", say(r"\boxed{12}", "thinking", thought), "thinking")
        cases.append(Case(f"right after thought {number}", "math", "paid", subject))
    return tuple(cases)


def _paid(name: str, text: str, truth: str, mode: Mode) -> Case:
    return Case(f"honest: {name}", "math", "paid", MathSubject("Find the value.", truth, say(text, mode), mode))


CASES: tuple[Case, ...] = _cases()
