"""A user's own data names its grader: from the row in the file to the verdict."""

import json

import pytest

from pipeline.config.schema import DataConfig
from pipeline.data import DataError, load_tasks
from rollout.records import Attempt, Task, TaskError
from specialists.own import OwnDomain

ROWS = {
    "choice": ({"answer": "B", "choices": ["red", "blue"]}, r"\boxed{B) blue}", r"\boxed{A or B}"),
    "qa": ({"answer": ["NYC", "New York City"]}, r"\boxed{The New York City.}", r"\boxed{New York or Boston}"),
    "f1": ({"answer": "the park near the old river"}, r"\boxed{in the park near the old river}", r"\boxed{river}"),
    "set": ({"answer": "a, b"}, r"\boxed{b and a}", r"\boxed{a, b, c}"),
    "list": ({"answer": ["a", "b"]}, r"\boxed{a, b}", r"\boxed{b, a}"),
    "exact": ({"answer": 7}, r"\boxed{7}", r"\boxed{3+4}"),
    "math": ({"answer": 0.5}, r"\boxed{\frac{1}{2}}", r"\boxed{2}"),
    "json": ({"answer": {"a": 1}}, '{"a": 1}', r'\boxed{{"a": 1}}'),
    "instructions": ({"answer": [{"kind": "max_words", "count": 2}]}, "Two words.", "Now three words."),
}


def load(tmp_path, rows, **more):
    path = tmp_path / "own.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    held = tmp_path / "held.jsonl"
    held.write_text(json.dumps({**rows[0], "prompt": "held out?"}) + "\n")
    return load_tasks(DataConfig(train=str(path), heldout=str(held), **more), "quiz", "train")


@pytest.mark.parametrize("kind", ROWS)
def test_a_row_names_its_grader(tmp_path, kind):
    fields, good, bad = ROWS[kind]
    (task,) = load(tmp_path, [{"prompt": "Which?", "grader": kind, "mode": "direct", **fields}])
    domain = OwnDomain("quiz", "verifiable")
    said = [domain.grade(Attempt(task, (text,), (), "stop", 9), None).correct for text in (good, bad, "")]
    assert said == [True, False, False]
    assert Task.from_json(json.loads(json.dumps(task.to_json()))) == task


def test_the_grader_may_be_set_for_all_rows_and_choices_come_from_any_column(tmp_path):
    rows = [{"q": "Which?", "gold": "A", "options": ["red", "blue"]}]
    columns = {"prompt": "q", "answer": "gold", "choices": "options"}
    (tmp_path / "h.jsonl").write_text(json.dumps({**rows[0], "q": "held out?"}) + "\n")
    (tmp_path / "t.jsonl").write_text(json.dumps(rows[0]) + "\n")
    data = DataConfig(
        train=str(tmp_path / "t.jsonl"),
        heldout=str(tmp_path / "h.jsonl"),
        columns=columns,
        defaults={"grader": "choice"},
    )
    (task,) = load_tasks(data, "quiz", "train")
    assert (task.grader, task.choices, task.answer) == ("choice", ("red", "blue"), "A")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"grader": "chioce", "answer": "A"}, "unknown grader 'chioce'; did you mean 'choice'"),
        ({"grader": "choice", "answer": "C", "choices": ["x", "y"]}, "the letter of one of 2 choices"),
        ({"grader": "choice", "answer": "C", "choices": "x"}, "field 'choices': expected JSON"),
        ({"grader": "qa", "answer": "x", "choices": ["x"]}, "takes no choices"),
        ({"answer": "A", "choices": ["x"]}, "set `grader` to it"),
        ({"grader": "qa", "answer": ["the"]}, "a list of accepted texts"),
        ({"grader": "qa"}, "a list of accepted texts"),
        ({"grader": "set", "answer": []}, "a list of texts"),
        ({"grader": "instructions", "answer": [{"kind": "vibes"}]}, "unknown check"),
        ({"grader": "json", "answer": "{not json"}, "field 'answer': expected JSON"),
        ({"grader": 3, "answer": "x"}, "field 'grader': expected a text"),
        ({"grader": "qa", "answer": "x", "rubric": [{"name": "n", "text": "t"}]}, "two ways to judge"),
    ],
)
def test_a_truth_that_its_grader_can_not_use_is_named_before_the_run(tmp_path, fields, words):
    with pytest.raises(DataError, match=r"own\.jsonl, line 1") as caught:
        load(tmp_path, [{"prompt": "Which?", **fields}])
    assert words in str(caught.value)


def test_a_built_in_domain_grades_its_answers_itself(tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps({"prompt": "Which?", "grader": "qa", "answer": "x"}) + "\n")
    with pytest.raises(DataError, match="built-in domain math grades its answers itself"):
        load_tasks(DataConfig(train=str(path), heldout=str(path)), "math", "train")


def test_a_task_with_a_bad_grader_is_invalid_not_wrong():
    task = Task(
        "t", "quiz", ({"role": "user", "content": "?"},), mode="direct", grader="choice", answer="Q", choices=("x",)
    )
    verdict = OwnDomain("quiz", "verifiable").grade(Attempt(task, (r"\boxed{Q}",), (), "stop", 3), None)
    assert verdict.correct is None and "choices" in verdict.reason
    with pytest.raises(TaskError, match="'choices'"):
        Task("t", "quiz", task.messages, choices=(1,))
