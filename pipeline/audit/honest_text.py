"""Honest short answers and texts under constraints, in many notations, English and Chinese: all must be paid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.audit.cases import Case, InstructionSubject, Member, RewardSubject, TextSubject, question, say

COLOURS = ("red", "blue", "green and blue", "none of these")
PLANETS = ("Mercury", "Venus", "Earth", "Mars", "All of the above")
RIVERS = ("长江", "黄河", "珠江", "以上都不是")

# grader, truth, choices, and the answers as they stand in the box, between bars
BOXED: tuple[tuple[str, Any, tuple[str, ...], str], ...] = (
    ("choice", "B", (), r"B | b | (B) | B. | B) | \text{B} | \mathrm{B} | **B** | Option B | Choice B | [B]"),
    ("choice", "D", (), r"D | （D） | Ｄ | D、 | 选D | 选项D | d) | \textbf{(D)} | $D$ | D: | 选项 D"),
    ("choice", "B", COLOURS,
     r"B | blue | B) blue | (B) Blue | B. blue. | B: blue | \text{(B) blue} | Option B: blue"),
    ("choice", "C", COLOURS, "C | green and blue | C) green and blue | (C) Green and blue. | C. green and blue"),
    ("choice", "E", PLANETS, r"E | all of the above | (E) | E) All of the above | \text{All of the above}"),
    ("choice", "A", RIVERS, "A | 长江 | A、长江 | （A）长江 | 选A | A. 长江。 | 选项A | A：长江"),
    ("qa", "Eiffel Tower", (),
     r"Eiffel Tower | the Eiffel Tower | The Eiffel Tower. | eiffel tower | \text{Eiffel Tower}"),
    ("qa", ["New York City", "NYC", "New York"], (), "NYC | New York | new york city | the New York City"),
    ("qa", "Martin Luther King, Jr.", (), "Martin Luther King Jr. | Martin Luther King Jr | martin luther king, jr."),
    ("qa", "1912", (), r"1912 | 1912. | \text{1912} | １９１２"),
    ("qa", "1,000 metres", (), "1000 metres | 1,000 metres | 1000 Metres"),
    ("qa", "George Orwell's", (), "George Orwell’s | George Orwells | george orwell's"),
    ("qa", "3.5%", (), "3.5% | 3.5 % | 3.5%."),
    ("qa", "-40", (), "-40 | -40."),
    ("qa", "C#", (), "C# | c#"),
    ("qa", "北京", (), r"北京 | 北京。 | 「北京」 | \text{北京}"),
    ("qa", "《红楼梦》", (), "《红楼梦》 | 红楼梦 | “红楼梦”"),
    ("qa", ["李白", "李太白"], (), "李白 | 李太白 | 李白。"),
    ("f1", "the park near the old river", (),
     "in the park near the old river | park near the old river | the park near an old river"),
    ("f1", "George Walker Bush", (), "George Bush | President George Walker Bush | George Walker Bush"),
    ("f1", "a mixture of copper and tin", (),
     "mixture of copper and tin | A mixture of copper and tin. | "
     "the mixture of copper and tin metals"),
    ("f1", "not before the end of the war", (), "not before the end of the war | not before end of war"),
    ("f1", "北京市海淀区中关村", (), "北京海淀区中关村 | 北京市海淀区中关村 | 在北京市海淀区中关村"),
    ("f1", "因为天气太冷", (), "因为天气太冷 | 天气太冷 | 因为天气太冷了"),
    ("set", ["red", "green", "blue"], (),
     "red, green, blue | blue, red, green | {blue, green, red} | red; green; blue | "
     r"red, green and blue | red, green, and blue | \{red, green, blue\} | "
     "- red\n- green\n- blue | \\text{red}, \\text{blue}, \\text{green} | [Red, Green, Blue] | "
     "red、green、blue"),
    ("set", "2, 3, 5", (), r"2, 3, 5 | 5, 3, 2 | \{2, 3, 5\} | 2,3,5 | (3, 5, 2)"),
    ("set", ["甲", "乙"], (), "甲，乙 | 乙、甲 | 甲和乙 | {甲, 乙} | 乙；甲 | 甲与乙"),
    ("set", ["Paris, France", "Rome, Italy"], (), "Rome, Italy; Paris, France | Paris, France and Rome, Italy"),
    ("list", ["Ann", "Bob", "Cal"], (),
     "Ann, Bob, Cal | [Ann, Bob, Cal] | ann; bob; cal | Ann, Bob and Cal | Ann, Bob, and Cal | "
     "- Ann\n- Bob\n- Cal"),
    ("list", "春, 夏, 秋, 冬", (), "春, 夏, 秋, 冬 | 春、夏、秋、冬 | 春，夏，秋，冬 | 春；夏；秋；冬"),
    ("exact", "Paris", (),
     r"Paris | paris | PARIS. |  Paris  | \text{Paris} | “Paris” | Ｐａｒｉｓ | *Paris* | **Paris**"),
    ("exact", "3:45", (), "3:45 |  3:45  | ３：４５"),
    ("exact", "是", (), r"是 | 是。 | \text{是}"),
    ("logic/circuits", "True", (), r"True | true | \text{True}"),
    ("logic/knights", "Ann,Cal", (), "Ann, Cal | Cal, Ann | Ann and Cal | {Ann, Cal}"),
    ("logic/knights", "甲,丙", (), "甲、丙 | 丙，甲 | 甲和丙"),
    ("logic/orderings", "Dan,Eve,Bob", (), "Dan, Eve, Bob | dan, eve, bob | Dan, Eve and Bob"),
)  # fmt: skip

JSON: tuple[tuple[Any, tuple[str, ...]], ...] = (
    ({"name": "Ann", "age": 7}, (
        '{"name": "Ann", "age": 7}', '{"age": 7, "name": "Ann"}', '```json\n{"name":"Ann","age":7}\n```')),
    ([1, 2.5, None, True], ("[1, 2.5, null, true]", "[1.0, 2.50, null, true]", " [1,2.5,null,true]\n")),
    ("北京", ('"北京"', '"\\u5317\\u4eac"')),
    (100, ("100", "1e2", "100.0")),
)  # fmt: skip

LETTER = "Dear Ann,\n\nthe garden is green again. I hope to see you soon.\n\nYours, Bob\n\nP.S. Bring tea."
NOTES = "# Plan\n\nWe have *two* things to do.\n\n- buy salt\n- sell *oil*\n- rest a while\n\n## Later\n\nWe rest."
CHINESE = "春天来了，公园里的花都开了。我们带着茶和点心去散步。\n\n晚上我们一起看月亮，心里很高兴。"
ENGLISH = (
    "The train leaves at dawn. It crosses two rivers, a plain and a forest. We arrive before noon, tired but glad."
)

# answer, language, checks that it meets, one case each
WRITTEN: tuple[tuple[str, str, tuple[Mapping[str, Any], ...]], ...] = (
    (LETTER, "en", (
        {"kind": "starts_with", "text": "Dear Ann"}, {"kind": "postscript"},
        {"kind": "contains", "text": "garden"}, {"kind": "excludes", "text": "rain"},
        {"kind": "paragraphs", "count": 4}, {"kind": "ends_with", "text": "tea"},
        {"kind": "paragraph_starts", "number": 2, "text": "the garden"}, {"kind": "min_words", "count": 18},
        {"kind": "max_words", "count": 25}, {"kind": "occurrences", "text": "Ann", "count": 1},
        {"kind": "language", "language": "en"},
    )),
    (NOTES, "en", (
        {"kind": "bullets", "count": 3}, {"kind": "headings", "count": 2}, {"kind": "highlights", "min": 2},
        {"kind": "contains_all", "texts": ["salt", "oil"]}, {"kind": "mentions", "text": "rest"},
        {"kind": "occurrences", "text": "rest", "min": 2, "max": 3}, {"kind": "no_commas"},
        {"kind": "capital_words", "max": 0}, {"kind": "excludes", "text": "plane"},
    )),
    (CHINESE, "zh", (
        {"kind": "language", "language": "zh"}, {"kind": "paragraphs", "count": 2},
        {"kind": "sentences", "count": 3}, {"kind": "contains", "text": "月亮"},
        {"kind": "excludes", "text": "下雨"}, {"kind": "starts_with", "text": "春天"},
        {"kind": "ends_with", "text": "高兴"}, {"kind": "min_words", "count": 30},
        {"kind": "max_words", "count": 50}, {"kind": "characters", "min": 40, "max": 60},
        {"kind": "contains_all", "texts": ["花", "茶"]}, {"kind": "occurrences", "text": "我们", "count": 2},
        {"kind": "paragraph_starts", "number": 2, "text": "晚上"},
    )),
    (ENGLISH, "en", (
        {"kind": "sentences", "count": 3}, {"kind": "sentences", "min": 2}, {"kind": "max_words", "count": 22},
        {"kind": "letters", "letter": "z", "max": 0}, {"kind": "letters", "letter": "t", "min": 5},
        {"kind": "contains", "text": "two rivers"}, {"kind": "language", "language": "en"},
        {"kind": "ends_with", "text": "glad."},
    )),
    ("the sea is calm; the boats are home", "en", (
        {"kind": "lowercase"}, {"kind": "no_commas"}, {"kind": "sentences", "count": 1},
    )),
    ("THE SEA IS CALM TODAY!", "en", (
        {"kind": "uppercase"}, {"kind": "capital_words", "min": 4}, {"kind": "max_words", "count": 5},
    )),
    ('"I came because I was asked to."', "en", (
        {"kind": "quoted"}, {"kind": "contains", "text": "asked"},
    )),
    ("「我来是因为有人请我来。」", "zh", (
        {"kind": "quoted"}, {"kind": "contains", "text": "请我"},
    )),
    ("<<The Calm Sea>>\n\nNothing moves on the water today.", "en", (
        {"kind": "title"}, {"kind": "contains", "text": "water"},
    )),
    ("《平静的海》\n\n今天水面上什么也没有。", "zh", (
        {"kind": "title"}, {"kind": "language", "language": "zh"},
    )),
    ("Dear [name], your order [number] is ready.", "en", (
        {"kind": "placeholders", "count": 2}, {"kind": "starts_with", "text": "Dear"},
    )),
    ('{"title": "Sea", "tags": ["calm", "blue"]}', "en", (
        {"kind": "json"}, {"kind": "json", "keys": ["title", "tags"]},
    )),
    ("My answer is maybe.", "en", (
        {"kind": "one_of", "texts": ["My answer is yes.", "My answer is maybe."]},
    )),
    ("Paris", "en", (
        {"kind": "equals", "text": "paris"}, {"kind": "max_words", "count": 1},
    )),
    ("• 买盐\n• 卖油\n• 休息", "zh", (
        {"kind": "bullets", "count": 3}, {"kind": "max_words", "count": 6},
    )),
    ("亲爱的安：\n\n花开了。\n\n附言：带茶来。", "zh", (
        {"kind": "postscript", "text": "附言"}, {"kind": "starts_with", "text": "亲爱的安"},
    )),
)  # fmt: skip


def _boxed() -> Iterator[Case]:
    numbers: dict[str, int] = {}
    for grader, truth, choices, answers in BOXED:
        for answer in answers.split(" | "):
            kind = grader.replace("/", "-")
            number = numbers[kind] = numbers.get(kind, 0) + 1
            wide = any("\u4e00" <= character <= "\u9fff" for character in answer)
            thinking = number % 2 == 0
            language = "zh" if wide else "en"
            said = rf"\boxed{{{answer}}}"
            completion = f"{'想一想。' if wide else 'Let me see.'}</think>{said}" if thinking else said
            subject = TextSubject(
                grader, truth, completion, choices=choices, mode="thinking" if thinking else "direct", language=language
            )
            yield Case(f"{kind}-{number}", "text", "paid", subject, f"{answer!r} for {truth!r}")


def _whole() -> Iterator[Case]:
    for number, (truth, answer) in enumerate(((truth, answer) for truth, answers in JSON for answer in answers), 1):
        yield Case(f"json-{number}", "text", "paid", TextSubject("json", truth, answer), f"{answer!r} for {truth!r}")
    for number, (answer, language, checks) in enumerate(WRITTEN, 1):
        for check in checks:
            name = f"written-{number}-{_told(check)}"
            yield Case(
                name, "text", "paid", InstructionSubject((check,), answer, language=language), f"meets {dict(check)}"
            )
        whole = TextSubject("instructions", [dict(check) for check in checks], answer, language=language)
        yield Case(f"written-{number}-all", "text", "paid", whole, "meets all of its instructions at once")


# language, question, thinking in that language
THOUGHT: tuple[tuple[str, str, str], ...] = (
    ("en", "What is 3 + 4?", "We add three and four, which gives seven. Then we check it by counting on our fingers."),
    ("en", "What is 3 + 4?", r"Let $x = 3$ and $y = 4$. The sum is \[x + y = 7\] so the answer that we want is seven."),
    ("en", "Count.", "```\ntotal = 0\nfor i in range(7):\n    total += 1\n```\nThis counts to seven, one by one."),
    ("en", "What is 3 + 4?", "3 + 4 = 7"),
    ("zh", "三加四等于几？", "三加四等于七。我们再用手指数一遍，检查结果是不是七。"),
    ("zh", "三加四等于几？", r"设 $x=3$，$y=4$，则 \[x+y=7\] 所以答案是七，单位是 $\text{cm}$。"),
    ("zh", "三加四等于几？", "我们用 Python 里的 `sum` 函数来算，把三和四加起来，得到的结果就是七，没有错。"),
    ("zh", "三加四等于几？", "3 + 4 = 7。"),
)

# lengths of a group of right answers; what the first must still be paid, where a turn has 40 tokens at most
LENGTHS: tuple[tuple[tuple[int, ...], float], ...] = (
    ((20,), 1.0),
    ((22, 20, 20, 21, 20, 20), 1.0),
    ((40, 10, 10, 10, 10, 10), 0.8),
    ((36, 33, 33, 33), 1.0),
    ((40, 40, 40, 40), 0.9),
    ((0, 0), 1.0),
)


def _groups() -> Iterator[Case]:
    for number, (language, asked, thought) in enumerate(THOUGHT, 1):
        task = question("7", asked, "thinking", language)
        member = Member(say(r"\boxed{7}", "thinking", thought))
        at_least = 0.99 if "Python" not in thought else 0.98
        yield Case(f"thought-{number}", "language", "paid", RewardSubject(task, (member,)), thought, at_least=at_least)
    for number, (lengths, at_least) in enumerate(LENGTHS, 1):
        members = tuple(Member(r"\boxed{7}", tokens) for tokens in lengths)
        subject = RewardSubject(question("7"), members)
        note = f"right answers of {lengths} tokens"
        yield Case(f"lengths-{number}", "length", "paid", subject, note, at_least=at_least)


def _told(check: Mapping[str, Any]) -> str:
    """A check in a few words, for the name of its case."""
    fields: Sequence[str] = [f"{name} {value}" for name, value in check.items() if name != "kind"]
    return " ".join([check["kind"], *fields])


CASES: tuple[Case, ...] = (*_boxed(), *_whole(), *_groups())
