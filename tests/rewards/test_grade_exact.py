import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.exact import grade_choice, grade_exact, grade_ordering, grade_qa, grade_set, normalise


@given(st.text())
def test_normalise_is_idempotent_and_total(text):
    assert normalise(normalise(text)) == normalise(text)


def test_exact():
    assert grade_exact("  “Paris”. ", "paris").correct
    assert grade_exact("ＰＡＲＩＳ", "Paris").correct
    assert grade_exact("Pa\u200bris", "Paris").correct
    assert not grade_exact("3.5", "35").correct
    assert not grade_exact("-3", "3").correct
    assert not grade_exact("Paris or London", "Paris").correct
    assert not grade_exact("", "Paris").correct


def test_choice():
    for answer in ("B", "(b)", "b.", "B)", "blue"):
        assert grade_choice(answer, "B", ["red", "blue"]).correct, answer
    for answer in ("A", "A or B", "AB", "C", "", "red"):
        assert not grade_choice(answer, "B", ["red", "blue"]).correct, answer
    with pytest.raises(ValueError):
        grade_choice("A", "??", ["red"])


def test_set_and_ordering():
    assert grade_set("b, A", ["a", "b"]).correct
    assert grade_set("{b, a}", ["a", "b"]).correct
    assert not grade_set("a, b, c", ["a", "b"]).correct
    assert not grade_set("a, b, b", ["a", "b"]).correct
    assert not grade_set("", ["a"]).correct
    assert grade_ordering("a, b", ["a", "b"]).correct
    assert not grade_ordering("b, a", ["a", "b"]).correct
    assert not grade_ordering("a,,b", ["a", "b"]).correct


def test_qa():
    assert grade_qa("The Eiffel Tower.", ["eiffel tower"]).correct
    assert not grade_qa("Eiffel Tower, Louvre, Paris", ["eiffel tower"]).correct
    assert not grade_qa("the", ["eiffel tower"]).correct
    with pytest.raises(ValueError):
        grade_qa("x", ["the"])
