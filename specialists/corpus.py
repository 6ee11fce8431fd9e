"""The generated corpus that the embedded base is pre-trained on: demonstrations of all domains, good and bad ones.

It stands in for a web-scale corpus, flaws included: only `careful_share` of the demonstrations do it right, the rest
show each domain's bad habits, and nothing in the text says which is which. That makes the base weak on purpose: it
can do the tasks, and mostly does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rollout.environment import ToolSpec
from rollout.records import MODES, Message, Mode, Split, Task
from rollout.seeding import rng_for, seed_for
from specialists import get_domain
from specialists.base import Request


@dataclass(frozen=True)
class DomainMix:
    """How a domain takes part in a mixture: its weight, its levels and its languages."""

    share: float
    levels: tuple[int, ...]
    languages: tuple[str, ...]


@dataclass(frozen=True)
class Document:
    """One conversation of the corpus, whole, as the chat template takes it."""

    messages: tuple[Message, ...]
    mode: Mode
    tools: tuple[ToolSpec, ...]
    domain: str
    careful: bool


def generated_task(domain: str, mix: DomainMix, split: Split, mode: Mode, *names: str | int) -> Task:
    """The task that these names draw: equal names, equal task."""
    request = Request(seed_for(domain, split, *names), split, mode, mix.levels, mix.languages)
    return get_domain(domain).generate(request)


def documents(
    mixes: Mapping[str, DomainMix], count: int, careful_share: float, split: Split, seed: int
) -> Iterator[Document]:
    """`count` documents, domains drawn by share, modes alternating, each from its own seed."""
    names = sorted(mixes)
    weights = [mixes[name].share for name in names]
    for number in range(count):
        rng = rng_for(seed, "corpus", split, number)
        name = rng.choices(names, weights)[0]
        mode = MODES[number % len(MODES)]
        task = generated_task(name, mixes[name], split, mode, seed, "corpus", number)
        domain = get_domain(name)
        careful = rng.random() < careful_share
        turns = domain.demonstrate(task, rng, careful)
        yield Document((*task.messages, *turns), mode, tuple(domain.tools), name, careful)
