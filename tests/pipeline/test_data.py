import json
from pathlib import Path

import pytest

from pipeline.config.schema import Config, DataConfig
from pipeline.data import SHOWN, DataError, load_tasks, modes_of

EXAMPLES = Path(__file__).parents[2] / "examples"


def jsonl(path, rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def questions(count, start=0):
    return [{"question": f"What is {n} + 1?", "gold": n + 1} for n in range(start, start + count)]


COLUMNS = {"prompt": "question", "answer": "gold"}


def both_splits(data, domain="math"):
    return load_tasks(data, domain, "train"), load_tasks(data, domain, "heldout")


def problems(data, split="train", domain="math"):
    with pytest.raises(DataError) as caught:
        load_tasks(data, domain, split)
    return caught.value.problems


def test_columns_are_mapped_and_the_rest_is_set(tmp_path):
    data = DataConfig(
        train=jsonl(tmp_path / "own.jsonl", questions(40)), columns=COLUMNS, defaults={"language": "de"}
    )
    train, heldout = both_splits(data)
    assert len(train) + len(heldout) == 40
    task = train[0]
    assert task.domain == "math"
    assert task.id.startswith("math/train/")
    assert task.messages == ({"role": "user", "content": task.prompt},)
    assert task.answer == str(int(task.prompt.split()[2]) + 1)
    assert task.language == "de"
    assert task.provenance["line"] >= 1
    assert modes_of(task) == ("thinking", "direct")
    json.dumps(task.to_json())


@pytest.mark.parametrize(
    ("given", "text"), [(23, "23"), (23.0, "23"), (0.1, "0.1"), ("x+1", "x+1"), (True, True)]
)
def test_numbers_become_texts_as_graders_read_them(tmp_path, given, text):
    rows = [{"question": f"{n}?", "gold": given} for n in range(20)]
    data = DataConfig(train=jsonl(tmp_path / "own.jsonl", rows), columns=COLUMNS)
    assert {task.answer for task in load_tasks(data, "math", "train")} == {text}


def test_rows_in_the_tasks_own_schema_need_no_mapping(tmp_path):
    row = {
        "id": 7, "domain": "else", "mode": "direct", "difficulty": 2.0, "answer": "4", "language": None,
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"}],
    }  # fmt: skip
    held = jsonl(tmp_path / "held.jsonl", [{**row, "messages": [{"role": "user", "content": "3 + 3?"}]}])
    (task,) = load_tasks(
        DataConfig(train=jsonl(tmp_path / "own.jsonl", [row]), heldout=held), "math", "train"
    )
    assert (task.id, task.domain, task.mode, task.difficulty, task.language) == (
        "math/train/7", "math", "direct", 2, "en",
    )  # fmt: skip
    assert modes_of(task) == ("direct",)


def test_json_columns_are_parsed(tmp_path):
    row = {
        "q": "Write f.", "cases": '[{"args": [1], "result": 2}]', "world": '{"function": "f"}',
    }  # fmt: skip
    columns = {"prompt": "q", "tests": "cases", "environment": "world"}
    held = jsonl(tmp_path / "h.jsonl", [{**row, "q": "Another."}])
    data = DataConfig(train=jsonl(tmp_path / "own.jsonl", [row]), heldout=held, columns=columns)
    (task,) = load_tasks(data, "code", "train")
    assert task.tests == ({"args": [1], "result": 2},)
    assert task.environment == {"function": "f"}


@pytest.mark.parametrize(
    ("domain", "row", "problem"),
    [
        ("code", {"tests": [{"call": "f(1)"}]}, "test 0: expected a text as 'stdin'"),
        ("code", {"tests": []}, "expected at least one test"),
        ("code", {"tests": [{"stdin": "1", "stdout": "2", "public": True}]}, "at least one must be hidden"),
        (
            "code",
            {"tests": [{"stdin": "1", "stdout": "2"}], "environment": {"checker": "fuzzy"}},
            "expected a checker of tokens",
        ),
        ("code", {"tests": [{"args": [1], "result": 2}], "environment": {"function": "f("}}, "the name of a function"),
        ("agentic_code", {"tests": [], "environment": {}}, "environment.files"),
        (
            "agentic_code",
            {"tests": [], "environment": {"files": {"a.py": ""}, "protected": ["b.py"]}},
            "environment.protected",
        ),
        ("agentic_code", {"environment": {"files": {"./a.py": ""}, "protected": []}}, "shortest form"),
        (
            "agentic_code",
            {"tests": [{"args": [], "result": 1}], "environment": {"files": {"a.py": ""}, "protected": []}},
            "tests: test 0: expected names as 'module' and 'function'",
        ),
        ("agentic_search", {"answer": "x", "environment": {"pages": [{"id": "a"}]}}, "texts as 'id'"),
        (
            "agentic_search",
            {
                "answer": "x",
                "environment": {"pages": [{"id": "a", "title": "A", "text": "x"}], "evidence": ["b"]},
            },
            "environment.evidence",
        ),
    ],
)
def test_a_task_that_its_domain_can_not_judge_is_refused(tmp_path, domain, row, problem):
    data = DataConfig(train=jsonl(tmp_path / "own.jsonl", [{"prompt": "Do it.", **row}]))
    (said,) = problems(data, "train", domain)
    assert f"the {domain} domain can not judge it: " in said
    assert problem in said


def test_a_reward_of_ones_own_needs_no_tests(tmp_path):
    rows = [{"prompt": f"Write program {n}."} for n in range(30)]
    data = DataConfig(train=jsonl(tmp_path / "own.jsonl", rows))
    assert load_tasks(data, "code", "train", own_reward=True)


def test_nested_columns_are_reached_with_a_dot(tmp_path):
    rows = [
        {"prompt": [{"role": "user", "content": f"{n}?"}], "reward_model": {"truth": n}} for n in range(30)
    ]
    data = DataConfig(train=jsonl(tmp_path / "own.jsonl", rows), columns={"answer": "reward_model.truth"})
    assert all(task.prompt == f"{task.answer}?" for task in load_tasks(data, "math", "train"))


def test_parquet_and_save_to_disk_give_the_same_tasks(tmp_path):
    import datasets

    rows = questions(30)
    stored = datasets.Dataset.from_list(rows)
    stored.to_parquet(tmp_path / "own.parquet")
    stored.save_to_disk(tmp_path / "folder")
    datasets.DatasetDict(train=stored, other=stored).save_to_disk(tmp_path / "splits")
    sources = [jsonl(tmp_path / "own.jsonl", rows)]
    sources += [str(tmp_path / name) for name in ("own.parquet", "folder", "splits", "splits:other")]
    loads = [both_splits(DataConfig(train=source, columns=COLUMNS)) for source in sources]
    ids = [[[task.id for task in split] for split in load] for load in loads]
    assert all(other == ids[0] for other in ids)
    row = loads[1][0][0].provenance
    assert rows[row["row"] - 1]["question"] == loads[1][0][0].prompt


def test_a_dataset_is_loaded_by_name_and_split(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "named"
    folder.mkdir()
    jsonl(folder / "train.jsonl", questions(20))
    jsonl(folder / "test.jsonl", questions(5, start=100))
    data = DataConfig(train=str(folder), heldout=f"{folder}:test", columns=COLUMNS)
    train, heldout = both_splits(data)
    assert (len(train), len(heldout)) == (20, 5)


def test_nulls_that_parquet_adds_to_messages_are_dropped(tmp_path):
    import datasets

    rows = [
        {
            "messages": [{"role": "user", "content": f"{n}?"}]
            + [{"role": "user", "content": "Go.", "name": "x"}] * (n % 2)
        }
        for n in range(20)
    ]
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "own.parquet")
    for task in load_tasks(DataConfig(train=str(tmp_path / "own.parquet")), "math", "train"):
        assert task.messages[0] == {"role": "user", "content": task.messages[0]["content"]}


def test_every_bad_row_is_named_with_line_and_field(tmp_path):
    rows = [
        questions(1)[0],
        "{not json",
        "",
        [1, 2],
        {"question": "  ", "gold": 1},
        {"gold": 1},
        {"question": "fine?", "gold": 1, "difficulty": "hard"},
        {"question": "really?", "gold": 1, "mode": "loud"},
        {"question": "so?", "gold": 1, "tests": "[1"},
        {"question": "and?", "gold": float("nan")},
    ]
    path = jsonl(tmp_path / "own.jsonl", rows)
    found = problems(DataConfig(train=path, columns=COLUMNS))
    assert [int(problem.split("line ")[1].split(":")[0]) for problem in sorted(found)] == sorted(
        [2, 4, 5, 6, 7, 8, 9, 10], key=str
    )
    text = "\n".join(found)
    for part in (
        f"{path}, line 2: not a line of JSON",
        "line 4: expected an object, got list",
        "line 5: field 'prompt': expected a text that is not empty, got '  ' (column 'question')",
        "line 6: field 'prompt': empty or missing",
        "line 7: field 'difficulty': expected an integer from 1, got 'hard'",
        "line 8: field 'mode': expected one of thinking, direct, got 'loud'",
        "line 9: field 'tests': expected JSON, got '[1'",
        "line 10: field 'answer': can not be written as JSON",
    ):
        assert part in text


def test_a_row_of_parquet_is_named_by_its_number(tmp_path):
    import datasets

    rows = [*questions(3), {"question": None, "gold": 1}]
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "own.parquet")
    (problem,) = problems(DataConfig(train=str(tmp_path / "own.parquet"), columns=COLUMNS))
    assert "own.parquet, row 4: field 'prompt'" in problem


def test_twenty_are_shown_and_all_are_counted(tmp_path):
    data = DataConfig(
        train=jsonl(tmp_path / "own.jsonl", [{"question": ""}] * 33), columns={"prompt": "question"}
    )
    with pytest.raises(DataError) as caught:
        load_tasks(data, "math", "train")
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("33 problems")
    assert len(lines) == 1 + SHOWN + 1
    assert lines[-1].strip() == "… and 13 more"


def test_an_empty_cell_takes_the_default(tmp_path):
    rows = [{**row, "tongue": "fr" if n % 2 else None} for n, row in enumerate(questions(20))]
    source = jsonl(tmp_path / "own.jsonl", rows)
    columns = {**COLUMNS, "language": "tongue"}
    tasks = load_tasks(
        DataConfig(train=source, columns=columns, defaults={"language": "en"}), "math", "train"
    )
    assert {task.language for task in tasks} == {"fr", "en"}
    assert all(
        "field 'language'" in problem for problem in problems(DataConfig(train=source, columns=columns))
    )


def test_a_default_goes_before_a_column_of_the_same_name(tmp_path):
    rows = [{**row, "difficulty": "hard"} for row in questions(20)]
    source = jsonl(tmp_path / "own.jsonl", rows)
    data = DataConfig(train=source, columns=COLUMNS, defaults={"difficulty": 3})
    assert {task.difficulty for task in load_tasks(data, "math", "train")} == {3}


def test_missing_columns_and_unknown_fields_get_suggestions(tmp_path):
    source = jsonl(tmp_path / "own.jsonl", questions(2))
    (problem,) = problems(DataConfig(train=source, columns={"prompt": "qestion"}))
    assert (
        "no column 'qestion' (for field 'prompt'); did you mean 'question'?; there are: gold, question"
        in problem
    )
    (problem,) = problems(DataConfig(train=source, columns={**COLUMNS, "anwser": "gold"}))
    assert "`columns.anwser`: expected a field of a task; did you mean 'answer'?" in problem
    (problem,) = problems(DataConfig(train=source, columns=COLUMNS, defaults={"id": "x"}))
    assert "`defaults.id`" in problem
    (problem,) = problems(DataConfig(train=source))
    assert "no column gives the prompt: set `columns.prompt`; there are: gold, question" in problem


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("none.jsonl", "no such file"),
        ("own.txt", "expected a .jsonl or .parquet file"),
        ("empty.jsonl", "has no rows"),
        ("bad.parquet", "can not be read as Parquet"),
        ("splits:none", "no split 'none'"),
    ],
)
def test_sources_that_can_not_be_opened(tmp_path, name, says):
    import datasets

    (tmp_path / "own.txt").write_text("x")
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "bad.parquet").write_text("x")
    datasets.DatasetDict(train=datasets.Dataset.from_list(questions(2))).save_to_disk(tmp_path / "splits")
    (problem,) = problems(DataConfig(train=str(tmp_path / name), columns=COLUMNS))
    assert says in problem


def test_duplicate_ids_and_repeated_rows_are_errors(tmp_path):
    rows = [{**row, "nr": number} for row, number in zip(questions(3), [5, 6, 5], strict=True)]
    source = jsonl(tmp_path / "own.jsonl", rows)
    (problem,) = problems(DataConfig(train=source, columns={**COLUMNS, "id": "nr"}))
    assert "line 3: field 'id': '5' is also the id of line 1 (column 'nr')" in problem
    source = jsonl(tmp_path / "own.jsonl", questions(2) + questions(1))
    (problem,) = problems(DataConfig(train=source, columns=COLUMNS))
    assert "line 3: field 'id': the row repeats the content of line 1" in problem


def test_the_hash_split_is_about_a_tenth_stable_and_disjoint(tmp_path):
    rows = questions(1000)
    rows += [{"question": "  " + row["question"].upper() + "\n", "gold": "again"} for row in rows]
    data = DataConfig(train=jsonl(tmp_path / "own.jsonl", rows), columns=COLUMNS)
    train, heldout = both_splits(data)
    assert 130 < len(heldout) < 270
    texts = [{" ".join(task.prompt.lower().split()) for task in split} for split in (train, heldout)]
    assert not texts[0] & texts[1]
    fewer = DataConfig(train=jsonl(tmp_path / "fewer.jsonl", rows[:500]), columns=COLUMNS)
    assert {task.prompt for task in load_tasks(fewer, "math", "heldout")} <= {task.prompt for task in heldout}


def test_one_prompt_in_many_worlds_is_many_problems(tmp_path):
    rows = [
        {"prompt": "Make the tests pass.", "environment": {"files": {"a.py": str(n)}}} for n in range(200)
    ]
    train, heldout = both_splits(DataConfig(train=jsonl(tmp_path / "own.jsonl", rows)), "software")
    assert len(train) > 100
    assert heldout


def test_prompts_in_both_files_are_an_error_that_names_the_line(tmp_path):
    train = jsonl(tmp_path / "train.jsonl", questions(5))
    held = jsonl(
        tmp_path / "held.jsonl", [*questions(2, start=50), {"question": "what is 3  + 1?", "gold": 4}]
    )
    for split in ("train", "heldout"):
        (problem,) = problems(DataConfig(train=train, heldout=held, columns=COLUMNS), split)
        assert f"{held}, line 3: the held-out prompt is also a training prompt ({train}, line 4)" in problem


def test_an_empty_split_is_an_error(tmp_path):
    (problem,) = problems(
        DataConfig(train=jsonl(tmp_path / "own.jsonl", questions(1)), columns=COLUMNS), "heldout"
    )
    assert "none of its 1 rows is in the heldout split; give a held-out file in `data.heldout`" in problem


def test_the_example_loads(monkeypatch):
    import importlib

    from omegaconf import OmegaConf

    monkeypatch.chdir(EXAMPLES.parent)
    monkeypatch.syspath_prepend(EXAMPLES.parent)
    config = OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.load(EXAMPLES / "own_data.yaml"))
    domain = OmegaConf.to_object(config).domains["math"]
    train, heldout = both_splits(domain.data)
    assert len(train) + len(heldout) == 14
    module, _, name = domain.reward.rpartition(".")
    reward = getattr(importlib.import_module(module), name)
    task = train[0]
    scores = reward(
        prompts=[task.prompt] * 3,
        completions=[
            f"So {task.answer}",
            "no idea",
            [{"role": "assistant", "content": f"{int(task.answer) + 1}"}],
        ],
        answer=[task.answer] * 3,
        difficulty=[task.difficulty] * 3,
    )
    assert scores == [1.0, 0.0, 0.25]
