"""Every grader and parser on texts that nobody would write: nothing escapes but *invalid* (or the documented error), no
call takes long, the same text gets the same verdict twice. The targets are those of `make fuzz`."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.target import MAX_BYTES, Broken, Target, check, text_of, timed
from fuzz.targets import TARGETS

FRAGMENTS = sorted(
    {piece for target in TARGETS.values() for seed in target.seeds for piece in re.findall(r"\w+|\W", seed)}
)
ODD = [
    "\0",
    "\ud800",
    "\u202e",
    "\u200b",
    "\ufeff",
    "\U0001f600",
    "𝟕",
    "７",
    "٧",
    "\r",
    "\x1b[2K",
    "е",
    "\\",
    "{" * 50,
    "9" * 400,
]


def texts(target: Target) -> st.SearchStrategy[str]:
    """Any text; pieces of seeds in any order; a seed with something changed; a few pieces repeated."""
    pieces = st.lists(st.sampled_from(FRAGMENTS) | st.sampled_from(ODD), max_size=40).map("".join)
    changed = st.tuples(st.sampled_from(target.seeds), pieces, st.integers(0, 60)).map(
        lambda drawn: drawn[0][: drawn[2]] + drawn[1][:20] + drawn[0][drawn[2] :]
    )
    long = st.tuples(pieces, st.sampled_from(target.seeds)).map(
        lambda drawn: ((drawn[0][:30] or "(") * MAX_BYTES)[: MAX_BYTES // 4] + drawn[1]
    )
    pair = st.tuples(changed, pieces).map("\0".join)
    return st.one_of(st.text(max_size=80), pieces, changed, pair, long).map(lambda text: text[: MAX_BYTES // 3])


@pytest.fixture(scope="module", autouse=True)
def loaded() -> Iterator[None]:
    """What is loaded at the first use (the language detector's model) is no part of a call, and tests under tracing on
    a shared machine have more time than `make fuzz` gives: what explodes takes minutes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fuzz.target.LIMIT_S", 60.0)
        for target in TARGETS.values():
            for seed in target.seeds:
                target.run(seed)
        patch.setattr("fuzz.target.LIMIT_S", 5.0)
        yield


@pytest.mark.parametrize("name", TARGETS)
def test_seeds(name):
    for seed in TARGETS[name].seeds:
        check(TARGETS[name], seed)


@pytest.mark.parametrize("name", TARGETS)
def test_random_texts(name):
    target = TARGETS[name]

    @settings(max_examples=60, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(texts(target))
    def holds(text: str) -> None:
        check(target, text)

    holds()


def test_largest_texts():
    """The same character, word or bracket over and over: where quadratic time shows."""
    for piece in (
        "(",
        "{",
        "[",
        "a ",
        "9",
        "\\frac",
        "a,",
        "^",
        "-",
        "`",
        "<think>",
        "。",
        "x^{",
        "\\sqrt{",
        "\n",
        "* a\n",
    ):
        text = (piece * MAX_BYTES)[:MAX_BYTES]
        for target in TARGETS.values():
            check(target, text)


@pytest.mark.parametrize(
    ("run", "what"),
    [
        (lambda text: text.encode(), "UnicodeEncodeError escapes"),
        (lambda text: object(), "first <object"),
        (lambda text: timed(sum, range(4 * 10**7)), "sum took"),
    ],
)
def test_the_check_itself_finds_what_it_looks_for(run, what, monkeypatch):
    monkeypatch.setattr("fuzz.target.LIMIT_S", 0.2)
    with pytest.raises(Broken, match=what):
        check(Target("broken", run, ()), "\ud800")
    assert text_of(b"\xff") == "\udcff"
