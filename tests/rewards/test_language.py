import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.formal import split_formal
from rewards.language import language_consistency

FIXED = settings(derandomize=True, deadline=None)

TEXTS = {
    "en": [
        "First we add the two numbers, then we divide the sum by three and look at what is left over.",
        "The train leaves in the morning and reaches the town before noon, so it travels for four hours.",
        "If every side of the square grows by two, its area grows by more than we would expect.",
        "Now suppose that the opposite were true, which would mean that both roots are negative.",
    ],
    "zh": [
        "首先我们把两个数字相加，然后把总和除以三，最后看看剩下多少。",
        "火车早上出发，中午以前到达城里，所以它一共走了四个小时。",
        "如果正方形的每条边都增加二，它的面积会比想象中增加得更多。",
        "现在假设相反的情况成立，那么两个根就都是负数。",
    ],
    "ja": [
        "まず二つの数を足して、それから和を三で割り、余りを見てみましょう。",
        "電車は朝に出発して昼前に町に着くので、四時間走ることになります。",
        "正方形の一辺が二ずつ増えると、面積は思ったよりも大きくなります。",
        "次に反対のことが成り立つと仮定すると、両方の根は負になります。",
    ],
    "ru": [
        "Сначала мы сложим два числа, потом разделим сумму на три и посмотрим, что останется.",
        "Поезд выходит утром и приходит в город до полудня, поэтому он идёт четыре часа.",
        "Если каждая сторона квадрата вырастет на два, его площадь вырастет заметно сильнее.",
        "Теперь предположим обратное: тогда оба корня были бы отрицательными.",
    ],
    "de": [
        "Zuerst addieren wir die beiden Zahlen, danach teilen wir die Summe durch drei und sehen nach.",
        "Der Zug fährt am Morgen ab und erreicht die Stadt vor dem Mittag, also fährt er vier Stunden.",
        "Wenn jede Seite des Quadrats um zwei wächst, wächst die Fläche stärker, als man erwartet.",
        "Nehmen wir nun das Gegenteil an, dann wären beide Wurzeln negativ.",
    ],
    "fr": [
        "D'abord nous additionnons les deux nombres, puis nous divisons la somme par trois pour voir le reste.",
        "Le train part le matin et arrive en ville avant midi, il roule donc pendant quatre heures.",
        "Si chaque côté du carré augmente de deux, son aire augmente plus que prévu.",
        "Supposons maintenant le contraire, alors les deux racines seraient négatives.",
    ],
}
ALL = tuple(TEXTS)
ROMANISED = {
    "zh": "Women xian ba liang ge shuzi xiang jia, ranhou chuyi san, zuihou kan kan sheng xia duoshao.",
    "ja": "Mazu futatsu no kazu wo tashite, sore kara san de warimasu, saigo ni amari wo mimasu.",
    "ru": "Snachala my slozhim dva chisla, a potom razdelim summu na tri i posmotrim chto ostanetsya.",
}
ENGLISH, CHINESE = " ".join(TEXTS["en"]), "".join(TEXTS["zh"])


def share(text, language="en", **more):
    return language_consistency(text, language, **more).share


@pytest.mark.parametrize("language", ALL)
def test_pure_texts_in_six_languages(language):
    text = " ".join(TEXTS[language])
    assert share(text, language, languages=ALL) > 0.95
    for other in ALL:
        if other != language:
            assert share(text, other, languages=ALL) < 0.05
            assert share(text, other, languages=tuple(sorted({"en", "zh", other}))) < 0.05


def test_a_mix_is_weighed_by_words():
    assert 0.4 < share(ENGLISH + " " + CHINESE) < 0.65
    for other in ("de", "fr", "ru", "ja"):
        mixed = " ".join(TEXTS["en"] + TEXTS[other])
        assert 0.3 < share(mixed, "en", languages=("en", other)) < 0.75


@pytest.mark.parametrize("text", ["", "42", "😀😀😀", r"\boxed{3}", "1 + 2 = 3", "ok", "x", "\u200b" * 50, "$x$ $y$"])
def test_too_little_text_is_no_opinion(text):
    assert share(text) is None


def test_the_minimum_is_a_parameter():
    assert share("two plus two") is None
    assert share("two plus two", min_letters=5) == 1.0
    assert share("二加二", min_letters=5) == 0.0


def test_code_latex_and_links_do_not_count():
    formal = "```python\nprint('hello world')\nfor i in range(n): total += i\n``` $x + y$ `code` "
    formal += r"\frac{a}{b} \begin{align}a &= b \\ \sin x &= y\end{align} https://example.com/some/path <b>"
    assert share(formal + CHINESE) == 0.0
    assert share(formal + CHINESE, "zh") == 1.0
    assert split_formal(formal).hidden == ""


def test_mostly_code_is_no_opinion_unless_the_domain_is_code():
    code = "```\nfor i in range(n):\n    total += values[i] * weights[i]\nreturn total / sum(weights)\n```"
    text = "结果就是这个数，我们来算一下。"
    assert share(code * 3 + text, "zh") is None
    assert share(code * 3 + text, "zh", max_stripped=1.0) == 1.0


HIDDEN = {
    "code fence": "```\n{}\n```",
    "tagged fence": "```python\n# {}\n```",
    "unclosed fence": "```\n{}",
    "inline code": "`{}`",
    "text in LaTeX": r"$\text{{{}}}$",
    "display LaTeX": "$$\n{}\n$$",
    "unclosed LaTeX": "\\[ {}",
    "environment": r"\begin{{align}}{}\end{{align}}",
    "table": "| {} | 3 |\n| --- | --- |",
    "comment": "<!-- {} -->",
}


@pytest.mark.parametrize("place", HIDDEN)
@pytest.mark.parametrize(("target", "other"), [("zh", "en"), ("en", "zh"), ("ja", "en"), ("ru", "en"), ("en", "ru")])
def test_thinking_is_found_where_it_hides(place, target, other):
    hidden = "\n".join(HIDDEN[place].format(sentence.rstrip(".。")) for sentence in TEXTS[other])
    languages = tuple(sorted({"en", "zh", target, other}))
    got = share(TEXTS[target][0] + "\n" + hidden, target, languages=languages)
    assert got is not None and got < 0.5
    # It is no worse a text than the same in the open, give or take the sentence ends.
    plain = share(TEXTS[target][0] + "\n" + "\n".join(TEXTS[other]), target, languages=languages)
    assert abs(got - plain) < 0.15


def test_thinking_in_small_pieces_and_in_names_is_found():
    words = TEXTS["en"][0].replace(",", "").split()
    pieces = " ".join(f"`{word}`" for word in words) + " " + " ".join(rf"\text{{{word}}}" for word in words[::-1])
    assert share(TEXTS["zh"][3] + pieces, "zh") < 0.5
    address = "https://example.com/" + "/".join("-".join(text.replace(",", "").split()) for text in TEXTS["en"])
    assert share(TEXTS["zh"][3] + address, "zh") < 0.5
    names = "```\n" + "_".join(words) + "\n" + "".join(word.capitalize() for word in words) + "\n```"
    assert share(TEXTS["zh"][3] + names, "zh") < 0.5


def test_hidden_target_language_is_no_harm():
    assert share("```\n" + "\n".join(TEXTS["zh"]) + "\n```", "zh") == 1.0


@pytest.mark.parametrize(("target", "other"), [("zh", "en"), ("en", "zh"), ("en", "de"), ("de", "en"), ("ja", "zh")])
def test_eighty_characters_in_the_target_language_do_not_cover_the_rest(target, other):
    head = (" ".join(TEXTS[target]))[:80]
    text = head + "\n" + " ".join(TEXTS[other] * 2)
    assert share(text, target, languages=tuple(sorted({"en", "zh", target, other}))) < 0.6
    long_tail = " ".join(f"{sentence[:-1]} ({number})." for number in range(6) for sentence in TEXTS[other])
    assert share(head + "\n" + long_tail, target, languages=tuple(sorted({"en", "zh", target, other}))) < 0.45


@pytest.mark.parametrize(
    ("target", "padding", "other"),
    [
        ("zh", "好" * 500, "en"),
        ("zh", "你好，" * 200, "en"),
        ("zh", "我们来想一想。" * 100, "en"),
        ("en", "good " * 500, "zh"),
        ("en", "Let us think. " * 100, "zh"),
        ("en", "ok, sure, yes, " * 100, "zh"),
        ("ru", "да, " * 300, "en"),
        ("de", "und " * 300, "en"),
    ],
)
def test_a_repeated_word_does_not_outweigh_a_text(target, padding, other):
    languages = tuple(sorted({"en", "zh", target}))
    assert share(padding + "\n" + " ".join(TEXTS[other]), target, languages=languages) < 0.5


@pytest.mark.parametrize("spoken", ROMANISED)
def test_transliteration_is_not_english(spoken):
    score = language_consistency(ROMANISED[spoken], "en")
    assert score.share == 0.0
    assert any(name.startswith("other:") for name in score.evidence["words"])


@pytest.mark.parametrize("other", ["de", "fr"])
def test_a_language_that_nobody_configured_is_nobodys(other):
    assert share(" ".join(TEXTS[other]), "en") < 0.05


def test_kana_between_chinese_sentences_does_not_make_them_japanese():
    text = "".join(sentence[:-1] + "の。" for sentence in TEXTS["zh"])
    assert share(text, "ja", languages=("en", "ja", "zh")) < 0.1
    heading = "計算。" + "".join(TEXTS["ja"])
    assert share(heading, "ja", languages=("en", "ja", "zh")) == 1.0
    assert share(heading, "ja", languages=("en", "ja")) == 1.0


def test_quoting_the_prompt_is_not_writing():
    prompt = CHINESE
    text = prompt + " " + " ".join(TEXTS["en"])
    assert share(text, "zh") > 0.3
    assert share(text, "zh", prompt=prompt) == 0.0
    assert share(prompt, "zh", prompt=prompt) is None
    assert share(TEXTS["zh"][0], "zh", prompt=TEXTS["zh"][1]) == 1.0


def test_no_words_at_all_is_no_opinion():
    assert share("3 + 4 = 7; 7 * 2 = 14 => 14 / 7 = 2 !!! " * 20) is None


def test_other_scripts_are_nobodys_language():
    score = language_consistency(TEXTS["ru"][0], "en")
    assert score.share == 0.0 and "other:cyrillic" in score.evidence["words"]


def test_plain_mathematical_english_is_english():
    for text in (
        "So the total is x plus y equals seven and hence the answer must be seven.",
        "Steps: add them up, the sum is twelve, minus five gives seven. Done, the check is ok.",
        "Suppose knight Ann says that Bob lies. Then Bob is a knave and Cal is a knight, which is consistent.",
        "Triangle ABC is isosceles, so angle ABC equals angle ACB, hence AB equals AC by symmetry.",
    ):
        assert share(text) == 1.0


@pytest.mark.parametrize(
    ("language", "text", "least"),
    [
        ("en", "Okay, so let me think. AB = 5, BC = 12, AC = 13. By Pythagoras, B is right. Area = 30. Yes.", 1.0),
        ("en", "Knights: Ann says Bob is a knave. Bob says Cal is a knave. Suppose Ann is a knight.", 1.0),
        ("en", r"We are given $f(x)=x^2+3x+2$, so \[(x+1)(x+2)=0\] and the sum of the roots is $-3$.", 1.0),
        ("zh", "我们用 Python 计算：先调用 `math.gcd(a, b)`，再除以它。得到 $\\frac{a}{b}$。", 0.85),
        ("zh", r"设 $f(x)=x^2$，则 $f'(x)=2x$，当 $x \text{ 为偶数}$ 时成立。答案是 $5\text{ cm}$，约为 3 kg。", 1.0),
        ("zh", "首先看 Transformer 模型的 attention 部分，它用 query 和 key 的点积来计算权重，然后再做 softmax。", 0.7),
        ("ja", "関数 f(x) を微分すると 2x になります。よって x = 0 のとき最小値は 0 です。", 1.0),
        ("ru", "Пусть x = 3, тогда y = 2x + 1 = 7. Проверим: 7 - 1 = 6, 6 / 2 = 3. Верно.", 1.0),
        ("de", "Sei n = 2k+1, dann ist n^2 ungerade. Also folgt die Behauptung sofort aus dem Satz.", 1.0),
        ("fr", "Soit n = 2k+1, alors n^2 est impair. On en déduit le résultat.", 1.0),
    ],
)
def test_honest_mathematics_is_in_its_language(language, text, least):
    assert share(text, language, languages=tuple(sorted({"en", "zh", language}))) >= least


def test_unknown_language_is_an_error():
    with pytest.raises(ValueError, match="configured"):
        language_consistency("text", "fr")


pieces = st.sampled_from([*ENGLISH.split(), *CHINESE, "```", "`", "$", "\\[", "\\text{", "}", "<a>", "\n", " ", ". "])


@FIXED
@given(st.text(max_size=300) | st.lists(pieces, max_size=60).map(" ".join))
def test_share_is_a_share_or_nothing(text):
    value = share(text, min_letters=1)
    assert value is None or 0 <= value <= 1
    assert value == share(text, min_letters=1)


@pytest.mark.parametrize(
    "bomb", ["\\(", "\\[", "$", "```", "`a", "<a", "a", "aB", "a_b-", "\\a{", "https://", "\\begin{a}", "你", "a "]
)
def test_no_text_takes_long(bomb):
    text = (bomb * 20_000)[:20_000]
    share(text[:100], min_letters=1)
    started = time.process_time()
    share(text, min_letters=1)
    assert time.process_time() - started < 1.0
