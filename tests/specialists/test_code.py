import random

import pytest

from rewards.sandbox import Job, SandboxUnavailable
from rollout.records import MODES, Attempt, Task
from specialists.base import Request, split_of
from specialists.code import DOMAIN, _source, _tests
from specialists.operations import FAILED, OPERATIONS, VARIABLE, apply, expression, mutants, result_kind


def tasks(count, mode="direct", split="train", levels=(1, 2, 3)):
    return [DOMAIN.generate(Request(seed, split, mode, levels)) for seed in range(count)]


def problem(task):
    return task.environment["kind"], tuple((name, constant) for name, constant in task.environment["steps"])


def values(kind, count, seed=0):
    rng = random.Random(seed)
    if kind == "number":
        return [rng.randint(-50, 90) for _ in range(count)]
    if kind == "text":
        return ["".join(rng.choices("aeionrstxyz", k=rng.randint(1, 12))) for _ in range(count)]
    return [[rng.randint(-3, 15) for _ in range(rng.randint(1, 10))] for _ in range(count)]


def answered(task, text):
    return Attempt(task, (text,), (), "stop", 1)


@pytest.mark.parametrize("mode", MODES)
def test_careful_is_right_and_careless_usually_wrong(mode, sandbox, replay):
    careless_right, seen = 0, set()
    for seed, task in enumerate(tasks(100, mode)):
        seen.add(task.family)
        rng = random.Random(seed)
        careful = replay(DOMAIN, task, DOMAIN.demonstrate(task, rng, careful=True))
        assert DOMAIN.grade(careful, sandbox).correct is True, (task.prompt, careful.final)
        careless = replay(DOMAIN, task, DOMAIN.demonstrate(task, rng, careful=False))
        careless_right += DOMAIN.grade(careless, sandbox).correct is not False
    assert seen == set(DOMAIN.families)
    assert careless_right <= 5


def test_the_three_forms_of_an_operation_agree(sandbox):
    for operation in OPERATIONS.values():
        constant = operation.constants[1] if operation.constants else None
        variable = VARIABLE[operation.takes]
        source = f"def f({variable}):\n    return {expression((operation.name, constant), variable)}"
        inputs = values(operation.takes, 20)
        got = sandbox.run(Job.function(source, "f", [[value] for value in inputs])).results
        assert [one.value for one in got] == [apply([(operation.name, constant)], value) for value in inputs]


def test_tests_reject_every_single_slip_that_changes_anything():
    checked = 0
    for task in tasks(150):
        kind, steps = problem(task)
        inputs, _ = _tests(kind, steps)
        assert 4 <= len(task.tests) <= 10
        many = values(kind, 300)
        for slip in mutants(kind, steps):
            if all(apply(slip, value) == apply(steps, value) for value in inputs):
                same = [apply(slip, value) == apply(steps, value) for value in many]
                assert all(same), (steps, slip)
            else:
                checked += 1
    assert checked > 1500


def test_wrong_programs_fail_in_the_sandbox(sandbox):
    for task in tasks(12):
        kind, steps = problem(task)
        same = _tests(kind, steps)[1]
        program = task.environment["function"] is None
        for slip in list(mutants(kind, steps))[:6]:
            if slip not in same and not (program and result_kind(kind, slip) == "list"):
                text = f"```python\n{_source(kind, slip, program)}\n```"
                assert DOMAIN.grade(answered(task, text), sandbox).correct is False


def test_no_operation_is_idle_and_no_result_constant():
    for task in tasks(100):
        kind, steps = problem(task)
        results = {repr(apply(steps, value)) for value in values(kind, 200)} - {repr(FAILED)}
        assert len(results) > 1
        assert task.difficulty == len(steps) - 1
        assert result_kind(kind, steps) is not None


def test_splits_are_disjoint_and_large_enough():
    assert all(split_of(problem(task)) == "train" for task in tasks(100))
    heldout = tasks(900, split="heldout", levels=(1, 2))
    assert all(split_of(problem(task)) == "heldout" for task in heldout)
    assert len({task.id for task in heldout}) >= 400
    assert len({task.id for task in tasks(900, split="heldout", levels=(1,))}) >= 200


def test_same_request_same_task_and_same_id_same_task():
    by_id = {}
    for first, second in zip(tasks(300, levels=(1,)), tasks(300, levels=(1,)), strict=True):
        assert first == second == Task.from_json(first.to_json())
        twin = by_id.setdefault(first.id, first)
        assert (twin.messages, twin.tests, twin.environment) == (
            first.messages,
            first.tests,
            first.environment,
        )


@pytest.mark.parametrize("text", ["", "```python\n```", "```python\ndef f(", "```\npass\n```", "\x00" * 9])
def test_broken_answers_are_wrong(text, sandbox):
    assert DOMAIN.grade(answered(tasks(1)[0], text), sandbox).correct is False


def test_without_a_sandbox_there_is_no_opinion():
    task = tasks(1)[0]
    (message,) = DOMAIN.demonstrate(task, random.Random(0), careful=True)
    assert DOMAIN.grade(answered(task, message["content"]), None).correct is None


def own(question, tests, **world):
    message = {"role": "user", "content": question}
    return Task("own/1", "code", (message,), "direct", tests=tuple(tests), environment=world)


SQUARES = [{"stdin": str(n), "stdout": str(n * n)} for n in (2, 5, 11)]


def test_own_problems_name_their_checker(sandbox):
    task = own("Two factors.", [{"stdin": "15", "stdout": "3 5"}], function=None, checker={"source": FACTORS})
    assert DOMAIN.grade(answered(task, "```python\ninput(); print(5, 3)\n```"), sandbox).correct is True
    assert DOMAIN.grade(answered(task, "```python\ninput(); print(1, 15)\n```"), sandbox).reason == "wrong"
    task = own("f(n): a divisor", [{"args": [15], "result": [3, 5]}], function="f", checker="one_of")
    assert DOMAIN.grade(answered(task, "```python\ndef f(n): return 5\n```"), sandbox).correct is True


FACTORS = "def check(given, output):\n    a, b = map(int, output.split())\n    return 1 < a < a * b == int(given)"
CPP = "#include <iostream>\nint main() { long n; std::cin >> n; std::cout << n * n; }"


def test_a_program_in_cpp_where_the_problem_takes_it(sandbox):
    try:
        sandbox.compiler()
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    task = own("Square.", SQUARES, function=None, languages=["python", "cpp"])
    for tag in ("cpp", "c++", "C++"):
        assert DOMAIN.grade(answered(task, f"```{tag}\n{CPP}\n```"), sandbox).correct is True
    assert DOMAIN.grade(answered(task, "```python\nprint(int(input()) ** 2)\n```"), sandbox).correct is True
    wrong = CPP.replace("n * n", "n + n")
    assert DOMAIN.grade(answered(task, f"```cpp\n{wrong}\n```"), sandbox).reason == "wrong"
    broken = DOMAIN.grade(answered(task, "```cpp\nint main( {\n```"), sandbox)
    assert (broken.correct, broken.reason) == (False, "compile_error")
    python_only = own("Square.", SQUARES, function=None)
    assert DOMAIN.grade(answered(python_only, f"```cpp\n{CPP}\n```"), sandbox).reason == "wrong_language"
    function = own("f", [{"args": [1], "result": 1}], function="f", languages=["python", "cpp"])
    assert DOMAIN.grade(answered(function, f"```cpp\n{CPP}\n```"), sandbox).reason == "wrong_language"
