"""Rubrics for the prompts of a file, written by a model behind `judge.base_url` and kept with where they come from."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.config.schema import Config
from pipeline.errors import UsageError
from pipeline.grader import judge_retries
from pipeline.sources import MISSING, Row, SourceError, lookup, read_rows
from rewards.judge.http import ChatClient, ChatError, ChatSession
from rewards.rubric import Criterion
from rewards.rubric_writer import TEMPLATE_SHA256, parse_rubric, prompt_sha256, rubric_format, writer_prompt

TRIES = 3
"""Replies asked for, each with another seed, until one is a rubric."""

MAX_TOKENS = 2048
BATCH = 64
"""Prompts between two writes to the file: at most so many are asked for again after a kill."""


@dataclass
class Written:
    """What a call did: rubrics written now, prompts that had theirs already, and a sentence for each that got none."""

    written: int = 0
    kept: int = 0
    problems: list[str] = field(default_factory=list)


def write_rubrics(
    config: Config, data: str, out: Path, column: str = "prompt", on_batch: Callable[[int], None] = lambda done: None
) -> Written:
    """Writes a line for each prompt of `data` to `out`: its row with `rubric` and its provenance, in the order of the
    rows. Prompts that `out` has a rubric for (of this model and template) are not asked again; equal ones count once.

    Args:
        data: a `.jsonl` or `.parquet` file, a folder or a dataset's name.
        column: of the prompt, a text or a list of messages; `messages` is read where it is not there.
        on_batch: gets the number of prompts that are done.

    Raises:
        UsageError: without `judge.base_url`, and for a source that cannot be opened or has no such column.
    """
    if config.judge.base_url is None:
        raise UsageError("judge.base_url is not set: name the OpenAI-compatible server whose model writes the rubrics")
    try:
        rows, problems = read_rows(data, None, "train")
    except SourceError as error:
        raise UsageError(str(error)) from error
    done = Written(problems=problems)
    known = _already_there(out, config.judge.model)
    waiting: list[tuple[Row, str, str]] = []
    for row in rows:
        prompt = _prompt(row, column)
        if not prompt:
            done.problems.append(f"{row.where}: no prompt in column {column!r} (a text or a list of messages)")
            continue
        name = prompt_sha256(prompt)
        if name in known:
            done.kept += 1
            continue
        known.add(name)
        waiting.append((row, prompt, name))
    if rows and not waiting and not done.kept:
        raise UsageError(f"{data}: no row has a prompt in column {column!r}; name another with --column")
    out.parent.mkdir(parents=True, exist_ok=True)
    _end_torn_line(out)
    for start in range(0, len(waiting), BATCH):
        batch = waiting[start : start + BATCH]
        results = asyncio.run(_ask_all(config, [prompt for _, prompt, _ in batch]))
        lines = []
        for (row, _, name), result in zip(batch, results, strict=True):
            if isinstance(result, str):
                done.problems.append(f"{row.where}: {result}")
            else:
                lines.append(_line(config, row, name, *result))
        with out.open("a", encoding="utf-8") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        done.written += len(lines)
        on_batch(start + len(batch))
    return done


async def _ask_all(config: Config, prompts: Sequence[str]) -> list[tuple[tuple[Criterion, ...], int] | str]:
    judge = config.judge
    client = ChatClient(
        judge.base_url or "", judge.model, judge.timeout_s, judge_retries(judge.timeout_s), judge.concurrency,
        config.runtime.step_deadline_s, os.environ.get(judge.api_key_env),
    )  # fmt: skip
    async with client.session() as session:
        return list(await asyncio.gather(*(_ask(config, session, prompt) for prompt in prompts)))


async def _ask(config: Config, session: ChatSession, prompt: str) -> tuple[tuple[Criterion, ...], int] | str:
    """The rubric and the seed that it came with, or why there is none."""
    problem = ""
    for attempt in range(TRIES):
        seed = config.seed + attempt
        try:
            text = await session.complete(
                writer_prompt(prompt), config.judge.temperature, MAX_TOKENS, seed,
                rubric_format() if config.judge.guided else None,
            )  # fmt: skip
            return parse_rubric(text), seed
        except ChatError as error:
            return str(error)
        except ValueError as error:
            problem = f"no rubric in {TRIES} replies; the last: {error}"
    return problem


def _line(config: Config, row: Row, name: str, criteria: Sequence[Criterion], seed: int) -> str:
    earlier = row.values.get("provenance")
    provenance = {
        **(earlier if isinstance(earlier, dict) else {}),
        "rubric": {
            "model": config.judge.model,
            "base_url": config.judge.base_url,
            "template_sha256": TEMPLATE_SHA256,
            "prompt_sha256": name,
            "sampling": {"temperature": config.judge.temperature, "max_tokens": MAX_TOKENS, "seed": seed},
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    }
    record = {**row.values, "rubric": [criterion.to_json() for criterion in criteria], "provenance": provenance}
    return json.dumps(record, ensure_ascii=False, default=str) + "\n"


def _prompt(row: Row, column: str) -> str:
    value = lookup(row.values, column)
    value = row.values.get("messages") if value is MISSING else value
    if isinstance(value, list):
        parts = [f"{m.get('role')}: {m.get('content')}" if isinstance(m, Mapping) else "" for m in value]
        value = str(value[0].get("content") or "") if len(value) == 1 and parts[0] else "\n\n".join(parts)
    return value if isinstance(value, str) and value.strip() else ""


def _already_there(out: Path, model: str) -> set[str]:
    """Names of the prompts that the file has a rubric of this model and template for; a torn last line has none."""
    names: set[str] = set()
    if not out.is_file():
        return names
    for line in out.read_bytes().splitlines():
        try:
            origin: Any = json.loads(line)["provenance"]["rubric"]
            if (origin["model"], origin["template_sha256"]) == (model, TEMPLATE_SHA256):
                names.add(str(origin["prompt_sha256"]))
        except (ValueError, KeyError, TypeError):
            continue
    return names


def _end_torn_line(out: Path) -> None:
    """A kill may have left half a line: it is cut off, so that the file stays readable."""
    if not out.is_file():
        return
    data = out.read_bytes()
    if data and not data.endswith(b"\n"):
        with out.open("r+b") as file:
            file.truncate(data.rfind(b"\n") + 1)
