"""The few words that the writing tasks are made of, in English and Chinese."""

from __future__ import annotations

from collections.abc import Sequence

from specialists import CHINESE_NAMES, NAMES

ANIMALS = ("cat", "dog", "bird", "fish", "cow", "pig", "hen", "fox")
COLOURS = ("red", "blue", "green", "black", "white", "gray", "pink", "gold")
EDGES = ("Today", "Now")
CATEGORIES = {"animals": ANIMALS, "colours": COLOURS, "names": NAMES}

CHINESE = {
    **CHINESE_NAMES,
    **dict(zip(ANIMALS, "猫狗鸟鱼牛猪鸡狐", strict=True)),
    **dict(zip(COLOURS, "红蓝绿黑白灰粉金", strict=True)),
    **dict(zip(("Today", "Now", "today", "now"), ("今天", "现在") * 2, strict=True)),
    **dict(zip(CATEGORIES, ("动物", "颜色", "名字"), strict=True)),
}
EASY = {"en": "Easy.", "zh": "简单。"}
QUICK = {"en": "Quick.", "zh": "快。"}
UNSURE = {"en": "Maybe.", "zh": "也许。"}
FOREIGN = "Let us think about it here."
UNKNOWN = {"en": "I do not know.", "zh": "我不知道。"}


def word(english: str, language: str) -> str:
    return CHINESE.get(english, english) if language == "zh" else english


def words(english: Sequence[str], language: str) -> str:
    return {"en": ", ", "zh": "，"}[language].join(word(item, language) for item in english)


def sentences(said: Sequence[str], language: str) -> str:
    """The texts, each closed by a full stop."""
    if language == "en":
        return " ".join(f"{item}." for item in said)
    return "".join(f"{item}。" for item in said)
