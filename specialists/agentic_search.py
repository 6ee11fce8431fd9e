r"""Agentic search: answer a question of several hops by searching and opening pages of a small corpus.

The answer counts only if the pages that carry its facts were opened by the tool: a right guess, and what the policy
itself writes in the form of a result, are paid nothing.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from rewards.exact import grade_exact
from rewards.sandbox import SandboxWorker
from rewards.types import Verdict
from rollout.environment import ToolSpec, tool
from rollout.records import Attempt, Message, Mode, Task
from rollout.seeding import rng_for
from specialists.base import Kind, Request, draw, task_id
from specialists.boxed import ASK, box, read_box
from specialists.dialogue import Dialogue, broken_format
from specialists.search_corpus import CHAINS, build, draw_path, pool

RESULTS = 3
MAX_QUERY_CHARS = 200

HABITS: dict[Mode, dict[str, int]] = {
    "direct": {"guessed": 5, "halfway": 2, "echoed": 2, "gave_up": 1},
    "thinking": {"halfway": 5, "guessed": 2, "echoed": 2, "gave_up": 1},
}
"""Bad habits and how often each is shown. `guessed`: answers without a look. `halfway`: answers with what is
on the first page. `echoed`: searches for the whole question and takes a title. `gave_up`: does not try."""


class AgenticSearchDomain:
    """People, cities and firms. Level 1: two hops, pages linked to each other. Level 2: no links, more on
    a page. Level 3: one more hop."""

    name = "agentic_search"
    kind: Kind = "verifiable"
    families: tuple[str, ...] = tuple(CHAINS)
    tools: tuple[ToolSpec, ...] = (
        tool("search", "Find pages.", query="string"),
        tool("open", "Read a page.", id="string"),
    )
    max_turns = 8

    def generate(self, request: Request) -> Task:
        rng = rng_for("agentic_search", request.seed)
        family = rng.choice(self.families)
        level = rng.choice(list(request.levels))
        path = draw(rng, request.split, lambda r: draw_path(r, family, level))
        world = build(rng, family, level, path)
        return Task(
            id=task_id(self.name, family, (path, world.pages), "en", request.mode),
            domain=self.name,
            messages=({"role": "user", "content": world.question + ASK["en"]},),
            mode=request.mode,
            family=family,
            answer=world.answer,
            environment={
                "pages": list(world.pages),
                "route": list(world.route),
                "evidence": world.evidence,
            },
            difficulty=level,
            provenance={"generator": "specialists.agentic_search", "seed": request.seed},
        )

    def demonstrate(self, task: Task, rng: random.Random, careful: bool) -> list[Message]:
        dialogue = Dialogue(task.mode, self.environment(task, None))
        if careful:
            return _careful(dialogue, task)
        weights = HABITS[task.mode]
        habit = rng.choices(list(weights), weights=list(weights.values()))[0]
        return _careless(dialogue, task, habit, rng.choice(pool(task.family)))

    def environment(self, task: Task, sandbox: SandboxWorker | None) -> SearchEnvironment:
        assert task.environment is not None
        return SearchEnvironment(task.environment["pages"])

    def problem_of(self, task: Task) -> str | None:
        world = task.environment or {}
        pages, evidence = world.get("pages"), world.get("evidence")
        if not isinstance(pages, list) or not all(isinstance(page, Mapping) for page in pages):
            return "expected environment.pages: a list of objects with 'id', 'title' and 'text'"
        for page in pages:
            if not all(isinstance(page.get(name), str) for name in ("id", "title", "text")):
                return f"expected texts as 'id', 'title' and 'text' of a page, got {str(page)[:80]}"
        ids = {page["id"] for page in pages}
        if not isinstance(evidence, list) or not evidence or not all(isinstance(e, str) and e in ids for e in evidence):
            return "expected environment.evidence: ids of the pages that must be opened, at least one"
        return None if isinstance(task.answer, str) and task.answer else "expected a text as the answer"

    def grade(self, attempt: Attempt, sandbox: SandboxWorker | None) -> Verdict:
        if broken := broken_format(attempt):
            return broken
        if "opened" not in attempt.state:
            return Verdict.invalid("no_state", detail="expected the environment's state: the pages that were opened")
        answer = read_box(attempt)
        if isinstance(answer, Verdict):
            return answer
        verdict = grade_exact(answer, attempt.task.answer)
        assert attempt.task.environment is not None
        missing = sorted(set(attempt.task.environment["evidence"]) - set(attempt.state["opened"]))
        if verdict.correct and missing:
            return Verdict(False, "answered_without_looking", {**verdict.evidence, "not_opened": missing})
        return verdict


class SearchEnvironment:
    """A corpus behind BM25 (Robertson & Zaragoza 2009, by `bm25s`), and what was opened of it."""

    def __init__(self, pages: Sequence[Mapping[str, str]]) -> None:
        self._pages = {page["id"]: page for page in pages}
        self._opened: list[str] = []
        self._calls: dict[str, int] = {}

    def call(self, name: str, arguments: Mapping[str, Any]) -> str:
        self._calls[name] = self._calls.get(name, 0) + 1
        if name == "search" and set(arguments) == {"query"}:
            return self._search(arguments["query"])
        if name == "open" and set(arguments) == {"id"}:
            return self._open(arguments["id"])
        usage = {"search": "search needs query", "open": "open needs id"}
        return f"error: {usage.get(name, 'no such tool')}"

    def state(self) -> Mapping[str, Any]:
        return {"opened": list(self._opened), "calls": dict(self._calls)}

    def _search(self, query: Any) -> str:
        if not isinstance(query, str) or len(query) > MAX_QUERY_CHARS:
            return "error: query must be short text"
        words = _words(query)
        if not words:
            return "no results"
        scores = self._index.get_scores(words).tolist()
        ranked = sorted(zip(scores, self._pages.values(), strict=True), key=lambda pair: -pair[0])
        lines = [f"{page['id']} {page['title']}" for score, page in ranked[:RESULTS] if score > 0]
        return "\n".join(lines) or "no results"

    def _open(self, identifier: Any) -> str:
        if not isinstance(identifier, str) or identifier not in self._pages:
            return "error: no such page"
        if identifier not in self._opened:
            self._opened.append(identifier)
        return self._pages[identifier]["text"]

    @cached_property
    def _index(self) -> Any:
        """Built on the first search: an attempt that never searches pays for no import and no index."""
        # bm25s imports jax where it is installed, and jax would take most of a GPU's memory for nothing.
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        import bm25s

        index = bm25s.BM25()
        index.index(
            [_words(f"{page['title']} {page['text']}") for page in self._pages.values()], show_progress=False
        )
        return index


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _careful(dialogue: Dialogue, task: Task) -> list[Message]:
    """Follows the route: a link where the last page has one, else a search by title."""
    assert task.environment is not None
    text = ""
    for title in task.environment["route"]:
        link = re.search(rf"{title} \((\w+)\)", text)
        text = (
            dialogue.call(f"{title} is {link[1]}.", "open", id=link[1]) if link else _look_up(dialogue, title)
        )
    return dialogue.say(f"It is {task.answer}.", box(task.answer))


def _look_up(dialogue: Dialogue, title: str) -> str:
    """Searches for a page and opens it; returns its text."""
    results = dialogue.call(f"Find {title}.", "search", query=title)
    found = next(line.split()[0] for line in results.splitlines() if line.endswith(f" {title}"))
    return dialogue.call(f"{title} is {found}.", "open", id=found)


def _careless(dialogue: Dialogue, task: Task, habit: str, guess: str) -> list[Message]:
    assert task.environment is not None
    route = task.environment["route"]
    if habit == "halfway":
        _look_up(dialogue, route[0])
        return dialogue.say("That is enough.", box(route[1]))
    if habit == "echoed":
        question = task.prompt.removesuffix(ASK["en"])
        results = dialogue.call("Search it all.", "search", query=question)
        return dialogue.say("The first one.", box(results.splitlines()[0].split()[1]))
    if habit == "gave_up":
        return dialogue.say("Too hard.", "I do not know.")
    return dialogue.say("Easy.", box(guess))


DOMAIN = AgenticSearchDomain()
