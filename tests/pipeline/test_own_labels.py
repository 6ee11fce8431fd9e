"""Labelled triples of the user's own become lessons in the judge's own form, or are named row by row."""

import json
import re

import pytest

from pipeline.config import load_config
from pipeline.config.schema import LabelDataConfig
from pipeline.data import DataError
from pipeline.own_labels import read_labels
from pipeline.runs.own_files import own_files
from pipeline.stages import stage
from pipeline.tasks import generated_lessons, judge_lessons
from rewards.judge.prompt import SHORT_TEMPLATE, shown_answer
from rewards.judge.reply import parse_verdicts, supported

ROW = {"question": "Who has it?", "answer": "Ann has it, and Bob does not.", "criterion": "Names Ann.", "met": True}


def written(folder, *rows):
    file = folder / "triples.jsonl"
    file.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return file


def problems(file):
    with pytest.raises(DataError) as caught:
        read_labels(LabelDataConfig(train=str(file)), "train")
    return [re.sub(r".*triples.jsonl", "triples", problem) for problem in caught.value.problems]


def test_a_triple_becomes_a_lesson_whose_reply_the_client_would_count(tmp_path):
    rows = [
        ROW | {"reason": "names Ann.", "evidence": "Ann has"},
        ROW,
        ROW | {"met": False, "criterion": "Names Eve."},
        ROW | {"answer": "Ann " * 400},
        ROW | {"answer": "", "met": False},
    ]
    file = str(written(tmp_path, *rows))
    lessons = read_labels(LabelDataConfig(train=file, heldout=file), "heldout")
    assert [lesson.met for lesson in lessons] == [True, True, False, True, False]
    assert lessons[0].verdict.evidence == "Ann has" and lessons[0].verdict.reason == "names Ann."
    for lesson, row in zip(lessons, rows, strict=True):
        (verdict,) = parse_verdicts(lesson.target)
        assert verdict == lesson.verdict and supported(verdict, shown_answer(row["answer"], "", SHORT_TEMPLATE))
        prompt = lesson.messages[-1]["content"]
        assert row["question"] in prompt and f"Criterion: {row['criterion']}" in prompt


def test_the_rows_of_a_question_are_all_held_out_or_none(tmp_path):
    rows = [ROW | {"question": f"Who has number {n}?", "criterion": f"{m}."} for n in range(80) for m in range(3)]
    data = LabelDataConfig(train=str(written(tmp_path, *rows)))
    train, heldout = ({lesson.question for lesson in read_labels(data, split)} for split in ("train", "heldout"))
    assert not train & heldout and len(train) + len(heldout) == 80 and 1 <= len(heldout) <= 20


def test_every_bad_row_is_named(tmp_path):
    found = problems(
        written(
            tmp_path, ROW, "{", ROW | {"met": 1}, ROW | {"question": " "}, ROW | {"evidence": "Eve"},
            ROW | {"grade": 3}, {k: v for k, v in ROW.items() if k != "answer"}, ROW | {"reason": 3},
            ROW | {"answer": "", "met": True},
        )
    )  # fmt: skip
    assert [problem.partition(":")[0] for problem in found] == [f"triples, line {n}" for n in range(2, 10)]
    text = "\n".join(found)
    signs = "not a line of JSON", "field 'met'", "field 'question'", "'Eve'", "'grade'", "field 'answer'", "'reason'"
    assert [sign for sign in signs if sign not in text] == []
    assert "no such file" in problems(tmp_path / "none" / "triples.jsonl")[0]


def test_triples_of_the_users_own_are_the_lessons_and_part_of_the_judge_stage_alone(tmp_path):
    file = written(tmp_path, *(ROW | {"question": f"Who has {n}?"} for n in range(40)))
    config, _ = load_config("smoke", [], [f"judge.data.train={file}"])
    assert {lesson.criterion.text for lesson in judge_lessons(config, "train", 20)} == {"Names Ann."}
    assert len(judge_lessons(config, "train", 20)) == 20
    assert own_files(stage("judge"), config) == {"judge.data.train": file}
    assert own_files(stage("base"), config) == {}
    plain, _ = load_config("smoke")
    assert generated_lessons(config, "train", 3) == judge_lessons(plain, "train", 3)
