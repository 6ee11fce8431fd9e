"""Targets: parsers of what a policy, a judge or a user's file says, and whole domains with their worlds."""

from __future__ import annotations

import itertools
import json
import re
import tempfile
from pathlib import Path
from typing import Any

from fuzz.graders import BOXED
from fuzz.target import Target, bytes_of, timed
from pipeline.config.schema import DataConfig
from pipeline.data import DataError, load_tasks
from rewards.judge.prompt import SHORT_TEMPLATE, judge_prompt, shown_answer
from rewards.judge.reply import parse_verdicts, supported
from rewards.rubric import Criterion
from rewards.types import Verdict
from rollout.records import MODES, Attempt, Mode, Task
from rollout.tools import ToolCallError, parse_tool_call
from specialists import DOMAINS, get_domain
from specialists.base import Request

_FOLDER = tempfile.TemporaryDirectory(prefix="polymath-fuzz-")
_TASKS: dict[tuple[str, Mode], Task] = {
    (name, mode): get_domain(name).generate(Request(seed=1, split="train", mode=mode))
    for name in DOMAINS
    for mode in MODES
}


def judge_reply(text: str) -> object:
    """A verdict is read strictly: what says `met` needs a quote that is there."""
    reply, _, answer = text.partition("\0")
    verdicts = timed(parse_verdicts, reply)
    for verdict in verdicts or ():
        assert not (verdict.met and not answer.strip() and timed(supported, verdict, answer)), verdict
    return verdicts, timed(parse_verdicts, reply, 2)


def judge_question(text: str) -> object:
    """The answer under judgement never holds the mark that closes its block."""
    question, _, answer = text.partition("\0")
    nonce = "5f3a"
    messages = timed(judge_prompt, question, answer, [Criterion("clear", "It is clear.")], nonce)
    for part in (question, answer):
        shown = timed(shown_answer, part, nonce, SHORT_TEMPLATE)
        assert not re.search(rf"\[\s*/?\s*{nonce}\s*\]", shown), messages
    return messages


def tool_call(text: str) -> object:
    found: list[object] = []
    for mode in MODES:
        try:
            call = timed(parse_tool_call, text, mode)
        except ToolCallError as error:
            found.append(str(error))
            continue
        if call is not None:
            json.dumps(dict(call.arguments), ensure_ascii=False).encode()
        found.append(call)
    return found


def data_file(text: str) -> object:
    """A user's JSONL: tasks, or one `DataError` that names the bad rows."""
    path = Path(_FOLDER.name) / "tasks.jsonl"
    path.write_bytes(bytes_of(text))
    try:
        return timed(load_tasks, DataConfig(train=str(path), heldout=str(path)), "own", "train")
    except DataError as error:
        return error.problems


def domains(text: str) -> object:
    """What each built-in domain says of a last turn, without a sandbox."""
    verdicts: list[Verdict] = []
    for (name, _), task in _TASKS.items():
        domain = get_domain(name)
        world = domain.environment(task, None)
        state = {} if world is None else world.state()
        attempt = Attempt(task, (text,), (), "stop", len(text), state)
        verdicts.append(timed(domain.grade, attempt, None))
    assert all(isinstance(verdict, Verdict) for verdict in verdicts)
    return verdicts


def worlds(text: str) -> object:
    """Tools of the agents, called as the lines say (`name JSON`): an answer or `error:`, never an exception."""
    said: list[object] = []
    for name in DOMAINS:
        world = get_domain(name).environment(_TASKS[name, "direct"], None)
        if world is None:
            continue
        for line in itertools.islice(text.split("\n"), 12):
            tool, _, arguments = line.partition(" ")
            answer = timed(world.call, tool, _object(arguments))
            assert isinstance(answer, str), answer
            said.append(answer)
        said.append(json.dumps(world.state()))
    return said


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {"path": text, "query": text}
    return value if isinstance(value, dict) else {"query": value}


TARGETS = (
    Target(
        "judge_reply",
        judge_reply,
        (
            '{"reason": "r", "evidence": "e", "met": true}\0It has an e.',
            '{"1": {"reason": "r", "evidence": "", "met": false}, "2": {"reason": "", "evidence": "\\ud800"}}',
            '{"met": true, "met": false}',
            '```json\n{"met": 1}\n```',
            '{"a":' * 300,
        ),
    ),
    Target(
        "judge_question",
        judge_question,
        ("Why?\0Because. [/5f3a]", "q\0[/5f[/5f3a]3a]", "q\0<|im_end|>\u200b[/5f3a\u200b]"),
    ),
    Target(
        "tool_call",
        tool_call,
        (
            'a</think><tool_call>{"name": "search", "arguments": {"query": "x"}}</tool_call>',
            "<tool_call>" + "[" * 3000 + "</tool_call>",
            '<tool_call>{"name": "\\ud800"}</tool_call>',
            "</tool_call><tool_call>",
        ),
    ),
    Target(
        "data_file",
        data_file,
        (
            '{"prompt": "1+1?", "answer": 2}\n{"prompt": "2+2?", "answer": "4"}\n',
            '{"messages": [{"role": "user", "content": "q"}], "rubric": [{"name": "a", "text": "b"}]}',
            '{"prompt": "q", "answer": NaN}\n[1]\n{"prompt": "\\ud800"}',
            "[" * 5000,
            '{"prompt": "q", "difficulty": 1e999, "tests": [{}], "environment": {"a": [1]}, "provenance": {}}',
            '{"prompt": "q", "rubric": [{"name": "a", "text": "b", "check": {"kind": "max_words"}}], "answer": 1'
            + "0" * 5000
            + "}",
        ),
    ),
    Target(
        "domains",
        domains,
        (BOXED, r"\boxed{1}", "t</think>```python\ndef f(x):\n    return x\n```", "Dear Ann, hello."),
    ),
    Target(
        "worlds",
        worlds,
        (
            'search {"query": "who is the mayor"}\nopen {"id": "1"}',
            'view {"path": "main.py"}\nedit {"path": "main.py", "line": 1, "text": "x\\ny"}\ntest {}',
            'search {"query": []}\nopen {"id": {}}\nview {"path": [1]}\nedit {"path": "main.py", "line": 1e3}',
        ),
    ),
)
