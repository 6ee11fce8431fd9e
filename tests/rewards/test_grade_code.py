import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.code import grade_files, grade_function, grade_program, json_equal
from rewards.sandbox import JobResult

SQUARES = [{"stdin": str(i), "stdout": f"{i * i}\n"} for i in range(10)]
DOUBLES = [{"args": [i], "result": 2 * i} for i in range(5)]


class Broken:
    def run(self, job):
        return JobResult("sandbox_error", error="no helper")

    def run_many(self, jobs):
        return [self.run(job) for job in jobs]


def test_right_programs(worker):
    assert grade_program("print(int(input()) ** 2)", SQUARES, worker).correct is True
    assert grade_function("def f(x): return 2 * x", "f", DOUBLES, worker).correct is True


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import os; os._exit(0)", "wrong_output"),
        ("n = int(input())\nprint(n * n if n < 9 else 0)", "wrong_output"),
        ("print(int(input()) ** 2, 1)", "wrong_output"),
        ("print('\\x1b[2K\\r' + str(int(input()) ** 2))", "wrong_output"),
        ("print(str(int(input()) ** 2) + '\\0')", "wrong_output"),
        ("print(float(int(input()) ** 2))", "wrong_output"),
        ("print(0 / 0)", "runtime_error"),
        ("while True: pass", "cpu_limit"),
        ("print(open('tests.json').read())", "runtime_error"),
    ],
)
def test_wrong_programs(worker, source, reason):
    verdict = grade_program(source, SQUARES, worker)
    assert (verdict.correct, verdict.reason) == (False, reason)
    assert 0 <= verdict.evidence["first_failure"] < 10


@pytest.mark.parametrize(
    "source",
    [
        "def f(x): return True",
        "def f(x): return float(2 * x)",
        "def f(x): return str(2 * x)",
        "def f(x): return [2 * x]",
        "class E:\n    def __eq__(self, other): return True\ndef f(x): return E()",
        "class E(int):\n    def __eq__(self, other): return True\n"
        "    __hash__ = int.__hash__\ndef f(x): return E(7)",
        "def g(x): return 2 * x",
        "def f(x): import os; os._exit(0)",
        "import sys\ndef f(x):\n    fr = sys._getframe()\n    while fr: \n"
        "        for v in fr.f_locals.values():\n"
        "            if isinstance(v, dict) and 'result' in v: return v['result']\n"
        "        fr = fr.f_back",
        "import gc\n"
        "def f(x): return next(o['result'] for o in gc.get_objects() "
        "if isinstance(o, dict) and 'result' in o)",
    ],
)
def test_wrong_functions(worker, source):
    assert grade_function(source, "f", DOUBLES[1:], worker).correct is False


def test_all_tests_must_pass_and_tolerance_is_asked_for(worker):
    tests = [{"args": [0.1, 0.2], "result": 0.3}]
    source = "def f(a, b): return a + b"
    assert grade_function(source, "f", tests, worker).correct is False
    assert grade_function(source, "f", [{**tests[0], "tolerance": 1e-9}], worker).correct is True


def test_protected_files_are_restored_and_runners_are_not_used(worker):
    good = {"lib/__init__.py": "", "lib/core.py": "from config import STEP\ndef add(x): return x + STEP"}
    protected = {"config.py": "STEP = 1"}
    calls = [{"module": "lib.core", "function": "add", "args": [i], "result": i + 1} for i in range(3)]
    assert grade_files(good, protected, calls, worker).correct is True
    cheats = {
        **good,
        "config.py": "STEP = 5",
        "lib/core.py": "def add(x): return 0",
        "conftest.py": "raise SystemExit(0)",
        "sitecustomize.py": "import os; os._exit(0)",
        "json.py": "def dumps(*a, **k): return '1'",
    }
    assert grade_files(cheats, protected, calls, worker).correct is False
    assert grade_files({**good, "config.py": "STEP = 5"}, protected, calls, worker).correct is True
    assert grade_files({**good, "../x": ""}, protected, calls, worker).reason == "bad_path"
    assert grade_files({**good, "lib": "a file"}, protected, calls, worker).correct is False


def test_a_sandbox_that_fails_or_tests_nothing_is_invalid(worker):
    assert grade_program("print(1)", SQUARES, Broken()).correct is None
    assert grade_function("def f(x): return x", "f", DOUBLES, Broken()).correct is None
    assert grade_files({"a.py": ""}, {}, [], Broken()).correct is None
    assert grade_program("print(1)", [], worker).correct is None
    assert grade_function("def f(x): return x", "f", [], worker).correct is None


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
