"""Honest answers that the domains write themselves: every careful demonstration must be paid, in both modes."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.audit.cases import AgentSubject, Area, Case, say
from rollout.records import MODES, Message, Mode, Task
from rollout.seeding import rng_for
from rollout.tools import render_tool_call
from specialists import DOMAINS, get_domain

PER_DOMAIN = 20
"""Demonstrations of each domain in each mode."""
LEVELS = (1, 2, 3)
LANGUAGES = {"math": ("en", "zh"), "logic": ("en", "zh"), "writing": ("en", "zh")}
"""Languages of the prompts; English alone where a domain is not named."""

AREAS: dict[str, Area] = {
    "math": "math",
    "code": "code",
    "logic": "text",
    "agentic_code": "agents",
    "agentic_search": "search",
    "writing": "judge",
}


def turns_of(messages: Sequence[Message], mode: Mode) -> list[str]:
    """The policy's turns of a demonstration as it would write them."""
    turns = []
    for message in messages:
        if message["role"] == "assistant":
            functions = [call["function"] for call in message.get("tool_calls", ())]
            calls = "".join(render_tool_call(function["name"], function["arguments"]) for function in functions)
            turns.append(say(message["content"] + calls, mode, message.get("reasoning_content", "")))
    return turns


def demonstrated(task: Task, results: Sequence[str]) -> str:
    """The policy that follows its domain's careful demonstration."""
    messages = get_domain(task.domain).demonstrate(task, rng_for("audit demonstration", task.id), careful=True)
    return turns_of(messages, task.mode)[len(results)]


def _case(domain: str, mode: Mode, number: int) -> Case:
    languages = LANGUAGES.get(domain, ("en",))
    subject = AgentSubject(
        domain,
        demonstrated,
        seed=10**7 + number,
        level=LEVELS[number % len(LEVELS)],
        mode=mode,
        language=languages[number % len(languages)],
    )
    return Case(f"demonstration of {domain}, {mode}, {number}", AREAS[domain], "paid", subject)


CASES: tuple[Case, ...] = tuple(
    _case(domain, mode, number) for domain in DOMAINS for mode in MODES for number in range(PER_DOMAIN)
)
