import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.language import language_consistency

ENGLISH = "First we add the two numbers, then we divide the sum by three and look at what is left over."
CHINESE = "首先我们把两个数字相加，然后把总和除以三，最后看看剩下多少。"


def share(text, language="en", **more):
    return language_consistency(text, language, **more).share


def test_pure_texts():
    assert share(ENGLISH) == 1.0 and share(CHINESE) == 0.0
    assert share(CHINESE, "zh") == 1.0 and share(ENGLISH, "zh") == 0.0


def test_a_mix_is_weighed_by_words():
    mixed = share(ENGLISH + " " + CHINESE)
    assert 0.4 < mixed < 0.65
    assert share(ENGLISH[:80] + CHINESE * 20) < 0.15


@pytest.mark.parametrize("text", ["", "42", "😀😀😀", r"\boxed{3}", "1 + 2 = 3", "ok", "x"])
def test_too_little_text_is_no_opinion(text):
    assert share(text) is None


def test_the_minimum_is_a_parameter():
    assert share("two plus two") is None
    assert share("two plus two", min_letters=5) == 1.0
    assert share("二加二", min_letters=5) == 0.0


def test_code_latex_and_links_do_not_count():
    formal = "```python\nprint('hello world')\n``` $x + y$ `code` https://example.com/some/long/path "
    assert share(formal + CHINESE * 10) == 0.0
    assert share("\\begin{align}some words here\\end{align} \\text{more words} " + CHINESE * 5) == 0.0


def test_hiding_in_a_code_block_is_no_opinion_unless_the_domain_is_code():
    hidden = "```\n" + ENGLISH * 5 + "\n```" + CHINESE
    assert share(hidden, "zh") is None
    assert share(hidden, "zh", max_stripped=1.0) == 1.0
    assert share("```\n" + ENGLISH * 5, "zh") is None


def test_languages_of_one_script_need_the_detector():
    german = "Zuerst addieren wir die beiden Zahlen, danach teilen wir die Summe durch drei und sehen nach."
    assert share(german, "de", languages=("en", "de")) == 1.0
    assert 0.3 < share(f"{ENGLISH} {german}", "en", languages=("en", "de")) < 0.7


def test_other_scripts_are_nobodys_language():
    score = language_consistency("Сначала мы сложим два числа и посмотрим", "en")
    assert score.share == 0.0 and "other:cyrillic" in score.evidence["words"]


def test_unknown_language_is_an_error():
    with pytest.raises(ValueError, match="configured"):
        language_consistency("text", "fr")


@given(st.text(max_size=300))
def test_share_is_a_share_or_nothing(text):
    value = share(text, min_letters=1)
    assert value is None or 0 <= value <= 1
