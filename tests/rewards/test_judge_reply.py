"""The reply of a judge is one strict JSON object with checked evidence, or an abstention."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.judge.reply import (
    JudgeVerdict,
    count_votes,
    parse_verdicts,
    reply_form,
    response_format,
    strict_json,
    supported,
)

MET = '{"reason": "says please", "evidence": "please", "met": true}'
NOT_MET = '{"reason": "rude", "evidence": "", "met": false}'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (MET, JudgeVerdict("says please", "please", True)),
        (f"\n {NOT_MET} \n", JudgeVerdict("rude", "", False)),
        ('{"reason":"a\\"}{","evidence":"","met":false}', JudgeVerdict('a"}{', "", False)),
        ("", None),
        ("met", None),
        ("true", None),
        ("[]", None),
        ("{}", None),
        (MET + MET, None),
        (f"{NOT_MET}\n{MET}", None),
        (f"Sure! {MET}", None),
        (f"{MET} I hope this helps.", None),
        (f"```json\n{MET}\n```", None),
        (f"[{MET}]", None),
        (MET[:-1], None),
        ('{"reason": "", "evidence": "x", "met": "true"}', None),
        ('{"reason": "", "evidence": "x", "met": 1}', None),
        ('{"reason": "", "evidence": "x", "met": null}', None),
        ('{"reason": null, "evidence": "x", "met": true}', None),
        ('{"reason": "", "evidence": ["x"], "met": true}', None),
        ('{"reason": "", "met": true}', None),
        ('{"met": true, "reason": "", "evidence": "x"}', None),
        ('{"reason": "", "evidence": "x", "met": false, "met": true}', None),
        ('{"reason": "", "evidence": "x", "met": false, "score": 10}', None),
        ('{"reason": "", "evidence": "x", "met": NaN}', None),
        ('{"reason": "\\ud800", "evidence": "", "met": false}', None),
        ("{'reason': '', 'evidence': 'x', 'met': True}", None),
        ('{"reason":' * 5000, None),
        ("[" * 20_000, None),
        ('{"reason": "' + "x" * 30_000 + '", "evidence": "", "met": false}', None),
    ],
)
def test_exactly_one_object_or_an_abstention(text, expected):
    assert parse_verdicts(text) == (None if expected is None else (expected,))


@pytest.mark.parametrize(
    ("text", "count", "mets"),
    [
        (f'{{"1": {MET}, "2": {NOT_MET}}}', 2, (True, False)),
        (f'{{"1": {NOT_MET}, "2": {MET}, "3": {MET}}}', 3, (False, True, True)),
        (f'{{"2": {MET}, "1": {NOT_MET}}}', 2, None),
        (f'{{"1": {MET}}}', 2, None),
        (f'{{"1": {MET}, "2": {MET}, "3": {MET}}}', 2, None),
        (f'{{"1": {MET}, "1": {NOT_MET}}}', 2, None),
        (f'{{"1": {MET}, "2": true}}', 2, None),
        (MET, 2, None),
        (f'{{"1": {MET}}}', 1, None),
    ],
)
def test_several_criteria_are_answered_by_number(text, count, mets):
    verdicts = parse_verdicts(text, count)
    assert (None if verdicts is None else tuple(v.met for v in verdicts)) == mets


@given(st.text(max_size=200))
def test_no_text_without_a_verdict_is_read_as_one(text):
    assert parse_verdicts(text) is None or '"met"' in text


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["reason", "evidence", "met"]), inner),
    max_leaves=8,
)


@given(json_values)
def test_whatever_json_says_only_the_exact_shape_is_a_verdict(value):
    verdicts = parse_verdicts(json.dumps(value))
    if verdicts is not None:
        assert list(value) == ["reason", "evidence", "met"] and isinstance(value["met"], bool)


@given(st.builds(JudgeVerdict, st.text(max_size=20), st.text(max_size=20), st.booleans()))
def test_what_a_verdict_says_is_read_back(verdict):
    stripped = JudgeVerdict(verdict.reason.strip(), verdict.evidence.strip(), verdict.met)
    assert parse_verdicts(verdict.to_text()) == (stripped,)


@pytest.mark.parametrize(
    ("evidence", "met", "answer", "expected"),
    [
        ("please", True, "Sit down, please.", True),
        ("Please", True, "Sit down, please.", False),
        ("", True, "Sit down, please.", False),
        (".", True, "Sit down, please.", False),
        ("thank you", True, "Sit down, please.", False),
        ("坐", True, "请坐。", True),
        ("👍", True, "Yes 👍", True),
        ("", False, "Sit down.", True),
        ("thank you", False, "Sit down.", True),
    ],
)
def test_met_needs_a_quote_that_is_in_the_answer(evidence, met, answer, expected):
    assert supported(JudgeVerdict("r", evidence, met), answer) is expected


def test_votes():
    assert count_votes([True, True, False]) is True
    assert count_votes([True, None, False]) is None
    assert count_votes([None, None]) is None
    assert count_votes([False, None]) is False


@pytest.mark.parametrize("count", [1, 2, 3])
def test_guided_decoding_allows_what_is_parsed(count):
    schema = response_format(count)["json_schema"]["schema"]
    one = JudgeVerdict("r", "e", True).to_text()
    text = one if count == 1 else "{" + ",".join(f'"{n}":{one}' for n in range(1, count + 1)) + "}"
    record = json.loads(text)
    assert list(schema["properties"]) == schema["required"] == list(record)
    assert schema["additionalProperties"] is False and parse_verdicts(text, count) is not None
    form = reply_form(count).replace("true or false", "true")
    assert parse_verdicts(form, count) is not None


def test_strict_json_refuses_what_other_readers_repair():
    assert strict_json('{"score":1} {"score":9}') is None
    assert strict_json('{"a": 1, "a": 2}') is None
    assert strict_json('{"a": Infinity}') is None
    assert strict_json(' {"a": [1, "b"]} ') == {"a": [1, "b"]}
