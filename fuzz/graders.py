"""Targets: graders of text. A verdict must be a `Verdict`, whatever the policy wrote."""

from __future__ import annotations

import itertools
import json
from typing import Any, get_args

from fuzz.target import Target, timed
from rewards.checkers import FUNCTION_CHECKERS, PROGRAM_CHECKERS, CheckerError, Compare
from rewards.code import grade_files, grade_function, grade_program
from rewards.extract import FormatError, boxed_answer, code_block, split_thinking
from rewards.graders import GRADERS, grade_answer, truth_problem
from rewards.instructions import CHECKS, check_criterion, instruction_problem
from rewards.language import LanguageScore, language_consistency
from rewards.length import length_factors
from rewards.math.grade import grade_math
from rewards.router import RewardConfig, combine_group
from rewards.sandbox import CallResult, Job, JobResult
from rewards.sandbox.records import Status
from rewards.types import Reward, Verdict

MATH_TRUTHS = ("7", "-3/4", "50\\%", "(1, 2)", "\\{1, 2, 3\\}", "[0, 1)", "x^2+1", "\\sqrt{2}", "2\\pi", "1+2i")
LANGUAGES = ("en", "zh", "ja", "ru", "de", "fr")
TRUTHS: dict[str, tuple[Any, ...]] = {
    "math": MATH_TRUTHS,
    "exact": ("Paris", "3.5"),
    "set": ("a, b, c", ["a", "b,c"]),
    "list": ("a, b, c", ["a", "b,c"]),
    "choice": ("B",),
    "qa": ("the Eiffel Tower", ["Paris", "巴黎"]),
    "f1": ("the Eiffel Tower in Paris", ["7", "seven"]),
    "json": ({"a": [1, 2.5, None]}, "text", [True]),
    "instructions": ([{"kind": "sentences", "min": 1, "max": 3}, {"kind": "language", "language": "zh"}],),
}
_VALUES: dict[str, Any] = {"text": "art", "texts": ["art", "海"], "number": 2, "letter": "e", "share": 0.5}


class ScriptedWorker:
    """In the place of the sandbox: whatever it is asked to run ends as the text says. A part that is JSON is what a
    call returned; a status may stand before it (`wall_limit:…`)."""

    def __init__(self, parts: list[str]) -> None:
        self._parts = itertools.cycle(parts or [""])

    def run(self, job: Job) -> JobResult:
        status, _, rest = next(self._parts).partition(":")
        if status not in get_args(Status):
            status, rest = "ok", f"{status}{_}{rest}"
        results = tuple(CallResult(True, _json(next(self._parts))) for _ in job.calls)
        return JobResult(status, stdout=rest, stderr=rest, error=rest, results=results[: len(rest) or None])  # type: ignore[arg-type]

    def run_many(self, jobs: list[Job]) -> list[JobResult]:
        return [self.run(job) for job in jobs]


def extract(text: str) -> object:
    found: list[object] = []
    for mode, finished in itertools.product(("thinking", "direct"), (True, False)):
        split = timed(split_thinking, text, mode, finished)  # type: ignore[arg-type]
        found.append(split)
        if not isinstance(split, FormatError):
            found += [timed(boxed_answer, split.answer_text), timed(code_block, split.answer_text)]
    return found


def mathematics(text: str) -> object:
    """Without a worker: what only sympy could tell is invalid."""
    answer, _, truth = text.partition("\0")
    verdicts = [_verdict(timed(grade_math, answer, gold, None)) for gold in MATH_TRUTHS]
    return [*verdicts, _verdict(timed(grade_math, answer, truth, None))]


def answers(text: str) -> object:
    """Every grader that a task can name, with good truths and with whatever the second part says."""
    answer, _, other = text.partition("\0")
    said: list[object] = []
    for kind in GRADERS:
        said += [_verdict(timed(grade_answer, kind, answer, truth)) for truth in TRUTHS[kind]]
        said += [_verdict(timed(grade_answer, kind, rf"\boxed{{{answer}}}", truth)) for truth in TRUTHS[kind]]
        truth = _json(other)
        said.append(timed(truth_problem, kind, truth))
        said.append(_verdict(timed(grade_answer, kind, answer, truth)))
        said.append(_verdict(timed(grade_answer, kind, answer, truth, [other, answer, "c"])))
    return said


def code(text: str) -> object:
    source, *parts = text.split("\0")
    worker: Any = ScriptedWorker(parts)
    tests = [{"args": [1], "result": 1}, {"args": [], "result": [1.5, {"a": None}], "tolerance": 1e-6}]
    calls = [{"module": "main", "function": "f", **test} for test in tests]
    values = [_json(part) for part in parts[:8]]
    return [
        _verdict(
            timed(grade_program, source, [{"stdin": "1\n", "stdout": "1\n"}, {"stdin": "", "stdout": ""}], worker)
        ),
        _verdict(timed(grade_function, source, "f", tests, worker)),
        _verdict(timed(grade_files, {source: source}, {"test.py": ""}, calls, worker)),
        [_compared(compare, a, b) for compare in FUNCTION_CHECKERS.values() for a in values for b in values],
        [_compared(compare, a, b) for compare in PROGRAM_CHECKERS.values() for a in parts[:8] for b in parts[:8]],
    ]


def _compared(compare: Compare, given: Any, wanted: Any) -> object:
    try:
        said = [timed(compare, given, wanted, tolerance) for tolerance in (None, 1e-6)]
    except CheckerError as error:
        return str(error)
    assert all(isinstance(one, bool) for one in said), said
    return said


def language(text: str) -> object:
    scores = [timed(language_consistency, text, name, LANGUAGES) for name in LANGUAGES]
    scores.append(timed(language_consistency, text, "en"))
    for score in scores:
        assert score.share is None or 0.0 <= score.share <= 1.0, score
    return scores


def checks(text: str) -> object:
    """Every check of the registry, with settings of the right kind and with what the second part says."""
    answer, _, other = text.partition("\0")
    said: list[object] = []
    for kind, check in CHECKS.items():
        spec: dict[str, Any] = {"kind": kind}
        spec |= {name: _VALUES[what] for name, what in {**check.required, **check.optional}.items()}
        spec |= {"min": 1, "max": 3} if check.counts else {}
        spec |= {"language": "zh", "languages": ["en", "zh"]} if kind == "language" else {}
        assert timed(instruction_problem, [spec]) is None, spec
        said.append(timed(check_criterion, spec, answer))
        assert isinstance(said[-1], bool), said[-1]
        texts = {name: other for name, what in check.required.items() if what == "text"}
        if texts and timed(instruction_problem, [spec | texts]) is None:
            said.append(timed(check_criterion, spec | texts, answer))
    return [*said, timed(instruction_problem, _json(other))]


def router(text: str) -> object:
    """Each character is a sample: its code point gives the length and, by its last two bits, the verdict."""
    codes = [ord(character) for character in text[:256]]
    correct = [(None, False, True, True)[number % 4] for number in codes]
    lengths = [number // 4 for number in codes]
    factors = timed(length_factors, lengths, correct, max_length=4096)
    assert all(0.8 - 1e-9 <= factor <= 1.0 for factor in factors), factors
    verdicts = [Verdict(one, "reason") for one in correct]
    scores = [LanguageScore((number % 101) / 100 if number % 7 else None) for number in codes]
    rewards = timed(combine_group, "verifiable", verdicts, lengths, scores, RewardConfig(max_length=4096))
    right = [r.value for r, one in zip(rewards, correct, strict=True) if one and r.value is not None]
    wrong = [r.value for r, one in zip(rewards, correct, strict=True) if one is False and r.value is not None]
    assert not right or not wrong or min(right) > max(wrong), "a wrong answer is paid as much as a right one"
    assert all(reward.valid == (one is not None) for reward, one in zip(rewards, correct, strict=True))
    return [(reward.value, reward.invalid_reason) for reward in rewards]


def rewards_from_json(text: str) -> object:
    """A record of a reward that was tampered with is refused by `ValueError`, `KeyError` or `TypeError`."""
    try:
        reward = timed(Reward.from_json, _json(text))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return type(error).__name__
    return reward


def _verdict(verdict: Verdict) -> Verdict:
    assert isinstance(verdict, Verdict) and verdict.correct in (True, False, None) and verdict.reason, verdict
    # Evidence goes into the rollouts file.
    json.dumps(verdict.evidence)
    return verdict


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


BOXED = r"I think.</think>So \boxed{7}."
TARGETS = (
    Target("extract", extract, (BOXED, "a</think>b</think>", "t</think>```python\nprint(1)\n```", r"\boxed{\}{")),
    Target(
        "math",
        mathematics,
        (
            *("7", "7.0\0007", r"\frac{3}{4}", r"-\frac34", "50%", "1,000,000", "1 3/4", "(1,2)", "[0,1)", "{3,2,1}"),
            *(r"x^2+2x+1", r"2\sqrt{2}", r"3\pi", "1+2i", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", "12:30", "１２"),
            *(r"\sum_{i=1}^{100} i", "x=5=7", "9^{9^{9^{9}}}", "((((((((((", "1e999", "10^{10^{10}}", r"\text{A}"),
            *("(1+x)^30*(1-x)^30", r"\sqrt{\sqrt{\sqrt{2}}}+\sqrt[3]{5}", "((((1/3)/7)/9)^{20})^{20}", "1/0", "0^{-1}"),
        ),
    ),
    Target(
        "answers",
        answers,
        (
            *("Paris", "b)", 'a, b,c\0["a", 1]', "(A)", "[a,b]\0{}", "A or B\0B", "\u200bParis\u00ad", "B) b\0b"),
            *('{"a": [1, 2.5, null]}\0[{"kind": "max_words"}]', "[" * 3000, "1" * 5000, "1e999999999", "the " * 2000),
        ),
    ),
    Target(
        "code", code, ("print(1)\0001\0[1.5, {}]", "f\0wall_limit:x\0NaN", "x\0sandbox_error:\0" + "[" * 2000, "../a\0")
    ),
    Target(
        "language",
        language,
        (
            "The answer is that it works. 因为它很好。これは日本語です。",
            "```\ncode",
            "$x$ \\text{hello}",
            "Привет, мир.",
        ),
    ),
    Target(
        "checks",
        checks,
        (
            "The art. 海 The end.\0art",
            "# T\n\n* a, b\n\n<<t>> [x] *y*\nP.S. no",
            "One. Two! 四。\0.",
            "```\nart\n```\0\u200b",
        ),
    ),
    Target("router", router, ("abcd", "\0\1\2\3", "\uffff\uffffab", "aaaa")),
    Target(
        "rewards_from_json",
        rewards_from_json,
        (
            '{"value": 1.0, "components": [], "invalid_reason": null, "passed": true}',
            json.dumps(Reward.invalid("reason").to_json()),
        ),
    ),
)
