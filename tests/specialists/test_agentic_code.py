import json
import random

import pytest

from rollout.records import MODES, Attempt, Task
from specialists import repositories
from specialists.agentic_code import DOMAIN, UNAVAILABLE
from specialists.base import Request, assistant, tool_result
from specialists.repositories import FAMILIES, TESTS, _by_name, _slips, draw_problem, evaluate, with_bug


def tasks(count, mode="direct", split="train", levels=(1, 2, 3)):
    return [DOMAIN.generate(Request(seed, split, mode, levels)) for seed in range(count)]


def broken_function(task):
    """What the function should be and which of its lines is broken: a problem without its surroundings."""
    world = task.environment
    fix, caller = world["fix"], world["files"].get("main.py", "")
    lines = world["files"][fix["path"]].splitlines()
    start = max(number for number in range(fix["line"]) if lines[number].startswith("#"))
    return task.difficulty, fix["path"], lines[start], fix["line"] - start, lines[fix["line"] - 1], caller


@pytest.mark.parametrize("mode", MODES)
def test_careful_is_right_and_careless_usually_wrong(mode, sandbox, replay):
    careless_right, seen = 0, set()
    for seed, task in enumerate(tasks(100, mode)):
        seen.add(task.family)
        rng = random.Random(seed)
        careful = replay(DOMAIN, task, DOMAIN.demonstrate(task, rng, careful=True))
        assert DOMAIN.grade(careful, sandbox).correct is True, task.prompt
        assert len(careful.completions) <= DOMAIN.max_turns
        careless = replay(DOMAIN, task, DOMAIN.demonstrate(task, rng, careful=False))
        careless_right += DOMAIN.grade(careless, sandbox).correct is not False
    assert seen == set(DOMAIN.families)
    assert careless_right == 0


def test_the_expected_results_are_what_the_repaired_files_compute(sandbox):
    for task in tasks(30):
        fix = task.environment["fix"]
        environment = DOMAIN.environment(task, sandbox)
        assert environment.call("test", {}) == f"fail: {task.environment['symptom']}"
        assert environment.call("edit", fix) == "ok"
        assert environment.call("test", {}) == "pass"


@pytest.mark.parametrize("level", [1, 2, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_hidden_checks_reject_every_single_slip(family, level):
    for seed in range(15):
        rng = random.Random(seed)
        problem = draw_problem(rng, family, level)
        repository = repositories.build(rng, problem, level)
        target, table = problem.functions[0], _by_name(problem.functions)
        checks = [check for check in repository.hidden if check["function"] == target.name]
        assert 4 <= len(checks) <= 10
        for slip in _slips(target, FAMILIES):
            wrong = {**table, target.name: with_bug(target, slip)}
            assert any(evaluate(wrong, target.name, check["args"]) != check["result"] for check in checks)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_repair_of_the_visible_tests_alone_fails_a_hidden_check(family):
    for seed in range(60):
        rng, level = random.Random(seed), 1 + seed % 3
        problem = draw_problem(rng, family, level)
        repository = repositories.build(rng, problem, level)
        name, right = problem.bug.function, _by_name(problem.functions)
        wrong = {**right, name: with_bug(right[name], problem.bug)}
        shown = {tuple(check["args"]) for check in repository.visible}
        assert any(
            evaluate(wrong, name, check["args"]) != check["result"]
            for check in repository.hidden
            if check["function"] == name and tuple(check["args"]) not in shown
        )


def lookup(task):
    """The text of a line that answers the visible tests by heart and else computes what the broken line does."""
    fix = task.environment["fix"]
    broken = task.environment["files"][fix["path"]].splitlines()[fix["line"] - 1].strip().removeprefix("return ")
    known = {tuple(check["args"]): check["result"] for check in task.environment["visible"]}
    return f"    return {known}.get((a, b), {broken})"


def test_answers_by_heart_and_claims_without_a_change_are_not_paid(sandbox, replay):
    paid = 0
    for task in tasks(12, levels=(1,)):
        fix = task.environment["fix"]
        by_heart = [assistant("", call=("edit", {**fix, "text": lookup(task)})), tool_result("ok"), assistant("Done.")]
        verdict = DOMAIN.grade(replay(DOMAIN, task, by_heart), sandbox)
        assert (verdict.correct, verdict.reason) == (False, "wrong")
        environment = DOMAIN.environment(task, sandbox)
        environment.call("edit", {**fix, "text": lookup(task)})
        paid += environment.call("test", {}) == "pass"
        claim = DOMAIN.grade(replay(DOMAIN, task, [assistant("I fixed it, all tests pass.")]), sandbox)
        assert (claim.correct, claim.reason) == (False, "nothing_changed")
        line = task.environment["files"][fix["path"]].splitlines()[fix["line"] - 1]
        same = [assistant("", call=("edit", {**fix, "text": line})), tool_result("ok"), assistant("Done.")]
        assert DOMAIN.grade(replay(DOMAIN, task, same), sandbox).reason == "nothing_changed"
    assert paid == 12


INSIDE = {
    "equal to everything": "    return type('E', (int,), {'__eq__': lambda s, o: True})(0)",
    "json replaced": "    import json; json.dumps = lambda *x, **k: 'true'; return 0",
    "json of all calls": "    import json; json.dumps = lambda *x, **k: '1' * 99; return 0",
    "exit": "    import os; os._exit(0)",
    "own result channel": "    import os; os.write(3, b'[]'); os._exit(0)",
    "skip": "    import unittest; raise unittest.SkipTest('later')",
    "pytest's skip": "    raise __import__('builtins').type('Skipped', (BaseException,), {})()",
    "frames": "    import sys; return [v for v in sys._getframe(1).f_locals.values() if type(v) is int][-1]",
    "reads the tests": "    return int(open('tests.txt').read().split('= ')[1].split()[0])",
    "writes the tests": "    open('tests.txt', 'w').write('x'); open('conftest.py', 'w').write(''); return 0",
    "another module": "    import sys; sys.modules['shop'] = sys.modules['main'] = None; return 0",
    "generator": "    yield a + b",
    "memory": "    globals().setdefault('m', []).append(a); return m[0]",
    "thread that restores": "    import threading; threading.Timer(0.1, lambda: None).start(); return 0",
}


@pytest.mark.parametrize("trick", INSIDE)
def test_no_trick_inside_a_file_is_paid(trick, sandbox):
    for task in tasks(3, levels=(1,)):
        environment = DOMAIN.environment(task, sandbox)
        fix = task.environment["fix"]
        assert environment.call("edit", {**fix, "text": INSIDE[trick]}) == "ok"
        environment.call("test", {})
        attempt = Attempt(task, ("", "", "Done."), ("ok", ""), "stop", 1, environment.state())
        assert DOMAIN.grade(attempt, sandbox).correct is False


def test_the_files_hold_no_hidden_check_and_no_history():
    for task in tasks(60):
        files = task.environment["files"]
        assert set(files) <= {"calc.py", "shop.py", "main.py", TESTS}
        shown = {line.split(" = ")[0] for line in files[TESTS].splitlines()}
        visible = {repositories.describe(check) for check in task.environment["visible"]}
        assert shown == visible
        hidden = {repositories.describe(check) for check in task.tests} - visible
        assert hidden and not any(call in text for call in hidden for text in [*files.values(), task.prompt])


def test_other_wrong_edits_fail_in_the_sandbox(sandbox, replay):
    task = tasks(1, levels=(1,))[0]
    fix = task.environment["fix"]
    for text in ("    return 0", "    return a", "    while True: pass", "    return", ")"):
        turn = assistant("", call=("edit", {**fix, "text": text}))
        messages = [turn, tool_result("ok"), assistant("Done.")]
        assert DOMAIN.grade(replay(DOMAIN, task, messages), sandbox).correct is False
        if "while" not in text:
            environment = DOMAIN.environment(task, sandbox)
            assert environment.call("edit", {**fix, "text": text}) == "ok"
            assert environment.call("test", {}).startswith("fail: ")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("view", {}),
        ("view", {"path": 3}),
        ("view", {"path": ["calc.py"]}),
        ("view", {"path": "/etc/passwd"}),
        ("view", {"path": "calc.py", "line": 1}),
        ("edit", {"path": "calc.py"}),
        ("edit", {"path": "calc.py", "line": True, "text": "x"}),
        ("edit", {"path": "calc.py", "line": "3", "text": "x"}),
        ("edit", {"path": "calc.py", "line": 0, "text": "x"}),
        ("edit", {"path": "calc.py", "line": 10**30, "text": "x"}),
        ("edit", {"path": "calc.py", "line": 1, "text": None}),
        ("edit", {"path": "calc.py", "line": 1, "text": "x" * 10**6}),
        ("edit", {"path": TESTS, "line": 1, "text": "x"}),
        ("test", {"path": "calc.py"}),
        ("rm", {}),
        ("", {"": []}),
    ],
)
def test_calls_that_make_no_sense_are_told_so(name, arguments):
    task = tasks(1, levels=(1,))[0]
    environment = DOMAIN.environment(task, None)
    assert environment.call(name, arguments).startswith("error: ")
    assert environment.state()["files"] == task.environment["files"]
    json.dumps(environment.state())


def test_odd_text_in_a_file_is_the_policys_fault(sandbox):
    task = tasks(1, levels=(1,))[0]
    for text in (
        "\ud800",
        "\x00",
        "    return 1\n    return 2",
        "import os; os._exit(0)",
        "print('x' * 10**7)",
    ):
        environment = DOMAIN.environment(task, sandbox)
        assert environment.call("edit", {"path": "calc.py", "line": 3, "text": text}) == "ok"
        assert environment.call("test", {}).startswith("fail: ") or "return 2" in text


def test_attempts_do_not_share_files(sandbox):
    task = tasks(1)[0]
    first, second = DOMAIN.environment(task, None), DOMAIN.environment(task, None)
    first.call("edit", task.environment["fix"])
    assert second.state()["files"] == task.environment["files"] != first.state()["files"]


def test_without_a_sandbox_there_is_no_opinion(sandbox, replay):
    task = tasks(1)[0]
    attempt = replay(DOMAIN, task, DOMAIN.demonstrate(task, random.Random(0), careful=True))
    assert DOMAIN.grade(attempt, None).correct is None
    environment = DOMAIN.environment(task, None)
    assert environment.call("test", {}) == UNAVAILABLE
    assert environment.state()["tests_unavailable"]


def test_a_turn_without_its_thought_is_wrong(sandbox, replay):
    task = tasks(1, "thinking")[0]
    messages = DOMAIN.demonstrate(task, random.Random(0), careful=True)
    messages[0] = {**messages[0], "reasoning_content": ""}
    assert DOMAIN.grade(replay(DOMAIN, task, messages), sandbox).correct is False


def test_splits_are_disjoint_and_large_enough():
    heldout = tasks(900, split="heldout", levels=(1, 2))
    assert len({task.id for task in heldout}) >= 400
    assert not {task.id for task in heldout} & {task.id for task in tasks(900, levels=(1, 2))}
    assert not {broken_function(task) for task in heldout} & {broken_function(task) for task in tasks(900)}


def test_same_request_same_task():
    for first, second in zip(tasks(50), tasks(50), strict=True):
        assert first == second == Task.from_json(first.to_json())
        assert json.loads(json.dumps(first.to_json())) == first.to_json()
