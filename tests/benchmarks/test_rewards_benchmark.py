"""What `python -m benchmarks.rewards` counts and how it times; the rivals themselves are run by the benchmark."""

from __future__ import annotations

from benchmarks import reward_hangs
from benchmarks.reward_inputs import EXPRESSION, FUNCTION, HONEST, LITERAL, PROGRAM, PROGRAM_TESTS, WRONG
from benchmarks.reward_rivals import PlainSubprocess
from benchmarks.rewards import Contender, judged, take_turns
from rewards.math.grade import grade_math


def test_inputs_are_what_their_names_say():
    assert all(grade_math(*pair, None).correct is not None for pair in (*LITERAL, *EXPRESSION))
    assert all(grade_math(*pair, None).correct is None for pair in FUNCTION)
    assert not set(HONEST) & set(WRONG)


def test_false_positives_and_negatives_are_counted_apart_from_no_opinion():
    said = {HONEST[0]: False, HONEST[1]: None, WRONG[0]: True}
    row = judged("someone", lambda pair: said.get(pair, pair in HONEST))
    assert (row["right_refused"], row["wrong_paid"], row["no_opinion"]) == ([HONEST[0]], [WRONG[0]], 1)
    assert (row["right"], row["wrong"]) == (len(HONEST), len(WRONG))


def test_contenders_take_turns_on_the_same_inputs():
    calls: list[tuple[str, int]] = []
    contenders = [
        Contender("a", lambda one: calls.append(("a", one))),
        Contender("b", lambda one: calls.append(("b", one)), lambda many: calls.append(("b", len(many)))),
    ]
    rows = take_turns("kind", [1, 2], contenders, seconds=0.0)
    assert calls == [("a", 1), ("a", 2), ("b", 1), ("b", 2), ("b", 2)] * 3
    assert [(row["contender"], row["grades"]) for row in rows] == [("a", 4), ("b", 4)], "the first round is a warm-up"
    assert all(row["p95_ms"] >= row["median_ms"] > 0 for row in rows)


def test_a_plain_subprocess_grades_the_same_program():
    plain = PlainSubprocess()
    assert plain.program(PROGRAM, PROGRAM_TESTS)
    assert not plain.program("print(0)", PROGRAM_TESTS)
    plain.close()


def test_a_trial_that_never_ends_is_killed_and_said_so():
    found = reward_hangs.trial("plain_subprocess", deadline_s=0.5)
    assert found == {"ended": "no: killed after 0.5 s"}
