import pytest

from rewards.rubric import Criterion, CriterionResult, check_criterion, combine_criteria, count_sentences


@pytest.mark.parametrize(
    ("spec", "good", "bad"),
    [
        ({"kind": "contains", "text": "sea"}, "The SEA, at dawn.", "A season of research."),
        ({"kind": "contains", "text": "go", "times": 2}, "Go, go!", "Go."),
        ({"kind": "contains", "text": "你好"}, "他说你好。", "他说再见。"),
        ({"kind": "excludes", "text": "sea"}, "Season.", "The sea."),
        ({"kind": "equals", "text": "Paris"}, " paris. ", "Paris, France"),
        ({"kind": "starts_with", "text": "Dear"}, "Dear Ann, hello.", "My dear Ann."),
        ({"kind": "ends_with", "text": "the end"}, "So it was. The End.", "The end of it."),
        ({"kind": "sentences", "count": 2}, "One. Two!", "One. Two. Three."),
        ({"kind": "sentences", "min": 1, "max": 2}, "One", "1. 2. 3."),
        ({"kind": "max_words", "count": 3}, "one two three", "one two three four"),
        ({"kind": "min_words", "count": 3}, "one two three", "one two"),
        ({"kind": "language", "language": "zh"}, "今天天气很好。", "The weather is fine today."),
    ],
)
def test_checks(spec, good, bad):
    assert check_criterion(spec, good)
    assert not check_criterion(spec, bad)
    assert not check_criterion(spec, "   ")


def test_bad_specifications_are_errors():
    with pytest.raises(ValueError, match="unknown check"):
        check_criterion({"kind": "vibes"}, "x")
    with pytest.raises(ValueError, match="unknown check"):
        Criterion("c", "t", check={"kind": "vibes"})
    with pytest.raises(ValueError, match="weight"):
        Criterion("c", "t", weight=0)


def test_sentences():
    texts = ("", "a", "a. b", "3.5 is it.", "你好。再见！", "What?! No...")
    assert [count_sentences(text) for text in texts] == [
        0, 1, 2, 1, 2, 2,
    ]  # fmt: skip


def result(*verdicts, gate=False):
    criteria = [Criterion(f"c{i}", "t", weight=i + 1, gate=gate and i == 0) for i in range(len(verdicts))]
    return combine_criteria(criteria, [CriterionResult(f"c{i}", met) for i, met in enumerate(verdicts)])


def test_weights_gates_and_abstentions():
    assert result(True, False).score == pytest.approx(1 / 3)
    assert result(True, True).score == 1.0 and result(True, True).passed
    assert result(False, True, gate=True).score == 0.0
    assert result(True, False, gate=True).score == pytest.approx(1 / 3)
    assert result(True, None).score is None and "c1" in result(True, None).invalid_reason
    with pytest.raises(ValueError):
        combine_criteria([Criterion("a", "t")], [CriterionResult("b", True)])
    with pytest.raises(ValueError):
        combine_criteria([], [])


def test_json():
    criterion = Criterion("c", "t", 2.0, True, {"kind": "max_words", "count": 3})
    assert Criterion.from_json(criterion.to_json()) == criterion
