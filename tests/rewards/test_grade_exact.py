import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.choice import grade_choice
from rewards.exact import grade_exact, grade_ordering, grade_set, normalise, unwrap
from rewards.json_value import NotJson, grade_json, parse_json

FIXED = settings(derandomize=True, deadline=None)

CHOICES = ["red", "blue", "green and blue", "none of these"]
words = st.text("abcdefg", min_size=1, max_size=5)


@FIXED
@given(st.text())
def test_normalise_and_unwrap_are_idempotent_and_total(text):
    assert normalise(normalise(text)) == normalise(text)
    assert unwrap(unwrap(text)) == unwrap(text)


def test_exact():
    assert grade_exact("  “Paris”. ", "paris").correct
    assert grade_exact("ＰＡＲＩＳ", "Paris").correct
    assert grade_exact("Pa\u200bris", "Paris").correct
    assert grade_exact(r"\text{Paris}", "Paris").correct
    assert grade_exact("**Paris**", "Paris").correct
    assert not grade_exact("3.5", "35").correct
    assert not grade_exact("-3", "3").correct
    assert not grade_exact("C", "C#").correct
    assert not grade_exact("Paris or London", "Paris").correct
    assert not grade_exact(r"\text{Paris} or \text{London}", "Paris").correct
    assert not grade_exact("Pаris", "Paris").correct, "a Cyrillic а"
    assert not grade_exact("", "Paris").correct


@pytest.mark.parametrize(
    "answer",
    [
        "B",
        "(b)",
        "b.",
        "B)",
        "blue",
        "Ｂ",
        "（B）",
        "B、",
        "[B]",
        r"\text{B}",
        r"\textbf{(B)}",
        "$B$",
        "**B**",
        "Option B",
        "选项B",
        "选B",
        "B) blue",
        "(B) Blue.",
        "B. blue",
        "B: blue",
        "(B) blue",
        "B、blue",
        " B\n",
    ],
)
def test_one_choice_in_many_notations(answer):
    assert grade_choice(answer, "B", CHOICES).correct


@pytest.mark.parametrize(
    "answer",
    [
        "A",
        "A or B",
        "A/B",
        "AB",
        "A, B",
        "B) A)",
        "(A)(B)",
        "B, not A",
        "Z",
        "",
        "red",
        "A) blue",
        "B) red",
        "B) red, blue",
        "red blue",
        "green",
        "В",
        "Β",
        "all of them",
        "a b c d",
        "A B",
        "B?A",
        "bb",
        "B) blue or A) red",
        "one of A, B",
    ],
)
def test_none_and_several_choices_are_wrong(answer):
    assert grade_choice(answer, "B", CHOICES).correct is False


def test_choice_without_texts_and_with_a_bad_truth():
    assert grade_choice("C.", "c").correct
    assert not grade_choice("C) carbon", "c").correct, "nobody knows whether that is C's text"
    assert grade_choice("(C) green and blue", "C", CHOICES).correct
    for truth in ("??", "E", "AB", ""):
        with pytest.raises(ValueError, match="one of its letters"):
            grade_choice("A", truth, CHOICES)


@FIXED
@given(st.lists(words, min_size=2, max_size=5, unique=True), st.data())
def test_naming_more_than_one_choice_never_pays(choices, data):
    first, second = data.draw(st.permutations(range(len(choices))))[:2]
    truth = "ABCDE"[first]
    joined = data.draw(st.sampled_from([" or ", ", ", "/", " ", " and ", "或", "; ", "\n"]))
    for given_ in (truth + joined + "ABCDE"[second], f"{truth}){joined}{'ABCDE'[second]})"):
        if normalise(given_) not in map(normalise, choices):
            assert not grade_choice(given_, truth, choices).correct


def test_set_and_ordering():
    for answer in (
        "b, A",
        "{b, a}",
        "a and b",
        "a; b",
        "a、b",
        "a，b",
        "a和b",
        r"\{a, b\}",
        "- a\n- b",
        r"\text{a}, \text{b}",
    ):
        assert grade_set(answer, ["a", "b"]).correct, answer
    for answer in ("a, b, c", "a, b, b", "", "a", "a or b", "a, , b", "a b", "a, b or c", "a, а, b"):
        assert not grade_set(answer, ["a", "b"]).correct, answer
    assert grade_set("a, b, and c", ["c", "b", "a"]).correct
    assert grade_set("Paris, France; Rome, Italy", ["Rome, Italy", "Paris, France"]).correct
    assert not grade_set("Paris; France; Rome; Italy", ["Rome, Italy", "Paris, France"]).correct
    assert grade_set("salt and pepper, oil", ["oil", "salt and pepper"]).correct
    assert grade_ordering("a, b", ["a", "b"]).correct
    assert grade_ordering("[a, b]", ["a", "b"]).correct
    assert not grade_ordering("b, a", ["a", "b"]).correct
    assert not grade_ordering("a,,b", ["a", "b"]).correct


@FIXED
@given(st.lists(words, min_size=1, max_size=5), st.randoms())
def test_a_set_has_any_order_and_nothing_more(items, rng):
    shuffled = rng.sample(items, len(items))
    assert grade_set(", ".join(shuffled), items).correct
    assert not grade_set(", ".join([*shuffled, "extra"]), items).correct
    assert not grade_set(", ".join(shuffled[1:]), items).correct
    assert grade_ordering(", ".join(shuffled), items).correct == (shuffled == items)


@pytest.mark.parametrize(
    ("answer", "truth"),
    [
        ('{"b": [1, 2.50], "a": null}', {"a": None, "b": [1, 2.5]}),
        ('```json\n{"a": true}\n```', {"a": True}),
        ("1.0", 1),
        ("1e2", 100),
        ("0.1", 0.1),
        ('"é"', "é"),
        ("[]", []),
    ],
)
def test_json_is_equal_by_value(answer, truth):
    assert grade_json(answer, truth).correct


@pytest.mark.parametrize(
    ("answer", "truth"),
    [
        ("1", True),
        ("true", 1),
        ('"1"', 1),
        ("[2, 1]", [1, 2]),
        ('{"a": 1, "b": 2}', {"a": 1}),
        ('{"a": 2, "a": 1}', {"a": 1}),
        ('{"a": 1} {"a": 2}', {"a": 1}),
        ('Here it is: {"a": 1}', {"a": 1}),
        ("{'a': 1}", {"a": 1}),
        ("[1, 2,]", [1, 2]),
        ("NaN", None),
        ("", None),
        ("0.30000000000000004", 0.3),
        ("[[1]]", [1]),
    ],
)
def test_json_that_differs_or_is_none(answer, truth):
    assert grade_json(answer, truth).correct is False


@pytest.mark.parametrize(
    "bomb", ["[" * 3000, '{"a":' * 3000, "9" * 5000, "1e999999999", "[" * 40 + "]" * 40, "1" * 30000]
)
def test_json_bombs_are_refused(bomb):
    with pytest.raises(NotJson):
        parse_json(bomb)
