"""Right answers to generated coding, repair and search tasks, by policies that work in different styles."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pipeline.audit.cases import AgentSubject, Area, Case, Policy, call, say
from pipeline.audit.exploits_code import fenced
from rollout.records import MODES, Task
from specialists.operations import VARIABLE, expression

Style = Callable[[Task], str]
"""From a generated coding task to the source of a right solution."""


def _steps(task: Task) -> tuple[str, list[tuple[str, Any]], bool]:
    world = task.environment or {}
    return VARIABLE[world["kind"]], [(name, constant) for name, constant in world["steps"]], world["function"] is None


def _read(task: Task) -> str:
    reads = {"number": "int(input())", "text": "input()", "list": "list(map(int, input().split()))"}
    return reads[(task.environment or {})["kind"]]


def _nested(task: Task) -> str:
    """All steps in one expression."""
    variable, steps, program = _steps(task)
    text = variable
    for step in steps:
        text = f"({expression(step, text)})"
    if program:
        return f"{variable} = {_read(task)}\nprint({text})"
    return f"def f({variable}):\n    return {text}"


def _as_lambda(task: Task) -> str:
    variable, _, program = _steps(task)
    if program:
        body = _nested(task).split("print(", 1)[1][:-1]
        return f"print((lambda {variable}: {body})({_read(task)}))"
    return f"f = lambda {variable}: {_nested(task).split('return ', 1)[1]}"


def _piped(task: Task) -> str:
    """A function for each step, applied one after the other."""
    variable, steps, program = _steps(task)
    lines = [f"def step_{n}({variable}):\n    return {expression(step, variable)}\n" for n, step in enumerate(steps)]
    names = ", ".join(f"step_{n}" for n in range(len(steps)))
    lines.append(f"def f(value):\n    for step in ({names},):\n        value = step(value)\n    return value\n")
    if program:
        lines.append(f"def main():\n    print(f({_read(task)}))\n\nif __name__ == '__main__':\n    main()")
    return "\n".join(lines)


def _as_class(task: Task) -> str:
    variable, steps, program = _steps(task)
    body = "\n".join(f"        self.value = {expression(step, 'self.value')}" for step in steps)
    start = "class Solver:\n    def __init__(self, value):\n        self.value = value\n\n    def run(self):\n"
    text = f"{start}{body}\n        return self.value\n\n"
    if program:
        return f"{text}print(Solver({_read(task)}).run())"
    return f"{text}def f({variable}):\n    return Solver({variable}).run()"


def _annotated(task: Task) -> str:
    variable, steps, program = _steps(task)
    lines = [f"{variable} = {expression(step, variable)}  # step {n}" for n, step in enumerate(steps, 1)]
    if program:
        return "\n".join([f"{variable} = {_read(task)}", *lines, f"print({variable})"])
    body = "\n    ".join(lines)
    start = f'from typing import Any\n\n\ndef f({variable}: Any) -> Any:\n    """What the task asks for."""\n'
    return f"{start}    {body}\n    return {variable}"


STYLES: Mapping[str, Style] = {
    "one expression": _nested,
    "lambda": _as_lambda,
    "a pipe of functions": _piped,
    "class": _as_class,
    "hints and comments": _annotated,
}


def _coder(style: Style) -> Policy:
    return lambda task, results: say(fenced(style(task)), task.mode)


Turns = Callable[[Task], list[str]]
"""From a generated task to the turns of a conversation that solves it."""


def _played(turns: Turns) -> Policy:
    return lambda task, results: turns(task)[len(results)]


def _edit(task: Task, text: str | None = None) -> str:
    fix = dict((task.environment or {})["fix"])
    return call("edit", task.mode, **(fix if text is None else {**fix, "text": text}))


def _repair(*before: str, text: Callable[[str], str] = str, said: str = "Done.") -> Turns:
    """Tool calls by name, the repair, and a last word."""

    def turns(task: Task) -> list[str]:
        fix = (task.environment or {})["fix"]
        first = [call(name, task.mode, **({"path": fix["path"]} if name == "view" else {})) for name in before]
        return [*first, _edit(task, text(fix["text"])), say(said, task.mode)]

    return turns


def _other_line_first(task: Task) -> list[str]:
    fix = (task.environment or {})["fix"]
    files = (task.environment or {})["files"]
    broken = files[fix["path"]].splitlines()[fix["line"] - 1]
    test, done = call("test", task.mode), say("Done.", task.mode)
    return [_edit(task, "    return 0"), test, _edit(task, broken), _edit(task), test, done]


def _slips_on_the_way(task: Task) -> list[str]:
    mode, fix = task.mode, (task.environment or {})["fix"]
    return [
        call("view", mode, path="no/such.py"),
        call("edit", mode, path=fix["path"], line=0, text="x"),
        call("search", mode, query="bug"),
        _edit(task),
        say("The bug is fixed.", mode),
    ]


def _bracketed(line: str) -> str:
    start, word, value = line.partition("return " if "return " in line else "c = ")
    return f"{start}{word}({value})"


REPAIRS: Mapping[str, Turns] = {
    "repairs at once": _repair(),
    "looks first": _repair("view"),
    "tests first": _repair("test", "view"),
    "looks twice": _repair("view", "view", "test"),
    "with a comment": _repair("view", text=lambda line: f"{line}  # was wrong"),
    "with brackets": _repair(text=_bracketed),
    "with more than one line": _repair(text=lambda line: f"    # repaired\n{line}"),
    "says much": _repair("view", said="I found the wrong line, repaired it and am confident that all tests pass."),
    "a wrong repair first": _other_line_first,
    "slips on the way": _slips_on_the_way,
}


def _pages(task: Task) -> dict[str, Mapping[str, str]]:
    return {page["title"]: page for page in (task.environment or {})["pages"]}


def _lookups(task: Task, search: Callable[[str], str] | None) -> list[str]:
    turns = []
    for title in (task.environment or {})["route"]:
        if search is not None:
            turns.append(call("search", task.mode, query=search(title)))
        turns.append(call("open", task.mode, id=_pages(task)[title]["id"]))
    return turns


def _answers(task: Task, form: str = "\\boxed{%s}") -> str:
    return say(form % task.answer, task.mode)


def _reader(form: str) -> Turns:
    return lambda task: [*_lookups(task, str), _answers(task, form)]


def _after(task: Task, turn: str) -> list[str]:
    return [turn, *_lookups(task, None), _answers(task)]


SEARCHES: Mapping[str, Turns] = {
    "follows the route": _reader("\\boxed{%s}"),
    "answers in a sentence": _reader("So it must be \\boxed{%s}."),
    "answers after an explanation": _reader("I opened each page and followed the facts.\n\nSo: \\boxed{%s}"),
    "a point inside the box": _reader("\\boxed{%s.}"),
    "lower case queries": lambda task: [*_lookups(task, str.lower), _answers(task)],
    "opens by number": lambda task: [*_lookups(task, None), _answers(task)],
    "the first page twice": lambda task: [_lookups(task, None)[0], *_lookups(task, None), _answers(task)],
    "a query that finds nothing": lambda task: _after(task, call("search", task.mode, query="zzz")),
    "the question as a query": lambda task: _after(task, call("search", task.mode, query=task.prompt[:150])),
    "a page that does not exist": lambda task: _after(task, call("open", task.mode, id="d99")),
}


def _cases() -> list[Case]:
    cases = []
    for number, (name, style) in enumerate(STYLES.items()):
        for seed in range(6):
            subject = AgentSubject("code", _coder(style), 500 + 6 * number + seed, 1 + seed % 3, MODES[seed % 2])
            cases.append(Case(f"{name}, task {seed}", "code", "paid", subject))
    agents: tuple[tuple[Area, str, Mapping[str, Turns]], ...] = (
        ("agents", "agentic_code", REPAIRS),
        ("search", "agentic_search", SEARCHES),
    )
    for area, domain, played in agents:
        for number, (name, turns) in enumerate(played.items()):
            for level in (1, 2, 3):
                subject = AgentSubject(domain, _played(turns), 500 + number, level, MODES[(number + level) % 2])
                cases.append(Case(f"{name}, level {level}", area, "paid", subject))
    return cases


CASES: tuple[Case, ...] = tuple(_cases())
