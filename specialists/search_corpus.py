"""Generated worlds of facts, written as short pages, and questions whose answer takes several pages to find.

Every relation gives one object for a subject, so a chain of relations from one subject has one answer;
`reach` proves it from the bare facts.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from specialists import NAMES

Fact = tuple[str, str, str]
"""Subject, relation, object."""

CITIES = ("Bern", "Ghent", "Graz", "Lima", "Lyon", "Malmo", "Oslo", "Porto", "Pune", "Rome", "Turin", "Vaasa")
RIVERS = ("Arno", "Elbe", "Loire", "Oder", "Rhine", "Seine", "Tiber", "Volga")
FIRMS = ("Acme", "Argo", "Delta", "Lumen", "Nimbus", "Orbit", "Vertex", "Zenith")
PRODUCTS = ("boats", "bread", "chairs", "clocks", "glass", "lamps", "paper", "tea")

SENTENCE = {
    "friend": "The friend of {} is {}.",
    "lives": "{} lives in {}.",
    "works": "{} works for {}.",
    "mayor": "The mayor of {} is {}.",
    "river": "The river of {} is {}.",
    "makes": "{} makes {}.",
    "seat": "{} is based in {}.",
}
OBJECTS = {
    "friend": NAMES,
    "lives": CITIES,
    "works": FIRMS,
    "mayor": NAMES,
    "river": RIVERS,
    "makes": PRODUCTS,
    "seat": CITIES,
}
SIBLING = {
    "lives": "works",
    "works": "lives",
    "mayor": "river",
    "river": "mayor",
    "makes": "seat",
    "seat": "makes",
}
"""The other relation that a page of this kind holds from level 2 on."""


@dataclass(frozen=True)
class Chain:
    """A question over {who}, and the two relations that answer it."""

    question: str
    relations: tuple[str, str]


CHAINS = {
    "mayor": Chain("Who is the mayor of the city where {who} lives?", ("lives", "mayor")),
    "river": Chain("Which river is in the city where {who} lives?", ("lives", "river")),
    "product": Chain("What does the firm that {who} works for make?", ("works", "makes")),
    "seat": Chain("Where is the firm that {who} works for based?", ("works", "seat")),
}


@dataclass(frozen=True)
class World:
    """A question with its pages (id, title, text). `route` holds, in order, the titles of the pages that
    carry the facts."""

    question: str
    route: tuple[str, ...]
    answer: str
    facts: tuple[Fact, ...]
    pages: tuple[Mapping[str, str], ...]

    @property
    def evidence(self) -> list[str]:
        """Ids of the pages on the route."""
        ids = {page["title"]: page["id"] for page in self.pages}
        return [ids[title] for title in self.route]


def relations(family: str, level: int) -> tuple[str, ...]:
    """The relations from the person named in the question to the answer: one more hop from level 3 on."""
    return (("friend",) if level > 2 else ()) + CHAINS[family].relations


def draw_path(rng: random.Random, family: str, level: int) -> list[str]:
    """The entities on the way from the person in the question to the answer, all different."""
    path = [rng.choice(NAMES)]
    for relation in relations(family, level):
        path.append(rng.choice([name for name in OBJECTS[relation] if name not in path]))
    return path


def build(rng: random.Random, family: str, level: int, path: Sequence[str]) -> World:
    """Surrounds the path by other people, and cities or firms, of which the same things are known."""
    chain = relations(family, level)
    people = _with_others(rng, NAMES, path, path[: len(chain) - 1], 3 if level == 1 else 4)
    places = _with_others(rng, OBJECTS[chain[-2]], path, path[-2:-1], len(people))
    taken = set(people) if level == 1 else set()
    facts: dict[tuple[str, str], str] = {}
    for subjects, relation in ((people, chain[-2]), (places, chain[-1])):
        for known in (relation,) if level == 1 else (relation, SIBLING[relation]):
            free = [name for name in OBJECTS[known] if name not in taken]
            things = places if known == chain[-2] else rng.sample(free, len(subjects))
            facts.update({(subject, known): thing for subject, thing in zip(subjects, things, strict=True)})
    if level > 2:
        friends = {person: rng.choice([name for name in people if name != person]) for person in people}
        facts.update({(person, "friend"): friend for person, friend in friends.items()})
    for subject, relation, thing in zip(path, chain, path[1:], strict=False):
        _assign(facts, subject, relation, thing)
    triples = tuple((subject, relation, thing) for (subject, relation), thing in facts.items())
    who = f"the friend of {path[0]}" if level > 2 else path[0]
    question = CHAINS[family].question.format(who=who)
    return World(question, tuple(path[:-1]), path[-1], triples, _pages(rng, triples, links=level == 1))


def reach(facts: Sequence[Fact], start: str, chain: Sequence[str]) -> set[str]:
    """Everything that the chain of relations leads to, tried over all facts."""
    here = {start}
    for wanted in chain:
        here = {thing for subject, relation, thing in facts if relation == wanted and subject in here}
    return here


def _with_others(
    rng: random.Random, names: Sequence[str], path: Sequence[str], known: Sequence[str], count: int
) -> list[str]:
    """`count` entities: the known part of the path and others that are not on it."""
    return [*known, *rng.sample([name for name in names if name not in path], count - len(known))]


def _assign(facts: dict[tuple[str, str], str], subject: str, relation: str, thing: str) -> None:
    """Sets a fact; who had that object before takes the subject's, so that objects stay different."""
    previous = facts[subject, relation]
    if relation != "friend":
        for key, value in facts.items():
            if key[1] == relation and value == thing:
                facts[key] = previous
    facts[subject, relation] = thing


def _pages(rng: random.Random, facts: Sequence[Fact], links: bool) -> tuple[dict[str, str], ...]:
    """A page for each subject, in random order; with `links`, an entity is followed by the id of its page."""
    titles = list(dict.fromkeys(subject for subject, _, _ in facts))
    rng.shuffle(titles)
    ids = {title: f"d{number}" for number, title in enumerate(titles, 1)}
    pages = []
    for title in titles:
        sentences = []
        for subject, relation, thing in facts:
            if subject == title:
                linked = f"{thing} ({ids[thing]})" if links and thing in ids else thing
                sentences.append(SENTENCE[relation].format(subject, linked))
        rng.shuffle(sentences)
        pages.append({"id": ids[title], "title": title, "text": " ".join(sentences)})
    return tuple(pages)


def pool(family: str) -> tuple[str, ...]:
    """What could be the answer to a question of the family."""
    return OBJECTS[CHAINS[family].relations[-1]]
