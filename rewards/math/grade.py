r"""Mathematics: is this final answer the truth?

Three opinions. The first is ours and exact (`answer` reads both texts to trees by an allow-list, `compare`
and `form` compare them in rational arithmetic with bounded exponents); where it decides, nobody else is asked.
Only for what it leaves open (a sine, a nested root) are sympy, on the same trees, and Math-Verify, on the texts, asked
inside the killable child: both can hang in a way that only SIGKILL ends, and sympy's string parsers run code.

An answer is refused before any comparison for being unfinished work: an operator or function that the truth does
without (`\sum`, `\int`, `\binom`, `!`, `\sin`), arithmetic on plain numbers where the truth has none (`3+4` for 7), a
relation where the truth is none, several answers for one, or the question's own expression. The conventions (percent,
units, order, equations) stand in `compare`.
"""

from __future__ import annotations

import re

from rewards.math.answer import CURRENCIES, operators, read, relation_count
from rewards.math.compare import STRUCTURES, as_set, carried_out, check_scalars, compare, symbols, unevaluated
from rewards.math.form import same
from rewards.math.numeric import differ
from rewards.math.poly import TooLarge
from rewards.math.text import MAX_CHARS, NotUnderstood, clean, squeeze, tokenize
from rewards.math.tree import FUNCTIONS, Node
from rewards.sandbox import Job, SandboxWorker
from rewards.types import Verdict

OPINION = "rewards.math.opinion:compare_texts"
_MIN_ECHO = 4
"""Characters from which an expression found in the question counts as copied."""

_IDLE_BRACES = re.compile(r"\^\{([A-Za-z0-9])\}")


def grade_math(answer: str, truth: str, worker: SandboxWorker | None, question: str = "") -> Verdict:
    """Compare an extracted answer (see `extract.boxed_answer`) with the task's truth.

    `question` is the task's text, by which an echo of its expression is told from an answer; "" where it is not known.

    Correct is None (invalid) when the exact comparison leaves the case open and there is no worker, the child times out
    or fails, or nobody has an opinion. `evidence["opinions"]` then holds what sympy and Math-Verify said, and
    `evidence["disagreement"]` is true where they contradict each other. Reasons of a wrong answer: too_long, empty,
    unknown_sign, not_understood, too_deep, too_large, exponent_too_large, too_many_items, division_by_zero,
    zero_to_the_zero, not_a_scalar, unevaluated, relation, several_answers, unit, echo, different, different_text.
    """
    if len(answer) > MAX_CHARS:
        return Verdict(False, "too_long", {"chars": len(answer)})
    given_text, gold_text = clean(answer), clean(truth)
    evidence = {"answer": given_text, "truth": gold_text}
    if not given_text:
        return Verdict(False, "empty")
    if squeeze(given_text) == squeeze(gold_text):
        return Verdict(True, "same_text", evidence)
    if not _is_mathematical(gold_text):
        alike = squeeze(given_text).casefold() == squeeze(gold_text).casefold()
        return Verdict(alike, "same_text" if alike else "different_text", evidence)
    gold, unbounded = _read_truth(truth)
    given: Node | None = None
    try:
        left = _left_open(operators(answer), gold, truth)
        if left:
            return Verdict(False, "unevaluated", {**evidence, "operators": sorted(left)})
        if gold is None and relation_count(answer) != relation_count(truth):
            return Verdict(False, "relation", evidence)
        given = read(answer)
        check_scalars(given)
    except NotUnderstood as error:
        if gold is not None or error.reason != "not_understood":
            return Verdict(False, error.reason, evidence)
    except TooLarge as error:
        if not unbounded:
            return Verdict(False, "exponent_too_large" if str(error) == "power" else "too_large", evidence)
    if gold is not None and given is not None:
        refused = _refusal(gold, given, given_text, gold_text, question)
        if refused:
            return Verdict(False, refused, evidence)
        decided = compare(gold, given, _decide)
        if decided is not None:
            return Verdict(decided, "equal" if decided else "different", evidence)
    return _ask(given_text, gold_text, worker)


def _decide(gold: Node, given: Node) -> bool | None:
    """Two scalars, exactly, or different by a clear gap between their numbers."""
    try:
        exact = same(gold, given)
    except TooLarge:
        exact = None
    return False if exact is None and differ(gold, given) else exact


def _is_mathematical(cleaned: str) -> bool:
    """Whether every sign is one of mathematics. A truth with others (another script, a sentence) is a text and is
    compared as one."""
    try:
        tokenize(cleaned)
    except NotUnderstood:
        return False
    return True


def _read_truth(truth: str) -> tuple[Node | None, bool]:
    """The truth's tree, None where it is outside the grammar or the bounds, so that only the child can compare it; and
    whether it is the bounds."""
    try:
        gold = read(truth)
        check_scalars(gold)
    except NotUnderstood:
        return None, False
    except TooLarge:
        return None, True
    return gold, False


def _left_open(given: frozenset[str], gold: Node | None, truth: str) -> frozenset[str]:
    r"""The operators of the answer that the truth does without. Where the truth is a function of its symbols, written
    with sines or the like, all elementary functions may stand in the answer: `2\sin x\cos x` is `\sin 2x`."""
    done = operators(truth)
    if gold is not None and symbols(gold) and done & FUNCTIONS:
        done |= FUNCTIONS
    return given - done


def _refusal(gold: Node, given: Node, given_text: str, gold_text: str, question: str) -> str:
    """Why an answer is none whatever its value is; "" where it may be compared."""
    says_set = gold.kind in ("group", "union", "relation") and as_set(given) is not None
    if given.kind == "relation" and gold.kind != "relation" and not says_set:
        return "relation"
    if given.kind == "group" and given.text == "" and gold.kind != "group" and not says_set:
        return "several_answers"
    if given.kind == "measure" and gold.kind not in STRUCTURES and given.text not in CURRENCIES:
        return "unit"
    if unevaluated(gold, given):
        return "unevaluated"
    if _is_echo(gold, given, given_text, gold_text, question):
        return "echo"
    return ""


def _is_echo(gold: Node, given: Node, given_text: str, gold_text: str, question: str) -> bool:
    """Work to be done that stands in the question while the truth, as written, does not: nobody has done it."""
    converted = given.kind == "relation" and gold.kind != "relation"
    if given == gold or (carried_out(given) and not converted):
        return False
    asked, copied, truth = (
        _IDLE_BRACES.sub(r"^\1", squeeze(text)) for text in (clean(question), given_text, gold_text)
    )
    return len(copied) >= _MIN_ECHO and copied in asked and truth not in asked


def _ask(given: str, gold: str, worker: SandboxWorker | None) -> Verdict:
    """The opinions of sympy and Math-Verify. sympy is exact and speaks first; Math-Verify rounds to six decimals and
    takes the last of a chain, so it speaks where sympy cannot."""
    if worker is None:
        return Verdict.invalid("no_sandbox_worker", detail="what the exact comparison leaves open needs a worker")
    result = worker.run(Job.trusted_call(OPINION, given, gold))
    if result.status != "ok":
        return Verdict.invalid(f"math_grader_{result.status}", error=result.error, stderr=result.stderr[-500:])
    call = result.results[0]
    if not call.ok:
        return Verdict.invalid("math_grader_failed", error=call.error)
    opinions = call.value
    by_sympy, by_math_verify = opinions["sympy"], opinions["math_verify"]
    evidence = {
        "answer": given,
        "truth": gold,
        "opinions": opinions,
        "disagreement": None not in (by_sympy, by_math_verify) and by_sympy != by_math_verify,
    }
    decisive = by_sympy if by_sympy is not None else by_math_verify
    if decisive is not None:
        return Verdict(decisive, "equivalent" if decisive else "different", evidence)
    if opinions["truth_parsed"] and not opinions["answer_parsed"]:
        return Verdict(False, "not_understood", evidence)
    return Verdict(None, "no_opinion" if opinions["truth_parsed"] else "truth_not_understood", evidence)
