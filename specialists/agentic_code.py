"""Agentic coding: find the bug in a mini-repository with tools and fix it; hidden checks judge the result."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rewards.checkers import json_equal
from rewards.code import calls_problem, grade_files
from rewards.protected import is_harness, restore
from rewards.sandbox import Call, Job, SandboxWorker
from rewards.types import Verdict
from rollout.environment import ToolSpec, tool
from rollout.records import Attempt, Message, Mode, Task
from rollout.seeding import rng_for
from specialists.base import Kind, Request, draw, task_id
from specialists.dialogue import Dialogue, broken_format
from specialists.repositories import FAMILIES, TESTS, build, describe, draw_problem

TestRun = Callable[[Mapping[str, str]], str]
"""Runs the visible tests on the files and says how it went."""

RETRY_SHARE = 0.3
"""Share of the good demonstrations whose first repair changes nothing: they show what to do when tests fail."""
MAX_EDIT_CHARS = 2000
MAX_ERROR_CHARS = 60
UNAVAILABLE = "error: the tests can not run"

HABITS: dict[Mode, dict[str, int]] = {
    "direct": {"claimed": 5, "blind": 2, "looked": 2, "tested": 1},
    "thinking": {"looked": 5, "claimed": 2, "blind": 2, "tested": 1},
}
"""Bad habits and how often each is shown. `claimed`: says it is done without touching a tool. `looked`: views
the file and finds nothing. `blind`: edits a file that it has not seen. `tested`: runs the tests, no more."""


class AgenticCodeDomain:
    """One injected bug. Level 1 names the function, the only one of its file; on level 2 only the symptom is known,
    and on level 3 it shows in a caller, in another file."""

    name = "agentic_code"
    kind: Kind = "verifiable"
    families: tuple[str, ...] = FAMILIES
    tools: tuple[ToolSpec, ...] = (
        tool("view", "Show a file.", path="string"),
        tool("edit", "Replace a line.", path="string", line="integer", text="string"),
        tool("test", "Run the tests."),
    )
    max_turns = 7

    def generate(self, request: Request) -> Task:
        rng = rng_for("agentic_code", request.seed)
        family = rng.choice(self.families)
        level = rng.choice(list(request.levels))
        problem = draw(rng, request.split, lambda r: draw_problem(r, family, level))
        repository = build(rng, problem, level)
        names = ", ".join(repository.files)
        if level == 1:
            wrong = f"Function {problem.bug.function} in {repository.fix['path']} is wrong."
        else:
            wrong = f"{repository.symptom}."
        return Task(
            id=task_id(self.name, family, (problem, dict(repository.files)), "en", request.mode),
            domain=self.name,
            messages=({"role": "user", "content": f"{wrong} Fix it. Files: {names}"},),
            mode=request.mode,
            family=family,
            tests=tuple(repository.hidden),
            environment={
                "files": dict(repository.files),
                "protected": [TESTS],
                "visible": list(repository.visible),
                "symptom": repository.symptom,
                "fix": dict(repository.fix),
            },
            difficulty=level,
            provenance={"generator": "specialists.agentic_code", "seed": request.seed},
        )

    def demonstrate(self, task: Task, rng: random.Random, careful: bool) -> list[Message]:
        assert task.environment is not None
        world = task.environment
        # The tests run on untouched or on repaired files only, so their outcome is known without a sandbox.
        untouched = dict(world["files"])
        environment = RepositoryEnvironment(
            world, lambda files: f"fail: {world['symptom']}" if files == untouched else "pass"
        )
        dialogue = Dialogue(task.mode, environment)
        if careful:
            return _careful(dialogue, task, rng)
        weights = HABITS[task.mode]
        return _careless(dialogue, task, rng.choices(list(weights), weights=list(weights.values()))[0])

    def environment(self, task: Task, sandbox: SandboxWorker | None) -> RepositoryEnvironment:
        assert task.environment is not None
        visible = task.environment["visible"]
        return RepositoryEnvironment(task.environment, lambda files: _run_visible(files, visible, sandbox))

    def problem_of(self, task: Task) -> str | None:
        world = task.environment or {}
        files, protected = world.get("files"), world.get("protected")
        if not isinstance(files, Mapping) or not all(isinstance(text, str) for text in files.values()):
            return "expected environment.files: an object of paths and their texts"
        if not isinstance(protected, Sequence) or not all(isinstance(p, str) and p in files for p in protected):
            return "expected environment.protected: a list of paths that are among the files (may be empty)"
        try:
            restore(files, {})
        except ValueError as error:
            return f"environment.files: {error}"
        for name, checks in (("tests", task.tests), ("environment.visible", world.get("visible", ()))):
            found = calls_problem(checks)
            if found is not None:
                return f"{name}: {found.evidence['error']}"
        return None

    def grade(self, attempt: Attempt, sandbox: SandboxWorker | None) -> Verdict:
        if broken := broken_format(attempt):
            return broken
        if sandbox is None:
            return Verdict.invalid(
                "no_sandbox", detail="repositories are judged in a sandbox, and none was given"
            )
        if "files" not in attempt.state:
            return Verdict.invalid("no_state", detail="expected the environment's state with the files as they are now")
        world = attempt.task.environment or {}
        if attempt.state["tests_unavailable"]:
            return Verdict.invalid("sandbox_error", detail="the test tool could not run during the attempt")
        pristine = world["files"]
        if attempt.state["files"] == pristine:
            return Verdict(False, "nothing_changed", {"said": attempt.final[-MAX_ERROR_CHARS:]})
        protected = {path: text for path, text in pristine.items() if path in world["protected"] or is_harness(path)}
        return grade_files(attempt.state["files"], protected, attempt.task.tests, sandbox)


class RepositoryEnvironment:
    """The files of one attempt and the tools on them."""

    def __init__(self, world: Mapping[str, Any], run_tests: TestRun) -> None:
        self._pristine: Mapping[str, str] = world["files"]
        self._protected: Sequence[str] = world["protected"]
        self._files = dict(self._pristine)
        self._run_tests = run_tests
        self._calls: dict[str, int] = {}
        self._tests_unavailable = False

    def call(self, name: str, arguments: Mapping[str, Any]) -> str:
        self._calls[name] = self._calls.get(name, 0) + 1
        if name == "view" and set(arguments) == {"path"}:
            return self._view(arguments["path"])
        if name == "edit" and set(arguments) == {"path", "line", "text"}:
            return self._edit(arguments["path"], arguments["line"], arguments["text"])
        if name == "test" and not arguments:
            outcome = self._run_tests(self._files)
            self._tests_unavailable |= outcome == UNAVAILABLE
            return outcome
        usage = {
            "view": "view needs path",
            "edit": "edit needs path, line, text",
            "test": "test needs nothing",
        }
        return f"error: {usage.get(name, 'no such tool')}"

    def state(self) -> Mapping[str, Any]:
        return {
            "files": dict(self._files),
            "calls": dict(self._calls),
            "tests_unavailable": self._tests_unavailable,
        }

    def _view(self, path: Any) -> str:
        if not isinstance(path, str) or path not in self._files:
            return "error: no such file"
        return "\n".join(f"{number} {line}" for number, line in enumerate(self._files[path].splitlines(), 1))

    def _edit(self, path: Any, line: Any, text: Any) -> str:
        if not isinstance(path, str) or path not in self._files:
            return "error: no such file"
        if path in self._protected:
            return f"error: {path} is read-only"
        lines = self._files[path].splitlines()
        if not isinstance(line, int) or isinstance(line, bool) or not 1 <= line <= len(lines):
            return f"error: line must be 1 to {len(lines)}"
        if not isinstance(text, str) or len(text) > MAX_EDIT_CHARS:
            return "error: text must be short text"
        lines[line - 1] = text
        self._files[path] = "\n".join(lines) + "\n"
        return "ok"


def _run_visible(
    files: Mapping[str, str], checks: Sequence[Mapping[str, Any]], sandbox: SandboxWorker | None
) -> str:
    """`pass`, or the first check that fails."""
    if sandbox is None:
        return UNAVAILABLE
    calls = [Call(check["function"], check["args"], check["module"]) for check in checks]
    result = sandbox.run(Job.in_files(files, calls))
    if result.status == "sandbox_error":
        return UNAVAILABLE
    for number, check in enumerate(checks):
        if number >= len(result.results):
            return f"fail: {describe(check)} stops: {result.status}"
        got = result.results[number]
        if not got.ok:
            return f"fail: {describe(check)} raises {(got.error or '')[:MAX_ERROR_CHARS]}"
        if not json_equal(got.value, check["result"]):
            return f"fail: {describe(check)} gives {str(got.value)[:MAX_ERROR_CHARS]}, want {check['result']}"
    return "pass"


def _careful(dialogue: Dialogue, task: Task, rng: random.Random) -> list[Message]:
    """Views files until the bug is seen, repairs the line, runs the tests; now and then the first repair fails."""
    assert task.environment is not None
    fix = task.environment["fix"]
    for path in _reading_order(task.environment["files"], fix["path"]):
        dialogue.call(f"Look at {path}.", "view", path=path)
    edits = [fix]
    if rng.random() < RETRY_SHARE:
        line = task.environment["files"][fix["path"]].splitlines()[fix["line"] - 1]
        edits.insert(0, {**fix, "text": line})
    for edit in edits:
        dialogue.call(f"Line {edit['line']}: {edit['text'].strip()}.", "edit", **edit)
        dialogue.call("Check it.", "test")
    return dialogue.say("Tests pass.", "Done.")


def _reading_order(files: Mapping[str, str], wanted: str) -> list[str]:
    """The caller's file first where there is one, then what it imports from; otherwise file after file."""
    paths = [path for path in files if path != TESTS]
    if "main.py" in paths:
        imported = files["main.py"].split()[1] + ".py"
        paths = ["main.py", imported]
    return paths[: paths.index(wanted) + 1]


def _careless(dialogue: Dialogue, task: Task, habit: str) -> list[Message]:
    assert task.environment is not None
    first = _reading_order(task.environment["files"], task.environment["fix"]["path"])[0]
    if habit == "looked":
        dialogue.call(f"Look at {first}.", "view", path=first)
        return dialogue.say("Looks fine.", "It looks fine.")
    if habit == "blind":
        dialogue.call("Just change it.", "edit", path=first, line=2, text="    return a + b")
        return dialogue.say("That should do.", "Changed.")
    if habit == "tested":
        dialogue.call("Run it.", "test")
        return dialogue.say("It ran.", "Tested.")
    return dialogue.say("Easy.", "Fixed.")


DOMAIN = AgenticCodeDomain()
