import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.instructions import CHECKS, check_criterion, check_instructions, instruction_problem
from rewards.prose import bullets, count_sentences, count_words, mentions, occurrences, prose, sentences

FIXED = settings(derandomize=True, deadline=None)

FENCE = "Here it is.\n```\nsea sea sea\n\n- one\n- two\n# Head\n```\n"

# (specification, answers that meet it, answers that do not: plain ones, then attempts to cheat it)
TABLE = [
    (
        {"kind": "contains", "text": "sea"},
        ["The SEA, at dawn.", "`sea`", "ＳＥＡ"],
        ["A season of research.", FENCE, "<!-- sea --> Hello.", "the sеa", "[here](http://sea)", "s e a"],
    ),
    ({"kind": "contains", "text": "go", "times": 2}, ["Go, go!"], ["Go.", "Go.\n```\ngo\n```"]),
    ({"kind": "contains", "text": "你好"}, ["他说你好。"], ["他说再见。", "你\u3000好", "```\n你好\n```"]),
    ({"kind": "contains_all", "texts": ["salt", "oil"]}, ["Oil and salt."], ["Only oil.", "Oil.\n```\nsalt\n```"]),
    (
        {"kind": "occurrences", "text": "tea", "count": 2},
        ["Tea and tea."],
        ["Tea.", "Tea, tea, tea.", "Tea.\n```\ntea\n```", "Tea tea\n```\ntea\n```"],
    ),
    ({"kind": "occurrences", "text": "茶", "min": 1, "max": 2}, ["喝茶。", "茶与茶"], ["喝水。", "茶茶茶"]),
    (
        {"kind": "mentions", "text": "sea"},
        ["sea", FENCE, "the sеa", "s-e-a", "s*e*a", "S\u200bEA"],
        ["season", "these are"],
    ),
    (
        {"kind": "excludes", "text": "sea"},
        ["Season.", "These are all.", "海"],
        ["The sea.", "The s\u200bea.", "The sеa.", "The ѕеа.", "s-e-a", "s e a", "s**e**a", "```\nsea\n```", "ｓｅａ"],
    ),
    ({"kind": "excludes", "text": "海"}, ["天空"], ["大海", "`海`", "大\u200b海"]),
    ({"kind": "equals", "text": "Paris"}, [" paris. "], ["Paris, France", "Pаris"]),
    ({"kind": "one_of", "texts": ["yes", "no", "maybe"]}, ["Yes.", "no"], ["yes no", "yes or no", "perhaps"]),
    (
        {"kind": "starts_with", "text": "Dear"},
        ["Dear Ann, hello.", "dear."],
        ["My dear Ann.", "Dearest Ann.", "Dеar Ann"],
    ),
    ({"kind": "starts_with", "text": "亲爱的"}, ["亲爱的安"], ["我亲爱的"]),
    ({"kind": "ends_with", "text": "the end"}, ["So it was. The End."], ["The end of it.", "breathe end"]),
    ({"kind": "ends_with", "text": "再见"}, ["明天再见。"], ["再见了"]),
    (
        {"kind": "paragraph_starts", "number": 2, "text": "Then"},
        ["First.\n\nThen came two.", "a\n \nthen"],
        ["Then.", "First.\nThen", "First.\n\n---\n\nNow.\n\nThen", "First.\n\nThence"],
    ),
    (
        {"kind": "postscript"},
        ["Dear Ann.\n\nP.S. Bring tea."],
        ["Dear Ann. P.S. Bring tea.", "P.S. Only this.", "Dear Ann.\n\nP.S.", "Dear Ann.\n\nP.S. \u200b"],
    ),
    ({"kind": "postscript", "text": "附言"}, ["你好。\n\n附言：带茶。"], ["你好。"]),
    (
        {"kind": "sentences", "count": 2},
        ["One. Two!", "一。二。"],
        ["One. Two. Three.", "One.", "One. . .", "One.\n```\nTwo.\n```", "One. \u200b."],
    ),
    ({"kind": "sentences", "min": 1, "max": 2}, ["One"], ["1. 2. 3.", "One. Two.\n```\nThree.\n```"]),
    (
        {"kind": "paragraphs", "count": 2},
        ["One.\n\nTwo.", "一。\n\n二。"],
        ["One.\nTwo.", "One.\n\n***\n\n", "One.\n\n\u200b", "One.\n\nTwo.\n\nThree.", "One.\n\n```\nTwo.\n```"],
    ),
    (
        {"kind": "bullets", "count": 3},
        ["- a\n- b\n* c", "• 一\n• 二\n• 三"],
        ["- a\n- b", "- a\n-\n- c", "a - b - c", "- a\n- b\n```\n- c\n```", "- a\n- b\n- \u200b"],
    ),
    (
        {"kind": "headings", "min": 2},
        ["# One\ntext\n## 二\ntext"],
        ["# One", "# One\n##", "# One\n```\n## Two\n```", "#One #Two"],
    ),
    ({"kind": "highlights", "min": 2}, ["*one* and **two**"], ["*one*", "* one\n* two", "** **", "```\n*a* *b*\n```"]),
    ({"kind": "placeholders", "min": 2}, ["Dear [name], of [city]"], ["Dear [name]", "[] []", "[a](b) [c](d)"]),
    ({"kind": "capital_words", "max": 1}, ["NATO met."], ["ALL OF IT", "ok\n```\nALL OF\n```"]),
    (
        {"kind": "characters", "min": 5, "max": 8},
        ["五个汉字。", "a b c d e"],
        ["四个字。", "九个汉字太多了吧。", "a\u200bb\u200bc"],
    ),
    (
        {"kind": "max_words", "count": 3},
        ["one two three", "well-known it's so", "三个字"],
        [
            "one two three four",
            "四个汉字",
            "one_two_three_four",
            "one/two/three/four",
            "a-b-c-d-e-f-g-h-i-j",
            "x" * 161,
        ],
    ),
    (
        {"kind": "min_words", "count": 3},
        ["one two three", "三个字"],
        ["one two", "- - -", "one two\n```\nthree\n```", "two\u200bwords \u200b", "one two . . ."],
    ),
    ({"kind": "letters", "letter": "q", "min": 2}, ["Quick quiz", "QQ"], ["quick", "quick ԛ", "q\n```\nq\n```"]),
    ({"kind": "letters", "letter": "e", "max": 0}, ["A cat"], ["A tree", "a trее", "a\n```\ne\n```"]),
    ({"kind": "lowercase"}, ["all of it, 3 times"], ["Not all", "𝐇ello", "42", "全部"]),
    ({"kind": "uppercase"}, ["ALL OF IT"], ["ALL of it", "ALL ｏF", "42"]),
    (
        {"kind": "json"},
        ['{"a": 1}', "[1]", '```json\n{"a": 1}\n```'],
        ["a: 1", '{"a": 1} ok', "{'a': 1}", '{"a":1,"a":2}'],
    ),
    ({"kind": "json", "keys": ["a"]}, ['{"a": 1, "b": 2}'], ["[1]", '{"b": 1}', '["a"]']),
    (
        {"kind": "title"},
        ["<<The Sea>>\n\nIt is blue.", "《海》\n蓝。"],
        ["The Sea", "It is <<The Sea>>", "<<>>\nSo", "```\n<<a>>\n```"],
    ),
    ({"kind": "quoted"}, ['"All of it."', "“All.”", "「全部」"], ['"a" and "b"', "All", '""', '"half', "“a” “b”"]),
    ({"kind": "no_commas"}, ["None here; none."], ["One, two", "一，二", "一、二", "a، b", "a‚ b", "```\n,\n```"]),
    (
        {"kind": "language", "language": "zh"},
        ["今天天气很好，我们去公园走一走。"],
        ["The weather is fine today.", "jin tian tian qi hen hao", "好。 The weather is very fine today."],
    ),
    (
        {"kind": "language", "language": "en"},
        ["The weather is fine today."],
        ["今天天气很好。", "OK. 今天天气很好，我们去公园走一走。", "42"],
    ),
]


@pytest.mark.parametrize(("spec", "good", "bad"), TABLE, ids=[f"{n}-{row[0]['kind']}" for n, row in enumerate(TABLE)])
def test_checks(spec, good, bad):
    assert [answer for answer in good if not check_criterion(spec, answer)] == []
    assert [answer for answer in bad if check_criterion(spec, answer)] == []
    for nothing in ("", "   \n", "\u200b\u200d \ufeff"):
        assert not check_criterion(spec, nothing)


def test_every_kind_has_a_row():
    assert {row[0]["kind"] for row in TABLE} == set(CHECKS)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"kind": "vibes"}, "unknown check"),
        ({}, "unknown check"),
        ("contains", "unknown check"),
        ({"kind": "contains"}, "needs the field 'text'"),
        ({"kind": "contains", "text": 3}, "expected a text"),
        ({"kind": "contains", "text": "…"}, "expected a text"),
        ({"kind": "contains", "text": "a", "tmes": 2}, "no field 'tmes'"),
        ({"kind": "bullets"}, "either 'count', or 'min' or 'max'"),
        ({"kind": "bullets", "count": 1, "min": 1}, "either 'count', or 'min' or 'max'"),
        ({"kind": "bullets", "count": True}, "an integer from 0"),
        ({"kind": "bullets", "min": 3, "max": 1}, "min 3 is above max 1"),
        ({"kind": "letters", "letter": "ab", "min": 1}, "one letter"),
        ({"kind": "one_of", "texts": "yes"}, "a list of texts"),
        ({"kind": "language", "language": "zh", "min_share": 2}, "a number from 0 to 1"),
        ({"kind": "language", "language": "fr", "languages": ["en"]}, "not among its languages"),
    ],
)
def test_bad_specifications_are_named(spec, words):
    assert words in instruction_problem([spec])
    with pytest.raises(ValueError, match="check"):
        check_criterion(spec, "x")


def test_all_instructions_must_hold():
    specs = [{"kind": "max_words", "count": 3}, {"kind": "contains", "text": "tea"}]
    assert instruction_problem(specs) is None
    assert check_instructions(specs, "green tea").correct
    missed = check_instructions(specs, "a pot of green tea")
    assert (missed.correct, missed.reason) == (False, "missed: max_words")
    for nothing in ([], None, "contains", 3):
        assert "a list of checks" in instruction_problem(nothing)


texts = st.text(st.sampled_from("abсе .,!?*#-_`~\n\u200b你好。$<>[]()\"'1"), max_size=80)
specs = st.sampled_from([row[0] for row in TABLE])


@FIXED
@given(specs, texts)
def test_a_check_is_a_function_of_what_is_seen(spec, text):
    found = check_criterion(spec, text)
    assert found is check_criterion(spec, text)
    assert found is check_criterion(spec, "\u2060" + text + "\u200c")


@FIXED
@given(texts, texts)
def test_code_fences_add_nothing_to_a_least_amount(text, hidden):
    hidden = hidden.replace("`", "").replace("~", "")
    fenced = f"{text}\n```\n{hidden}\n```\n"
    for least in ("sentences", "paragraphs", "bullets", "headings"):
        count = next((n for n in range(20, 0, -1) if check_criterion({"kind": least, "min": n}, fenced)), 0)
        assert not count or check_criterion({"kind": least, "min": count}, text)


@FIXED
@given(texts)
def test_counts_are_consistent(text):
    assert count_sentences(text) == len(sentences(text.replace("\u200b", "")))
    assert len(bullets(text)) <= text.count("\n") + 1
    assert count_words(text) <= len(text)
    assert prose(prose(text)) == prose(text) or "`" in text or "~" in text
    assert not occurrences(text, "b") or mentions(text, "b")
