import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.instructions import check_criterion
from rewards.prose import count_sentences
from rewards.rubric import (
    WEIGHTS,
    Criterion,
    CriterionResult,
    combine_criteria,
    rubric_problem,
)


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
    with pytest.raises(ValueError, match="same order"):
        combine_criteria([Criterion("a", "t")], [CriterionResult("b", True)])
    with pytest.raises(ValueError, match="at least one"):
        combine_criteria([], [])


MIXED = (
    Criterion("a", "t"),
    Criterion("b", "t", importance="important"),
    Criterion("c", "t", importance="optional"),
    Criterion("bad", "t", importance="pitfall"),
)


def mixed(*verdicts, criteria=MIXED):
    results = [CriterionResult(c.name, met) for c, met in zip(criteria, verdicts, strict=True)]
    return combine_criteria(criteria, results)


@pytest.mark.parametrize(
    ("verdicts", "score", "passed"),
    [
        ((True, True, True, False), 1.0, True),
        ((True, True, True, True), (2.0 - 0.9) / 2.0, False),
        ((True, False, True, False), 1.3 / 2.0, False),
        ((False, True, False, True), 0.0, False),
        ((False, False, False, False), 0.0, False),
    ],
)
def test_a_pitfall_that_is_met_subtracts_and_the_score_stays_in_0_1(verdicts, score, passed):
    found = mixed(*verdicts)
    assert found.score == pytest.approx(score) and found.passed is passed


def test_a_pitfall_can_be_a_gate_and_has_a_weight_of_its_own():
    veto = (Criterion("a", "t"), Criterion("bad", "t", importance="pitfall", gate=True))
    assert mixed(True, True, criteria=veto).score == 0.0 and mixed(True, False, criteria=veto).score == 1.0
    light = (Criterion("a", "t"), Criterion("bad", "t", weight=0.25, importance="pitfall"))
    assert mixed(True, True, criteria=light).score == 0.75


@given(st.lists(st.tuples(st.sampled_from(sorted(WEIGHTS)), st.booleans(), st.booleans()), min_size=1, max_size=8))
def test_more_of_what_is_wanted_never_pays_less(drawn):
    criteria = [Criterion(f"c{i}", "t", importance=kind, gate=gate) for i, (kind, gate, _) in enumerate(drawn)]
    if rubric_problem(criteria):
        return
    verdicts = [met for _, _, met in drawn]
    score = mixed(*verdicts, criteria=criteria).score
    assert 0 <= score <= 1
    for number, criterion in enumerate(criteria):
        better = [*verdicts[:number], not criterion.pitfall, *verdicts[number + 1 :]]
        assert mixed(*better, criteria=criteria).score >= score - 1e-12


def test_what_is_no_rubric_is_named():
    assert "no pitfall" in rubric_problem([Criterion("a", "t", importance="pitfall")])
    assert "'a' comes twice" in rubric_problem([Criterion("a", "t"), Criterion("a", "u")])
    assert rubric_problem(MIXED) is None
    with pytest.raises(ValueError, match="importance"):
        Criterion("a", "t", importance="vital")


def test_json():
    criterion = Criterion("c", "t", 2.0, True, {"kind": "max_words", "count": 3}, importance="pitfall")
    assert Criterion.from_json(criterion.to_json()) == criterion
    assert Criterion.from_json({"name": "c", "text": "t"}).points == 1.0
