"""What counts as the right output: tokens, JSON values, named checkers, and checkers that come as source."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.checkers import json_equal, tokens_equal
from rewards.code import grade_function, grade_program

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
def test_json_equal_is_reflexive_and_sees_wrapping(value):
    assert json_equal(value, value)
    assert not json_equal([value], value)


def test_json_types_are_exact():
    for a, b in [
        (True, 1),
        (1, 1.0),
        (0, False),
        (None, 0),
        ("1", 1),
        ([], {}),
        (float("nan"), float("nan")),
    ]:
        assert not json_equal(a, b)
    assert not json_equal(float("nan"), 1.0, tolerance=1.0)


def test_tolerance_takes_whole_numbers_for_floats_and_nothing_for_infinity():
    for got, expected in [(2, 2.0), (0.30000000000000004, 0.3), ([1, 2.5], [1.0, 2.5]), (1e300, 1e300 * (1 + 1e-9))]:
        assert json_equal(got, expected, tolerance=1e-6)
    for got, expected in [
        (True, 1.0),
        ("2.0", 2.0),
        (2.0, 2),
        (1000001, 1000000),
        (5, float("inf")),
        (10**400, 1.0),
        (float("nan"), float("nan")),
        (2.1, 2.0),
    ]:
        assert not json_equal(got, expected, tolerance=1e-6)


def test_nesting_is_bounded():
    deep = shallow = 1
    for level in range(500):
        deep = [deep]
        shallow = [shallow] if level < 60 else shallow
    assert json_equal(shallow, shallow)
    assert not json_equal(deep, deep)


@pytest.mark.parametrize(
    ("output", "expected", "tolerance", "right"),
    [
        ("1  2\n3\r\n", "1 2 3", None, True),
        ("1\x002", "1 2", None, False),
        ("1\u00a02", "1 2", None, False),
        ("1\u30002", "1 2", None, False),
        ("\x1b[2K12", "12", None, False),
        ("13\r12", "12", None, False),
        ("12 ", "123", None, False),
        ("123", "12", None, False),
        ("0.5", "0.50", None, False),
        ("0.5", "0.50", 0.0, True),
        (".3333334", "0.333333333", 1e-6, True),
        ("3.34e-1", "0.333333333", 1e-6, False),
        ("1000001", "1000000", 1e-6, False),
        ("3.0", "3", 1e-6, False),
        ("3", "3.0", 1e-6, True),
        ("nan", "0.5", 1.0, False),
        ("nan", "nan", 1.0, True),  # the same word: a problem may ask for it
        ("inf", "1e300", 1.0, False),
        ("1e999", "1e999", 1e-6, True),
        ("1e999", "1.5e999", 1e-6, False),
        ("1e400", "0.5", 1.0, False),
        ("0_5.0", "5.0", 1e-6, False),
        ("\u0665.0", "5.0", 1e-6, False),
    ],
)
def test_tokens(output, expected, tolerance, right):
    assert tokens_equal(output, expected, tolerance) is right


@given(st.text(max_size=30), st.text(max_size=30))
def test_what_tokens_accept_has_the_same_visible_characters(output, expected):
    def squeezed(text):
        return "".join(character for character in text if character not in " \t\n\r\v\f")

    assert tokens_equal(output, output)
    if tokens_equal(output, expected):
        assert squeezed(output) == squeezed(expected)


@pytest.mark.parametrize(
    ("checker", "expected", "right", "wrong"),
    [
        ("tokens", "a b", "a\nb", "b a"),
        ("lines", "a b\nc", "a  b\nc\n\n", "a b c"),
        ("any_order", "a b\nc", "c\na b", "b a\nc"),
        ("any_order", "a\na\nb", "a\nb\na", "a\nb\nb"),
        ("caseless", "YES", "Yes", "no"),
        ("caseless", "k", "K", "\u212a"),
        ("one_of", ["1 2", "2 1"], "2 1", "1 2 2 1"),
    ],
)
def test_named_checkers_of_programs(worker, checker, expected, right, wrong):
    tests = [{"stdin": "", "stdout": expected}]
    assert grade_program(f"print({right!r})", tests, worker, checker).correct is True
    assert grade_program(f"print({wrong!r})", tests, worker, checker).reason == "wrong"


def test_named_checkers_of_functions(worker):
    pairs = [{"args": [3], "result": [1, 2, 3]}]
    backwards, doubled = "def f(n): return [3, 2, 1]", "def f(n): return [3, 2, 2, 1]"
    assert grade_function(backwards, "f", pairs, worker).reason == "wrong"
    assert grade_function(backwards, "f", pairs, worker, "any_order").correct is True
    assert grade_function(doubled, "f", pairs, worker, "any_order").reason == "wrong"
    assert grade_function("def f(n): return [True, 2, 3]", "f", pairs, worker, "any_order").reason == "wrong"
    either = [{"args": [4], "result": [-2, 2]}]
    assert grade_function("def f(n): return -2", "f", either, worker, "one_of").correct is True
    assert grade_function("def f(n): return [-2, 2]", "f", either, worker, "one_of").reason == "wrong"
    single = [{"args": [4], "result": 2}]
    assert grade_function("def f(n): return 2", "f", single, worker, "one_of").reason == "bad_tests"


FACTORS = """
def check(given, output):
    parts = [int(word) for word in output.split()]
    return len(parts) == 2 and min(parts) > 1 and parts[0] * parts[1] == int(given)
"""


def test_a_checker_as_source(worker):
    tests = [{"stdin": "91", "stdout": "7 13"}, {"stdin": "77", "stdout": "7 11"}]
    unknown = [{"stdin": "91"}, {"stdin": "77"}]
    checker = {"source": FACTORS}
    search = "n = int(input())\nd = next(d for d in range(2, n) if n % d == 0)\nprint(n // d, d)"
    for problem in (tests, unknown):
        assert grade_program(search, problem, worker, checker).correct is True
        assert grade_program("print(1, input())", problem, worker, checker).reason == "wrong"
    # An output that breaks the checker is wrong where the known output does not; without one nobody knows.
    assert grade_program("print('x')", tests, worker, checker).reason == "wrong"
    assert grade_program("print('x')", unknown, worker, checker).reason == "checker_error"
    hangs = {"source": "def check(given, output):\n    while output == '1\\n': pass\n    return True"}
    assert grade_program("print(1)", tests, worker, hangs).reason == "wrong"


@pytest.mark.parametrize(
    "source",
    [
        "def check(given, output): return 1",
        "def check(given, output): return None",
        "def check(given, output): raise ValueError",
        "def other(given, output): return True",
        "def check(given, output",
        "def check(given, output):\n    while True: pass",
        "import os; os._exit(0)",
    ],
)
def test_a_checker_that_fails_gives_no_verdict(worker, source):
    tests = [{"args": [2], "result": 4}]
    verdict = grade_function("def f(x): return x * x", "f", tests, worker, {"source": source})
    assert (verdict.correct, verdict.reason) == (None, "checker_error")


def test_a_result_that_is_no_json_is_wrong_and_not_the_checkers_fault(worker):
    tests = [{"args": [2]}]
    accept = {"source": "def check(args, result): return True"}
    assert grade_function("def f(x): return 1", "f", tests, worker, accept).correct is True
    nan = "import os\ndef f(x):\n    os.write(3, b'[{\"value\": NaN}]')\n    os._exit(0)"
    deep = "import os\ndef f(x):\n    os.write(3, b'[{\"value\":' + b'[' * 900 + b']' * 900 + b'}]')\n    os._exit(0)"
    for source in (nan, deep):
        assert grade_function(source, "f", [{"args": [2], "result": 1}], worker).correct is False
    assert grade_function(nan, "f", tests, worker, accept).correct is False
