"""How far a judge can be trusted, measured through the very door that the graders use: agreement with the truth, what
order, length and repetition do to its verdicts, its canaries, and what a verdict costs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline.config.schema import Config
from pipeline.errors import UsageError
from pipeline.runs import Run, write_json
from rewards.instructions import check_criterion
from rewards.judge.canaries import Canary, ask_canaries
from rewards.judge.client import GenRMClient, JudgeRequest
from rewards.judge.prompt import batches_of_criteria
from rewards.rubric import Criterion, RubricResult
from specialists.judge_data import JudgeExample

REPEATS = 2
"""Further times, each with another seed, that the same is asked for the repeat variance and the order."""

SUBSET = 100
"""Examples behind each of the measurements of bias."""

PADDING = {
    "en": "There is more to say about this and that. One may add a few words here. So much for now.",
    "zh": "关于这件事还有话可以说。这里可以再加几个字。先说到这里。",
}
"""Sentences that say nothing, put behind an answer to see whether length alone moves the judge."""


def measure_judge(config: Config, run: Run, count: int) -> tuple[Path, dict[str, Any]]:
    """The calibration of the configured judge on `count` held-out lessons: the one behind `judge.base_url`, or the one
    that the run has trained. Written to `judge/calibration.json` in the run's folder; gives its path and the report.

    Raises:
        UsageError: where the run has no judge yet.
    """
    from pipeline.grader import judge_canaries, judge_client
    from pipeline.stages.common import device, free_port, threads
    from pipeline.tasks import judge_lessons

    examples, server = judge_lessons(config, "heldout", count), None
    url, checkpoint = config.judge.base_url, run.folder("judge") / "checkpoint"
    if url is None:
        from pipeline.judge import JudgeServer

        if not checkpoint.is_dir():
            message = f"{run.path} has no judge yet: train one, or name one in judge.base_url"
            raise UsageError(message, "pipeline run judge")
        server = JudgeServer(
            str(checkpoint), config.judge.model, device(config), threads(config), free_port(), config.judge.host
        )
        url = server.url()
    try:
        client = judge_client(config, url)
        report = calibrate(client, examples, judge_canaries(config))
        client.close()
    finally:
        if server is not None:
            server.close()
    file = run.folder("judge") / "calibration.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, report)
    return file, report


def calibrate(client: GenRMClient, examples: Sequence[JudgeExample], canaries: Sequence[Canary]) -> dict[str, Any]:
    """The calibration report, JSON-serialisable; shares are between 0 and 1, None where there was nothing to measure.

    An abstention counts as a disagreement, and is reported beside.
    """
    began, before = time.monotonic(), replace(client.usage)
    met = _ask(client, examples)
    seconds, spent = time.monotonic() - began, client.usage
    truth = [example.met for example in examples]
    kinds: dict[str, list[bool]] = {}
    for example, verdict in zip(examples, met, strict=True):
        kinds.setdefault(str((example.criterion.truth or {}).get("kind", "own")), []).append(verdict == example.met)
    report = {
        "agreement": _share([a == b for a, b in zip(met, truth, strict=True)]),
        "n": len(met),
        "abstained": met.count(None),
        "by_kind": {kind: _share(right) for kind, right in sorted(kinds.items())},
        "wrongly_met": _share([a is True for a, b in zip(met, truth, strict=True) if not b]),
        "wrongly_not_met": _share([a is False for a, b in zip(met, truth, strict=True) if b]),
        "cost": {
            "seconds_per_verdict": seconds / max(1, len(met)),
            "prompt_tokens_per_verdict": (spent.prompt_tokens - before.prompt_tokens) / max(1, len(met)),
            "completion_tokens_per_verdict": (spent.completion_tokens - before.completion_tokens) / max(1, len(met)),
            "requests": spent.requests - before.requests,
            "retries": spent.retries - before.retries,
        },
        "length": _length(client, examples, met),
        "repeat": _repeat(client, examples[:SUBSET], met[:SUBSET]),
        "order": _order(client, examples[:SUBSET]),
    }
    checked = ask_canaries(client, canaries)
    return report | {"canaries": dict(checked.shares), "canary_failures": list(checked.failures)}


def _ask(client: GenRMClient, examples: Sequence[JudgeExample]) -> list[bool | None]:
    results = client.judge_many([_request(example, (example.criterion,)) for example in examples], fresh=True)
    return [result.criteria[0].met if result.criteria else None for result in results]


def _request(example: JudgeExample, criteria: Sequence[Criterion]) -> JudgeRequest:
    # Verdicts are measured here, not scores: a pitfall alone would be no rubric.
    plain = tuple(replace(criterion, importance="essential") for criterion in criteria)
    return JudgeRequest(example.question, example.answer, plain)


def _length(client: GenRMClient, examples: Sequence[JudgeExample], met: Sequence[bool | None]) -> dict[str, Any]:
    """What sentences that say nothing, put behind the answer, change where they do not change the truth."""
    pairs = []
    for example, verdict in zip(examples, met, strict=True):
        language = "en" if example.question.isascii() else "zh"
        padded = replace(example, answer=f"{example.answer} {PADDING[language]}".strip())
        spec = example.criterion.truth or {}
        if example.answer and check_criterion(spec, padded.answer) == example.met and spec.get("kind") == "contains":
            pairs.append((padded, verdict))
    pairs = pairs[:SUBSET]
    after = _ask(client, [padded for padded, _ in pairs])
    return {
        "n": len(pairs),
        "changed": _share([a != b for a, (_, b) in zip(after, pairs, strict=True)]),
        "met_before": _share([b is True for _, b in pairs]),
        "met_after": _share([a is True for a in after]),
        "agreement_after": _share([a == padded.met for a, (padded, _) in zip(after, pairs, strict=True)]),
    }


def _repeat(client: GenRMClient, examples: Sequence[JudgeExample], met: Sequence[bool | None]) -> dict[str, Any]:
    """How often the same question gets another verdict with another seed."""
    again = [_with_seed(client, repeat, examples) for repeat in range(1, REPEATS + 1)]
    changed = [len({first, *others}) > 1 for first, *others in zip(met, *again, strict=True)]
    return {"n": len(changed), "repeats": 1 + REPEATS, "changed": _share(changed)}


def _with_seed(client: GenRMClient, repeat: int, examples: Sequence[JudgeExample]) -> list[bool | None]:
    usual = client.sampling
    client.sampling = replace(usual, seed=usual.seed + 1000 * repeat)
    try:
        return _ask(client, examples)
    finally:
        client.sampling = usual


def _order(client: GenRMClient, examples: Sequence[JudgeExample]) -> dict[str, Any] | None:
    """What the place of a criterion in a call does to its verdict; None where each call has one criterion."""
    if client.criteria_per_call == 1:
        return None
    usual, by_place, changed = client.sampling, dict[int, list[tuple[bool | None, bool]]](), list[bool]()
    asked = [_request(e, e.rubric) for e in examples if len(e.rubric) > 1 and e.answer]
    rounds: list[list[RubricResult]] = []
    try:
        for repeat in range(1 + REPEATS):
            client.sampling = replace(usual, seed=usual.seed + 1000 * repeat)
            rounds.append(client.judge_many(asked, fresh=True))
            for request, result in zip(asked, rounds[-1], strict=True):
                for place, number in _places(client, request):
                    if result.criteria and result.criteria[number].votes:
                        truth = check_criterion(request.criteria[number].truth or {}, request.answer)
                        by_place.setdefault(place, []).append((result.criteria[number].votes[0], truth))
    finally:
        client.sampling = usual
    for request, *results in zip(asked, *rounds, strict=True):
        for number in range(len(request.criteria)):
            changed.append(len({r.criteria[number].met if r.criteria else None for r in results}) > 1)
    return {
        "n": len(changed),
        "changed": _share(changed),
        "met_by_place": {str(k): _share([m is True for m, _ in v]) for k, v in sorted(by_place.items())},
        "agreement_by_place": {str(k): _share([m == t for m, t in v]) for k, v in sorted(by_place.items())},
    }


def _places(client: GenRMClient, request: JudgeRequest) -> list[tuple[int, int]]:
    """(place in its call, number of the criterion) of the first vote."""
    numbers = range(len(request.criteria))
    calls = batches_of_criteria(request, numbers, client.criteria_per_call, 0, client.sampling.seed)
    return [(place, number) for call in calls for place, number in enumerate(call, 1)]


def _share(hits: Sequence[bool]) -> float | None:
    return sum(hits) / len(hits) if hits else None


def print_calibration(report: Mapping[str, Any], console: Console) -> None:
    """The report as a table."""
    table = Table("measured", "value", "of", "what it says")
    n, cost, length, repeat, order = (report[key] for key in ("n", "cost", "length", "repeat", "order"))
    rows: list[tuple[str, Any, Any, str]] = [("agreement", report["agreement"], n, "verdicts that are true")]
    rows += [(f"  {kind}", share, "", "") for kind, share in report["by_kind"].items()]
    rows += [
        ("wrongly met", report["wrongly_met"], n, "of what is not met: paid for nothing"),
        ("wrongly not met", report["wrongly_not_met"], n, "of what is met"),
        ("abstained", report["abstained"] / max(1, n), n, "no verdict: the sample is masked"),
        ("repeat variance", repeat["changed"], repeat["n"], f"another verdict among {repeat['repeats']} seeds"),
        ("length: changed", length["changed"], length["n"], "another verdict for idle sentences at the end"),
        ("length: met before", length["met_before"], length["n"], ""),
        ("length: met after", length["met_after"], length["n"], "above before: length is paid"),
    ]
    if order is not None:
        rows.append(("order: changed", order["changed"], order["n"], "another verdict in another order of criteria"))
        rows += [(f"  met at place {place}", share, "", "") for place, share in order["met_by_place"].items()]
    rows += [(f"canaries: {kind}", share, "", "right verdicts") for kind, share in report["canaries"].items()]
    for name, share, count, meaning in rows:
        table.add_row(name, "" if share is None else f"{share:.1%}", str(count), meaning)
    for name in ("seconds_per_verdict", "prompt_tokens_per_verdict", "completion_tokens_per_verdict"):
        table.add_row(name.replace("_", " "), f"{cost[name]:.3g}", "", "")
    console.print(table)
    for failure in report["canary_failures"]:
        console.print(f"canary failed: {failure}", markup=False, soft_wrap=True)
