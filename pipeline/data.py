"""A user's own tasks: the `Task` schema from JSONL, Parquet or a `datasets` dataset, under the user's column
names.

Nothing is half loaded: every bad row is found and named (file, line, field) before one `DataError` is raised.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipeline.config.schema import DataConfig
from pipeline.errors import UsageError
from pipeline.sources import MISSING, Row, SourceError, lookup, read_rows
from rewards.graders import GRADERS, truth_problem
from rewards.rubric import rubric_problem
from rollout.records import MODES, Mode, Split, Task, TaskError
from specialists import DOMAINS, get_domain
from specialists.base import ChecksOwnTasks

HELDOUT_ONE_IN = 10
"""Without a held-out source, one problem in this many is held out, by the hash of its content."""

SHOWN = 20
"""Bad rows shown in a `DataError`."""

TASK_FIELDS = tuple(f.name for f in dataclasses.fields(Task))
JSON_FIELDS = ("messages", "choices", "tests", "rubric", "environment", "provenance")
TEXT_FIELDS = ("mode", "family", "language", "grader")


class DataError(UsageError):
    """Data that can not be used; `problems` are all of them, one sentence each."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        shown = [f"  {problem}" for problem in problems[:SHOWN]]
        if len(problems) > SHOWN:
            shown.append(f"  … and {len(problems) - SHOWN} more")
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__("\n".join([f"{count} with the data; nothing was loaded:", *shown]))


def load_tasks(data: DataConfig, domain: str, split: Split, own_reward: bool = False) -> list[Task]:
    """The tasks of one split, in the order of their source, ids `<domain>/<split>/<id>`.

    `data.columns` maps fields of a task to columns (`a.b` reaches into nested ones); a field that is in
    neither `columns` nor `defaults` is read from the column of its own name, if there is one. `defaults` also
    fill empty cells. The field `prompt` is a plain text that becomes the user's message. A missing `id` is
    the hash of the content; tasks without a `mode` are meant for both (`modes_of`). With `own_reward` the user's
    function pays, and a built-in domain is not asked whether it could judge the task.

    Raises:
        DataError: with every bad row, duplicate id, unknown column, and problem that is in both splits.
    """
    loaded = _load(data.train, data, domain, own_reward)
    if data.heldout:
        train, heldout = loaded, _load(data.heldout, data, domain, own_reward)
        _refuse_overlap(train, heldout)
    else:
        train = [task for task in loaded if not is_held_out(_problem(task))]
        heldout = [task for task in loaded if is_held_out(_problem(task))]
    chosen = train if split == "train" else heldout
    if not chosen:
        advice = (
            "more rows are needed" if data.heldout else "give a held-out file in `data.heldout`, or more rows"
        )
        raise DataError([f"{data.train}: none of its {len(loaded)} rows is in the {split} split; {advice}"])
    return [dataclasses.replace(task, id=f"{domain}/{split}/{task.id}") for task in chosen]


def modes_of(task: Task) -> tuple[Mode, ...]:
    """The modes that a task is meant for: its own, or both where its source did not say."""
    return tuple(task.provenance.get("modes", (task.mode,)))


def _load(source: str, data: DataConfig, domain: str, own_reward: bool) -> list[Task]:
    try:
        rows, problems = read_rows(source, data.subset, data.split)
    except SourceError as error:
        raise DataError([str(error)]) from error
    fields = _field_columns(source, rows, data) if rows else {}
    if not rows and not problems:
        problems = [f"{source}: has no rows"]
    tasks: list[Task] = []
    first_place: dict[str, str] = {}
    for row in rows:
        try:
            task = _to_task(row, fields, data.defaults, domain)
            if not own_reward:
                _check_domain(task)
            if task.id in first_place:
                what = (
                    f"{task.id!r} is also the id of" if "id" in fields else "the row repeats the content of"
                )
                raise TaskError(f"field 'id': {what} {first_place[task.id]}")
        except TaskError as error:
            problems.append(f"{row.where}: {_with_column(str(error), fields)}")
            continue
        first_place[task.id] = row.place
        tasks.append(task)
    if problems:
        raise DataError(problems)
    return tasks


def _field_columns(source: str, rows: Sequence[Row], data: DataConfig) -> dict[str, str]:
    """Which column each field is read from. Raises `DataError` for fields and columns that do not exist."""
    known = ("prompt", *TASK_FIELDS)
    columns = sorted({name for row in rows for name in row.values})
    problems = []
    for section, names in (("columns", data.columns), ("defaults", data.defaults)):
        for name in names:
            if name not in known or name == "domain" or (section == "defaults" and name in ("id", "prompt")):
                choice = [field for field in known if field != "domain"]
                problems.append(f"`{section}.{name}`: expected a field of a task{_suggest(name, choice)}")
    for name, column in data.columns.items():
        if all(lookup(row.values, column) is MISSING for row in rows):
            problems.append(f"{source}: no column {column!r} (for field {name!r}){_suggest(column, columns)}")
    if "prompt" in data.columns and "messages" in data.columns:
        problems.append("`columns`: `prompt` and `messages` are two ways to say the same; keep one")
    if problems:
        raise DataError(problems)
    own_names = {
        name: name for name in TASK_FIELDS if name in columns and name not in ("domain", *data.defaults)
    }
    fields = {**own_names, **data.columns}
    if "prompt" in data.columns:
        fields.pop("messages", None)
    elif "messages" not in fields and "messages" not in data.defaults:
        if "prompt" not in columns:
            raise DataError(
                [f"{source}: no column gives the prompt: set `columns.prompt`{_suggest('', columns)}"]
            )
        fields["prompt"] = "prompt"
    return fields


def _to_task(row: Row, fields: Mapping[str, str], defaults: Mapping[str, Any], domain: str) -> Task:
    """One row as a task; raises `TaskError` that names the field."""
    values: dict[str, Any] = dict(defaults)
    for name, column in fields.items():
        value = lookup(row.values, column)
        if value is MISSING or value is None:
            if name not in defaults and name != column:
                raise TaskError(f"field {name!r}: empty or missing, and `defaults` has no value for it")
            continue
        values[name] = value
    for name in JSON_FIELDS:
        if isinstance(values.get(name), str):
            values[name] = _parse(name, values[name])
    if "prompt" in values:
        values["messages"] = _messages(values.pop("prompt"))
    _check(values)
    modes = (values["mode"],) if values.get("mode") else MODES
    values["provenance"] = {**values.get("provenance", {}), **row.provenance, "modes": list(modes)}
    values["id"] = str(values["id"]) if values.get("id") is not None else _digest(values)
    task = Task.from_json({**values, "domain": domain})
    if task.rubric and (problem := rubric_problem(task.rubric)):
        raise TaskError(f"field 'rubric': {problem}")
    _check_grader(task)
    return task


def _messages(prompt: Any) -> list[dict[str, Any]]:
    if isinstance(prompt, list):
        return prompt
    if not isinstance(prompt, str) or not prompt.strip():
        raise TaskError(f"field 'prompt': expected a text that is not empty, got {prompt!r}")
    return [{"role": "user", "content": prompt}]


def _check(values: dict[str, Any]) -> None:
    """What `Task` itself takes on trust. Mends what files do to values: nulls that Parquet writes into uneven
    messages, levels as 2.0, and answers as numbers, where graders compare texts."""
    for name in TEXT_FIELDS:
        if not isinstance(values.get(name, ""), str):
            raise TaskError(f"field {name!r}: expected a text, got {values[name]!r}")
    for name in ("environment", "provenance"):
        if values.get(name) is not None and not isinstance(values[name], Mapping):
            raise TaskError(f"field {name!r}: expected an object, got {type(values[name]).__name__}")
    for name in ("messages", "tests"):
        items = values.get(name) or []
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise TaskError(f"field {name!r}: expected a list of objects, got {items!r:.60}")
    if not values.get("messages"):
        raise TaskError(
            "field 'messages': missing; map a text to `prompt`, or a list of messages to `messages`"
        )
    values["messages"] = [
        {key: value for key, value in message.items() if value is not None} for message in values["messages"]
    ]
    if isinstance(level := values.get("difficulty"), float) and level.is_integer():
        values["difficulty"] = int(level)
    answer = values.get("answer")
    if values.get("grader") in GRADERS and not GRADERS[values["grader"]].boxed:
        # Their truths are JSON, which a column of texts holds in writing.
        values["answer"] = _parse("answer", answer) if isinstance(answer, str) else answer
    elif isinstance(answer, int) and not isinstance(answer, bool):
        values["answer"] = str(answer)
    elif isinstance(answer, float) and math.isfinite(answer):
        values["answer"] = f"{answer:.15g}"
    for name, value in values.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise TaskError(f"field {name!r}: can not be written as JSON: {error}") from error


def _check_grader(task: Task) -> None:
    """A truth that its grader can not use would make every sample of the task invalid."""
    if not task.grader:
        if task.choices:
            raise TaskError("field 'choices': only the grader 'choice' reads them; set `grader` to it")
        return
    if task.domain in DOMAINS:
        raise TaskError(
            f"field 'grader': the built-in domain {task.domain} grades its answers itself; leave it out, or give the "
            "data a domain of its own"
        )
    if task.grader not in GRADERS:
        raise TaskError(f"field 'grader': unknown grader {task.grader!r}{_suggest(task.grader, list(GRADERS))}")
    if (problem := truth_problem(task.grader, task.answer, task.choices)) is not None:
        raise TaskError(f"field 'answer': {problem}")


def _check_domain(task: Task) -> None:
    """A task that its built-in domain can not judge would make every sample invalid, too."""
    domain = get_domain(task.domain) if task.domain in DOMAINS else None
    if isinstance(domain, ChecksOwnTasks) and (problem := domain.problem_of(task)) is not None:
        raise TaskError(f"the {task.domain} domain can not judge it: {problem}")


def _parse(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise TaskError(f"field {name!r}: expected JSON, got {text!r:.40}: {error}") from error


def _digest(content: Mapping[str, Any]) -> str:
    """Hash of what a task asks and how it is judged, not of where it came from."""
    asked = {name: content[name] for name in sorted(content) if name not in ("id", "provenance")}
    text = json.dumps(asked, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _problem(task: Task) -> str:
    """What makes two tasks the same problem: the conversation's text, but for case and white space, and the
    world it is set in. The system message is left out: it is the same question under another one."""
    text = " ".join(message["content"] for message in task.messages if message["role"] != "system")
    text = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return json.dumps([text, task.environment], sort_keys=True, ensure_ascii=False)


def is_held_out(content: str) -> bool:
    """Whether data without a held-out file of their own keep what says this for evaluation: one in HELDOUT_ONE_IN, by
    its content alone, so that neither the order of the rows nor others beside them matter."""
    digest = hashlib.blake2b(content.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % HELDOUT_ONE_IN == 0


def _refuse_overlap(train: Iterable[Task], heldout: Iterable[Task]) -> None:
    trained = {_problem(task): task for task in train}
    problems = [
        f"{_place(task)}: the held-out prompt is also a training prompt ({_place(trained[_problem(task)])})"
        for task in heldout
        if _problem(task) in trained
    ]
    if problems:
        raise DataError(problems)


def _place(task: Task) -> str:
    provenance = task.provenance
    unit = "line" if "line" in provenance else "row"
    return f"{provenance['source']}, {unit} {provenance[unit]}"


def _with_column(message: str, fields: Mapping[str, str]) -> str:
    """The message with the column that its field was read from, where that has another name."""
    match = re.match(r"field '(\w+)", message)
    field = match[1] if match else ""
    column = fields.get(field, field)
    return message if column == field else f"{message} (column {column!r})"


def _suggest(name: str, choice: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, choice, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{hint}; there are: {', '.join(choice)}"
