import pytest

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
