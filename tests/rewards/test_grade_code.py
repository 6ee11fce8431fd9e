import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.checkers import json_equal, tokens_equal
from rewards.code import grade_files, grade_function, grade_program
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
        ("import os; os._exit(0)", "wrong"),
        ("n = int(input())\nprint(n * n if n < 9 else 0)", "wrong"),
        ("print(int(input()) ** 2, 1)", "wrong"),
        ("print('\\x1b[2K\\r' + str(int(input()) ** 2))", "wrong"),
        ("print(str(int(input()) ** 2) + '\\0')", "wrong"),
        ("print(float(int(input()) ** 2))", "wrong"),
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


def test_examples_of_the_prompt_are_not_enough(worker):
    shown = [{**test, "public": True} for test in SQUARES[:3]]
    by_heart = "print({'0': 0, '1': 1, '2': 4}[input()])"
    assert grade_program(by_heart, [*shown, *SQUARES[3:5]], worker).correct is False
    assert grade_program("print(int(input()) ** 2)", [*shown, *SQUARES[3:5]], worker).correct is True
    verdict = grade_program(by_heart, shown, worker)
    assert (verdict.correct, verdict.reason) == (None, "no_hidden_tests")
    nothing = [{"stdin": "1", "stdout": " \n"}]
    assert grade_program("pass", nothing, worker).reason == "bad_tests"


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


@pytest.mark.parametrize(
    ("tests", "checker"),
    [
        ([{"stdin": "1"}], None),
        ([{"stdout": "1"}], None),
        ([{"stdin": 1, "stdout": "1"}], None),
        ([{"stdin": "1", "stdout": 1}], None),
        ([{"stdin": "1", "stdout": "1"}], "one_of"),
        ([{"stdin": "1", "stdout": ["1"]}], None),
        ([{"stdin": "1", "stdout": "1"}], "fuzzy"),
        ([{"stdin": "1", "stdout": "1"}], {"source": 3}),
        ([{"stdin": "1", "stdout": "1"}], ["tokens"]),
        ([{"stdin": "1", "stdout": "1", "tolerance": "a"}], None),
        ([{"stdin": "1", "stdout": "1", "tolerance": float("nan")}], None),
        ([{"stdin": "1", "stdout": "1", "tolerance": True}], None),
    ],
)
def test_a_broken_problem_is_nobodys_wrong_answer(worker, tests, checker):
    verdict = grade_program("print(1)", tests, worker, checker)
    assert (verdict.correct, verdict.reason) == (None, "bad_tests")
    assert verdict.evidence["error"]


def test_a_broken_function_problem_is_nobodys_wrong_answer(worker):
    for tests in ([{"args": 1, "result": 1}], [{"args": [float("nan")], "result": 1}], [{"args": [{1}], "result": 1}]):
        assert grade_function("def f(x): return 1", "f", tests, worker).reason == "bad_tests"
    assert grade_files({"a.py": ""}, {}, [{"args": [], "result": 1}], worker).reason == "bad_tests"


CALLS = [{"module": "core", "function": "add", "args": [i], "result": i + 1} for i in range(3)]
HONEST = {"core.py": "from config import STEP\ndef add(x): return x + STEP"}
LAZY = {"core.py": "from config import STEP\ndef add(x): return x + STEP - 4"}
STEP_5 = "STEP = 5"


@pytest.mark.parametrize(
    "files",
    [
        {"config.py": STEP_5},
        {"./config.py": STEP_5},
        {"config.py": "", "./config.py": STEP_5},
        {"lib/../config.py": STEP_5},
        {"config/__init__.py": STEP_5},
        {"config//__init__.py": STEP_5},
        {"sitecustomize.py": "import config; config.STEP = 5"},
        {"usercustomize.py": "import config; config.STEP = 5"},
        {"x.pth": "import config; config.STEP = 5"},
        {"__pycache__/config.cpython-311.pyc": STEP_5},
        {"conftest.py": STEP_5, "pytest.ini": "[pytest]\naddopts = --collect-only"},
        {"/tmp/config.py": STEP_5},
        {"": STEP_5},
        {".": STEP_5},
        {"..": STEP_5},
        {"a\0b": STEP_5},
    ],
)
def test_protected_files_have_no_second_spelling(worker, files):
    """Wrong code that a changed constant would make right."""
    assert grade_files({**LAZY, **files}, {"config.py": "STEP = 1"}, CALLS, worker).correct is False
    tidy = {**HONEST, "notes/today.txt": "tried", "setup.cfg": "[tool:pytest]"}
    assert grade_files(tidy, {"config.py": "STEP = 1"}, CALLS, worker).correct is True


CHEATS = {
    "equal to everything": "class E:\n    def __eq__(self, o): return True\ndef f(x): return E()",
    "a list of it": "class E(list):\n    def __eq__(self, o): return True\ndef f(x): return E([1])",
    "an int that says so": "class E(int):\n    def __eq__(self, o): return True\n    def __repr__(self): return '4'\n"
    "def f(x): return E(1)",
    "a dict that says so": "class E(dict):\n    def __eq__(self, o): return True\ndef f(x): return E()",
    "json replaced": "import json\njson.dumps = lambda *a, **k: 'true'\ndef f(x): return 0",
    "json's module replaced": "import sys, types\nm = types.ModuleType('json')\nm.dumps = lambda *a, **k: '4'\n"
    "sys.modules['json'] = m\ndef f(x): return 0",
    "more results than calls": "import json\n"
    "json.dumps = lambda v, **k: '2},{\"value\":4},{\"value\":6},{\"value\":8'\ndef f(x): return 0",
    "builtins replaced": "import builtins\nbuiltins.len = lambda x: 4\nbuiltins.getattr = lambda *a: (lambda x: 4)\n"
    "def f(x): return 0",
    "a generator": "def f(x):\n    yield 2 * x",
    "a coroutine": "async def f(x): return 2 * x",
    "a result channel of one's own": "import os\ndef f(x):\n    os.write(3, b'[{\"value\": 2}]')\n    os._exit(0)",
    "results before the calls": "import os\nos.write(3, b'[{\"value\":4},{\"value\":4},{\"value\":4},{\"value\":4}]')\n"
    "os._exit(0)",
    "memory of earlier calls": "seen = []\ndef f(x):\n    seen.append(x)\n    return seen[0] * 2",
    "an exit hook": "import atexit, os\natexit.register(lambda: os.write(3, b'[]'))\ndef f(x): return 0",
    "the inputs of all calls": "import sys\ndef f(x):\n    fr = sys._getframe()\n    while fr:\n"
    "        for v in list(fr.f_locals.values()):\n"
    "            if isinstance(v, dict) and 'calls' in v: return v['calls'][0][2][0]\n        fr = fr.f_back",
    "the checker's source": "import sys\ndef f(x): return next((m.json_equal for m in sys.modules.values() "
    "if hasattr(m, 'json_equal')), None)",
}


@pytest.mark.parametrize("name", CHEATS)
def test_no_trick_inside_the_child_is_paid(worker, name):
    assert grade_function(CHEATS[name], "f", DOUBLES[1:], worker).correct is False


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("x = []\nwhile True: x.append(' ' * 10**7)", "memory"),
        ("while True: print('1' * 1000)", "output_limit"),
        ("import time\ntime.sleep(60)", "wall_limit"),
        ("print(int(input()) ** 2)\nraise SystemExit(3)", "runtime_error"),
    ],
)
def test_how_a_program_ended(worker, source, reason):
    verdict = grade_program(source, SQUARES[:1], worker)
    assert (verdict.correct, verdict.reason) == (False, reason)
