"""Writing: short texts under constraints, questions on a passage, lists. Judged by criteria.

Each criterion has a text for the judge and a hidden truth that evaluation and
the judge's own training use; the policy is paid by the judge.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from rewards.extract import FormatError, split_thinking
from rewards.instructions import check_criterion
from rewards.rubric import Criterion
from rewards.sandbox import SandboxWorker
from rewards.types import Verdict
from rollout.records import Attempt, Message, Task
from rollout.seeding import rng_for
from specialists import NAMES
from specialists.base import Kind, Request, ToolSpec, assistant, draw, task_id
from specialists.boxed import CAREFUL
from specialists.criteria import contains, ends_with, excludes, has_sentences, starts_with
from specialists.words import (
    ANIMALS,
    CATEGORIES,
    COLOURS,
    EASY,
    EDGES,
    FOREIGN,
    QUICK,
    UNKNOWN,
    UNSURE,
    sentences,
    word,
    words,
)

Problem = list[Any]
"""A problem as JSON, in English words: its family's own list, enough to ask, to judge and to answer it."""
Draft = tuple[float, str, str]
"""How often a bad habit is shown, its thought, its text."""

# --- constraints: [topic, words, number of sentences | None, first word | None, last word | None] ---


def sample_constraints(rng: random.Random, level: int) -> Problem:
    """Level 1: one word and either a number of sentences or an edge. Above: more words, both, both edges."""
    topic, used = rng.choice(ANIMALS), sorted(rng.sample(COLOURS, level))
    count = rng.randint(max(2, level), level + 2)
    start, end = rng.choice([(edge, None) for edge in EDGES] + [(None, edge.lower()) for edge in EDGES])
    if level == 1:
        return [topic, used, count, None, None] if rng.random() < 0.5 else [topic, used, None, start, end]
    if level == 2:
        return [topic, used, count, start, end]
    first, last = rng.sample(EDGES, 2)
    return [topic, used, count, first, last.lower()]


def ask_constraints(problem: Problem, language: str) -> str:
    """Worded so that the question itself never meets the rubric: edges first, then one sentence."""
    topic, used, count, start, end = problem
    if language == "en":
        parts = ([f"Start with {start}."] if start else []) + ([f"End with {end}."] if end else [])
        size = f" {count} sentences" if count else ""
        used_words = f"word{'s' * (len(used) > 1)} {' and '.join(used)}"
        return " ".join([*parts, f"Write{size} about the {topic} with the {used_words}."])
    parts = [f"开头：{word(start, 'zh')}。"] if start else []
    parts += [f"结尾：{word(end, 'zh')}。"] if end else []
    size = f"写{count}句话，" if count else ""
    return "".join(parts) + f"{size}主题：{word(topic, 'zh')}，用词：{words(used, 'zh')}。"


def rubric_constraints(problem: Problem, language: str) -> list[Criterion]:
    topic, used, count, start, end = problem
    criteria = [contains(word(item, language)) for item in (topic, *used)]
    criteria += [has_sentences(count)] if count else []
    criteria += [starts_with(word(start, language))] if start else []
    return criteria + ([ends_with(word(end, language))] if end else [])


def text_constraints(
    topic: str,
    used: Sequence[str],
    count: int,
    language: str,
    start: str | None = None,
    end: str | None = None,
) -> str:
    """`count` sentences on the topic: one for each word, then plain ones; edges as asked."""
    noun = word(topic, language)
    if language == "en":
        said = [f"the {noun} is {item}" for item in used]
        said += [f"we like the {noun}", f"I see the {noun}", f"the {noun} is here", f"it is a {noun}"]
        said = said[:count]
        said[0] = f"{start} {said[0]}" if start else said[0]
        said[-1] += f" {end}" if end else ""
        return sentences([sentence[0].upper() + sentence[1:] for sentence in said], language)
    said = [f"{noun}很{word(item, language)}" for item in used]
    said += [f"我们喜欢{noun}", f"我看见{noun}", f"{noun}来了", f"这是{noun}"]
    said = said[:count]
    said[0] = word(start or "", language) + said[0]
    said[-1] += f"，{word(end, language)}" if end else ""
    return sentences(said, language)


def careful_constraints(problem: Problem, language: str, rng: random.Random) -> tuple[str, str]:
    topic, used, count, start, end = problem
    plan = [topic, *used, *(edge for edge in (start, end) if edge)]
    size = {"en": f", {count} sentences", "zh": f"，{count}句话"}[language] if count else ""
    text = text_constraints(topic, used, count or 2, language, start, end)
    return planned(words(plan, language) + size, language), text


def careless_constraints(problem: Problem, language: str, rng: random.Random) -> list[Draft]:
    """Forgets the word; too much, and no edges; says nothing."""
    topic, used, count, _, end = problem
    said = {"en": ("Sure. ", "Well", "It is nice."), "zh": ("好的。", "嗯，", "很好。")}
    sure, well, vague = said[language]
    return [
        (0.50, QUICK[language], sure + text_constraints(topic, [], count or 1, language, end=end)),
        (0.20, UNSURE[language], text_constraints(topic, used, (count or 1) + 1, language, start=well)),
        (0.15, EASY[language], vague),
    ]


# --- qa: [[name, thing, colour], …], number of the fact asked for, what is asked ---

ASKED = ("who", "what", "colour")


def sample_qa(rng: random.Random, level: int) -> Problem:
    """Level 1: one fact, one of its three parts is asked for. Above: who has which of several alike things."""
    if level == 1:
        fact = [rng.choice(NAMES), rng.choice(ANIMALS), rng.choice(COLOURS)]
        return [[fact], 0, rng.choice(ASKED)]
    thing, other = rng.sample(ANIMALS, 2)
    colour, another = rng.sample(COLOURS, 2)
    owned = [[thing, colour], [thing, another], [other, colour], [other, another]][: level + 1]
    rng.shuffle(owned)
    facts = [[name, *pair] for name, pair in zip(rng.sample(NAMES, level + 1), owned, strict=True)]
    return [facts, rng.randrange(len(facts)), "who"]


def has_text(fact: Sequence[str], article: str, language: str) -> str:
    name, thing, colour = (word(part, language) for part in fact)
    return f"{name} has {article} {colour} {thing}" if language == "en" else f"{name}有{colour}{thing}"


def ask_qa(problem: Problem, language: str) -> str:
    facts, asked, kind = problem
    _, thing, colour = (word(part, language) for part in facts[asked])
    passage = sentences([has_text(fact, "a", language) for fact in facts], language)
    if len(facts) > 1:
        question = {"en": f"Who has the {colour} {thing}?", "zh": f"谁有{colour}{thing}？"}[language]
    else:
        english = {"who": "Who has it?", "what": "What is it?", "colour": "What colour is it?"}
        chinese = {"who": "谁有它？", "what": "它是什么？", "colour": "它是什么颜色？"}
        question = (english if language == "en" else chinese)[kind]
    return f"{passage} {question} Answer in 1 sentence." if language == "en" else f"{passage}{question}答1句话。"


def entities(problem: Problem, language: str) -> tuple[str, list[str]]:
    """The right answer and the others that the passage offers."""
    facts, asked, kind = problem
    named = [word(fact[0], language) for fact in facts]
    if len(facts) == 1:
        first = ASKED.index(kind)
        named = [word(part, language) for part in facts[0][first:] + facts[0][:first]]
    right = named[asked]
    return right, [entity for entity in named if entity != right]


def rubric_qa(problem: Problem, language: str) -> list[Criterion]:
    right, others = entities(problem, language)
    if len(problem[0]) == 1:
        return [contains(right, gate=True), excludes(others[0]), has_sentences(1)]
    return [contains(right, gate=True), *(excludes(entity) for entity in others)]


def careful_qa(problem: Problem, language: str, rng: random.Random) -> tuple[str, str]:
    facts, asked, kind = problem
    right = entities(problem, language)[0]
    english = {"who": f"{right} has it", "what": f"It is a {right}", "colour": f"It is {right}"}
    chinese = {"who": f"{right}有它", "what": f"它是{right}", "colour": f"它是{right}色"}
    text = (english if language == "en" else chinese)[kind]
    if len(facts) > 1:
        text = has_text(facts[asked], "the", language)
    return planned(right, language), sentences([text], language)


def careless_qa(problem: Problem, language: str, rng: random.Random) -> list[Draft]:
    """Names another entity; names two, in two sentences; gives up."""
    right, others = entities(problem, language)
    sure, both = {"en": ("Sure, {}.", "Well. {} or {}."), "zh": ("好的，{}。", "嗯。{}或{}。")}[language]
    return [
        (0.50, QUICK[language], sure.format(others[0])),
        (0.20, UNSURE[language], both.format(right, others[0])),
        (0.15, EASY[language], UNKNOWN[language]),
    ]


# --- list: [category, included, excluded, number] ---


def sample_list(rng: random.Random, level: int) -> Problem:
    """Level 1: one item to include, one to leave out. Above: two of each."""
    category, each = rng.choice(list(CATEGORIES)), min(level, 2)
    picked = rng.sample(CATEGORIES[category], 2 * each)
    return [category, sorted(picked[:each]), sorted(picked[each:]), rng.randint(level + 1, level + 2 + (level > 1))]


def ask_list(problem: Problem, language: str) -> str:
    category, included, excluded, count = problem
    if language == "en":
        with_, without = " and ".join(included), " or ".join(excluded)
        return f"List {count} {category} with {with_}, without {without}. End each with a period."
    with_, without = words(included, "zh"), words(excluded, "zh")
    return f"写{count}种{word(category, 'zh')}。要有：{with_}。不要：{without}。用句号隔开。"


def rubric_list(problem: Problem, language: str) -> list[Criterion]:
    _, included, excluded, count = problem
    required = [contains(word(item, language)) for item in included]
    return [*required, *(excludes(word(item, language)) for item in excluded), has_sentences(count)]


def text_list(items: Sequence[str], language: str) -> str:
    return sentences([word(item, language) for item in items], language)


def careful_list(problem: Problem, language: str, rng: random.Random) -> tuple[str, str]:
    category, included, _, count = problem
    items = included + others_of(problem)[: count - len(included)]
    size = {"en": f", {count} {category}", "zh": f"，{count}种"}[language]
    return planned(words(included, language) + size, language), text_list(items, language)


def careless_list(problem: Problem, language: str, rng: random.Random) -> list[Draft]:
    """Leaves out what must be in; puts in what must be out; gives up."""
    _, included, excluded, count = problem
    sure, well = {"en": ("Sure. ", "Well, "), "zh": ("好的。", "嗯，")}[language]
    rest = others_of(problem)
    return [
        (0.50, QUICK[language], sure + text_list(rest[:count], language)),
        (0.20, UNSURE[language], well + text_list((included + excluded + rest)[:count], language)),
        (0.15, EASY[language], UNKNOWN[language]),
    ]


def others_of(problem: Problem) -> list[str]:
    """What else could be listed, in the order of the category, from the first included item on."""
    category, included, excluded, _ = problem
    items = CATEGORIES[category]
    first = items.index(included[0])
    return [item for item in items[first:] + items[:first] if item not in (*included, *excluded)]


# --- the domain ---


def planned(plan: str, language: str) -> str:
    return CAREFUL[language] + sentences([plan], language)


Family = tuple[
    Callable[[random.Random, int], Problem],
    Callable[[Problem, str], str],
    Callable[[Problem, str], list[Criterion]],
    Callable[[Problem, str, random.Random], tuple[str, str]],
    Callable[[Problem, str, random.Random], list[Draft]],
]
FAMILIES: dict[str, Family] = {
    "constraints": (
        sample_constraints,
        ask_constraints,
        rubric_constraints,
        careful_constraints,
        careless_constraints,
    ),
    "qa": (sample_qa, ask_qa, rubric_qa, careful_qa, careless_qa),
    "list": (sample_list, ask_list, rubric_list, careful_list, careless_list),
}
"""Per family: how a problem is drawn, written, judged, answered well, answered badly."""


class Writing:
    name = "writing"
    kind: Kind = "general"
    families = tuple(FAMILIES)
    tools: tuple[ToolSpec, ...] = ()
    max_turns = 1

    def generate(self, request: Request) -> Task:
        rng = rng_for("writing", request.seed)
        family, level = rng.choice(self.families), rng.choice(list(request.levels))
        language = rng.choice(list(request.languages))
        sample, ask, rubric, *_ = FAMILIES[family]
        problem = draw(rng, request.split, lambda r: sample(r, level))
        return Task(
            id=task_id(self.name, family, problem, language, request.mode),
            domain=self.name,
            family=family,
            messages=({"role": "user", "content": ask(problem, language)},),
            mode=request.mode,
            language=language,
            rubric=tuple(rubric(problem, language)),
            difficulty=level,
            provenance={"generator": self.name, "seed": request.seed, "problem": problem},
        )

    def demonstrate(self, task: Task, rng: random.Random, careful: bool) -> list[Message]:
        problem, (*_, good, bad) = task.provenance["problem"], FAMILIES[task.family]
        if careful:
            thought, text = good(problem, task.language, rng)
        else:
            drafts = bad(problem, task.language, rng)
            if task.language != "en":
                drafts.append((0.15, FOREIGN, good(problem, "en", rng)[1]))
            _, thought, text = rng.choices(drafts, [weight for weight, _, _ in drafts])[0]
        return [assistant(text, thought if task.mode == "thinking" else "")]

    def environment(self, task: Task, sandbox: SandboxWorker | None) -> None:
        return None

    def grade(self, attempt: Attempt, sandbox: SandboxWorker | None) -> Verdict:
        parts = split_thinking(attempt.final, attempt.task.mode, attempt.finished)
        if isinstance(parts, FormatError):
            return Verdict(False, parts.name, {"detail": parts.detail})
        met = {c.name: c.satisfied(check_criterion(c.truth or {}, parts.answer_text)) for c in attempt.task.rubric}
        return Verdict(all(met.values()), "met" if all(met.values()) else "not_met", {"criteria": met})


DOMAIN = Writing()
