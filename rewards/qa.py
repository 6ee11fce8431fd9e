"""Graders of questions with a short free answer: exact match and token F1 after SQuAD (arXiv:1606.05250).

Two rules differ from the original script, because a reward is optimised and a leaderboard is not. Characters that
change a value stay (3.5 is not 35, -3 not 3, C# not C). And F1 is a threshold, counted in order, see `grade_f1`.
"The truth is covered somewhere in the answer" (cover-EM) is not offered: it pays an answer that lists everything.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

from rewards.exact import unwrap, visible
from rewards.types import Verdict

MIN_F1 = 0.8
"""The least F1 that is right. Above 2/3 on purpose: the truth beside one wrong alternative of its own length has
precision 1/2 and recall 1, which is 2/3."""

_ARTICLES = frozenset(("a", "an", "the"))
# Commas between thousands, and a space before a percent sign.
_GROUPED = re.compile(r"(?<=\d),(?=\d{3}(?!\d))|(?<=\d)\s+(?=%)")
_TOKEN = re.compile(
    # A wide character (Han, kana, hangul) is a token of its own, as in Chinese SQuAD-like scoring (CMRC 2018).
    r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]"
    r"|(?<![^\W_])[-+]?\d+(?:[.,:/]\d+)*%?"
    r"|[^\W\d_]+(?:[#+]+(?!\w))?|[^\W_]|[^\w\s]"
)
_DECISIVE = frozenset(
    ("no", "not", "never", "none", "neither", "nor", "non", "without", "cannot", "except", "or", "either")
) | frozenset("不没非无未否别或")
"""Words that turn an answer around or leave it open; numbers count among them."""


def grade_qa(answer: str, truths: Sequence[str]) -> Verdict:
    """Exact match with any accepted truth, token by token, without case, articles and punctuation."""
    given, accepted = tokens(answer), _accepted(truths)
    evidence = {"answer": " ".join(given), "accepted": [" ".join(gold) for gold in accepted]}
    return Verdict(True, "equal", evidence) if given and given in accepted else Verdict(False, "different", evidence)


def grade_f1(answer: str, truths: Sequence[str]) -> Verdict:
    """Right from a token F1 of `MIN_F1` against any accepted truth.

    With c = the tokens of the longest common subsequence, P = c / |answer|, R = c / |truth|: F1 = 2PR / (P + R).
    This is never above SQuAD's (a bag of tokens), and equal to it where the order agrees: "Ann beat Bob" is not
    "Bob beat Ann". Numbers and the words of `_DECISIVE` (not, or, 不, …) must occur exactly as in the truth:
    "not guilty" is no variant of "guilty", nor "1912" of "1913", and alternatives are no answer.
    """
    given, accepted = tokens(answer), _accepted(truths)
    scores = [f1(given, gold) for gold in accepted]
    fitting = [score for score, gold in zip(scores, accepted, strict=True) if _decisive(given) == _decisive(gold)]
    evidence = {
        "answer": " ".join(given),
        "accepted": [" ".join(gold) for gold in accepted],
        "f1": round(max(scores), 4),
    }
    if max(fitting, default=0.0) >= MIN_F1:
        return Verdict(True, "overlaps", evidence)
    return Verdict(False, "contradicts" if max(scores) >= MIN_F1 else "different", evidence)


def tokens(text: str) -> list[str]:
    """Words, numbers with their sign and point, and wide characters, in order; articles and punctuation left out."""
    folded = visible(unicodedata.normalize("NFKC", unwrap(text)).casefold())
    found = _TOKEN.findall(_GROUPED.sub("", folded.replace("'", "").replace("’", "")))
    kept = [token for token in found if unicodedata.category(token[0])[0] != "P" or len(token) > 1]
    without = [token for token in kept if token not in _ARTICLES]
    # A name that is made of articles only ("The The") keeps them.
    return without or (kept if len(kept) > 1 else [])


def f1(given: Sequence[str], gold: Sequence[str]) -> float:
    """F1 of two token lists, their overlap counted in order; in [0, 1]."""
    common = _common_subsequence(given, gold)
    return 2 * common / (len(given) + len(gold)) if common else 0.0


def _common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    best = [0] * (len(second) + 1)
    for token in first:
        diagonal = 0
        for index, other in enumerate(second, 1):
            above = best[index]
            best[index] = diagonal + 1 if token == other else max(above, best[index - 1])
            diagonal = above
    return best[-1]


def _decisive(found: Sequence[str]) -> Counter[str]:
    return Counter(token for token in found if token in _DECISIVE or any(map(str.isdigit, token)))


def _accepted(truths: Sequence[str]) -> list[list[str]]:
    accepted = [gold for truth in truths if (gold := tokens(truth))]
    if not accepted:
        raise ValueError(f"a question needs an accepted answer that is not empty, got {list(truths)!r}")
    return accepted
