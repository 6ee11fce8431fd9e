"""The graders that a task can name: how its answer is read, what its truth must look like, how the two are compared.

    kind           reads    truth
    math           a box    text, compared as mathematics (as text where it has signs that are none of mathematics)
    exact          a box    text
    set, list      a box    a list of texts, or one text with its items separated by commas
    choice         a box    the letter of one choice; with `choices`, its text counts too
    qa, f1         a box    a text, or a list of accepted texts
    json           all      a JSON value
    instructions   all      a list of checks (`rewards.instructions`), each of which must hold

"A box" is the one `\\boxed{…}` after the thinking; "all" is everything after the thinking.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rewards.choice import choice_of, grade_choice
from rewards.exact import grade_exact, grade_ordering, grade_set, split_items
from rewards.extract import FormatError, boxed_answer
from rewards.instructions import check_instructions, instruction_problem
from rewards.json_value import grade_json, json_problem
from rewards.math.grade import grade_math
from rewards.qa import grade_f1, grade_qa, tokens
from rewards.sandbox import SandboxWorker
from rewards.types import Verdict

DEFAULT = "math"
"""The grader of a task that names none."""

Grade = Callable[[str, Any, Sequence[str], SandboxWorker | None], Verdict]


@dataclass(frozen=True)
class AnswerGrader:
    """One row of the table.

    Attributes:
        grade: from the answer, the truth, the choices and a sandbox to a verdict.
        problem: why a truth (with these choices) can not be used, as a sentence; None where it can.
        boxed: whether the answer is the content of a box, or all of the text after the thinking.
    """

    grade: Grade
    problem: Callable[[Any, Sequence[str]], str | None]
    boxed: bool = True


def grade_answer(
    kind: str, text: str, truth: Any, choices: Sequence[str] = (), sandbox: SandboxWorker | None = None
) -> Verdict:
    """The verdict on `text`, what the policy wrote after its thinking. A truth that its grader can not use gives
    *invalid*: nobody can say then whether the answer is right. Raises `ValueError` for an unknown kind.
    """
    if (problem := truth_problem(kind, truth, choices)) is not None:
        return Verdict.invalid(problem)
    grader = GRADERS[kind]
    answer = boxed_answer(text) if grader.boxed else text
    if isinstance(answer, FormatError):
        return Verdict(False, answer.name, {"detail": answer.detail})
    return grader.grade(answer, truth, choices, sandbox)


def truth_problem(kind: str, truth: Any, choices: Sequence[str] = ()) -> str | None:
    """Why a task with this grader, truth and choices can not be graded; None where it can.

    Raises `ValueError` for an unknown kind.
    """
    if kind not in GRADERS:
        raise ValueError(f"unknown grader {kind!r}; there are: {', '.join(GRADERS)}")
    if choices and kind != "choice":
        return f"the grader {kind!r} takes no choices; the grader 'choice' does"
    return GRADERS[kind].problem(truth, choices)


def _grade_math(answer: str, truth: Any, choices: Sequence[str], sandbox: SandboxWorker | None) -> Verdict:
    return grade_math(answer, str(truth), sandbox)


def _is_text(truth: Any) -> bool:
    return isinstance(truth, str) and bool(truth.strip())


def _text_problem(truth: Any, choices: Sequence[str]) -> str | None:
    return None if _is_text(truth) else f"expected a text that is not empty, got {truth!r}"


def _items_problem(truth: Any, choices: Sequence[str]) -> str | None:
    if _is_text(truth) or (isinstance(truth, Sequence) and truth and all(map(_is_text, truth))):
        return None
    return f"expected a list of texts, or one text with its items separated by commas, got {truth!r}"


def _items(truth: Any) -> list[str]:
    return split_items(truth, ()) if isinstance(truth, str) else list(truth)


def _choice_problem(truth: Any, choices: Sequence[str]) -> str | None:
    if isinstance(truth, str) and len(truth.strip()) == 1 and choice_of(truth, choices) is not None:
        return None
    return f"expected the letter of one of {len(choices) or 'the'} choices, got {truth!r}"


def _accepted_problem(truth: Any, choices: Sequence[str]) -> str | None:
    accepted = _accepted(truth)
    if accepted and all(isinstance(text, str) and tokens(text) for text in accepted):
        return None
    return f"expected a text, or a list of accepted texts, each with a word in it, got {truth!r}"


def _accepted(truth: Any) -> list[Any]:
    return list(truth) if isinstance(truth, Sequence) and not isinstance(truth, str) else [truth]


GRADERS: Mapping[str, AnswerGrader] = {
    "math": AnswerGrader(_grade_math, lambda truth, choices: _text_problem(str(truth), choices)),
    "exact": AnswerGrader(lambda answer, truth, choices, sandbox: grade_exact(answer, truth), _text_problem),
    "set": AnswerGrader(lambda answer, truth, choices, sandbox: grade_set(answer, _items(truth)), _items_problem),
    "list": AnswerGrader(lambda answer, truth, choices, sandbox: grade_ordering(answer, _items(truth)), _items_problem),
    "choice": AnswerGrader(
        lambda answer, truth, choices, sandbox: grade_choice(answer, truth, choices), _choice_problem
    ),
    "qa": AnswerGrader(lambda answer, truth, choices, sandbox: grade_qa(answer, _accepted(truth)), _accepted_problem),
    "f1": AnswerGrader(lambda answer, truth, choices, sandbox: grade_f1(answer, _accepted(truth)), _accepted_problem),
    "json": AnswerGrader(
        lambda answer, truth, choices, sandbox: grade_json(answer, truth),
        lambda truth, choices: json_problem(truth),
        boxed=False,
    ),
    "instructions": AnswerGrader(
        lambda answer, truth, choices, sandbox: check_instructions(truth, answer),
        lambda truth, choices: instruction_problem(truth),
        boxed=False,
    ),
}
"""kind -> grader. The kinds are what the field `grader` of a task may hold."""
