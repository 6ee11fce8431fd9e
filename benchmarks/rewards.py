"""Grades per second and latency of every grader, beside Math-Verify in a process pool, TRL's `accuracy_reward` and a
plain subprocess: `python -m benchmarks.rewards [--seconds 2] [--write]`.

Contenders of one kind of input grade the same inputs, taking turns, in one run. Then: which of them pay right answers
and refuse wrong ones (pairs with a label), and what one input that never ends does to each (in processes of their own,
bounded). `--write` stores benchmarks/results/rewards_cpu.json. No torch is used; the device of the result is the CPU.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.provenance import provenance, result_path, write_json
from benchmarks.reward_hangs import TRIALS, trial
from benchmarks.reward_inputs import (
    CHINESE,
    ENGLISH,
    EXPRESSION,
    FUNCTION,
    FUNCTION_SOURCE,
    FUNCTION_TESTS,
    HONEST,
    LITERAL,
    MIXED,
    PROGRAM,
    PROGRAM_TESTS,
    WRONG,
)
from benchmarks.reward_rivals import MathVerifyPool, PlainSubprocess, trl_grade
from pipeline.audit.cases import MathSubject
from pipeline.audit.honest_math import CASES
from pipeline.machine import device_name
from rewards.code import grade_function, grade_program
from rewards.extract import FormatError, boxed_answer
from rewards.graders import grade_answer
from rewards.instructions import check_criterion
from rewards.language import language_consistency
from rewards.length import length_factors
from rewards.math.grade import grade_math
from rewards.sandbox import SandboxWorker

Pair = tuple[str, str]
POOL_WORKERS = 2


@dataclass(frozen=True)
class Contender:
    """`grade` makes one grade; `together`, where it is given, makes one of each input as fast as the contender can."""

    name: str
    grade: Callable[[Any], object]
    together: Callable[[Sequence[Any]], object] | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each contender and kind of input (default 2)")
    parser.add_argument("--write", action="store_true", help="store the result")
    words = parser.parse_args()
    load = os.getloadavg()
    pool, plain = MathVerifyPool(POOL_WORKERS), PlainSubprocess()
    with SandboxWorker() as worker:
        speed = [
            row
            for kind, inputs, contenders in _kinds(worker, pool, plain)
            for row in take_turns(kind, inputs, contenders, words.seconds)
        ]
        agreement = [judged(name, grade, notations()) for name, grade in _judges(worker, pool)]
        tier = worker.tier
    pool.close()
    plain.close()
    hangs = {name: trial(name) for name in TRIALS}
    result = {
        **provenance("benchmarks.rewards"),
        "machine": f"{device_name()}, {len(os.sched_getaffinity(0))} CPUs",
        "load": {"before": load, "after": os.getloadavg()},
        "sandbox": tier,
        "pool_workers": POOL_WORKERS,
        "speed": speed,
        "agreement": agreement,
        "hangs": hangs,
    }
    _show(result)
    if words.write:
        path = result_path("rewards")
        write_json(path, result)
        print(f"written to {path}")


def _kinds(
    worker: SandboxWorker, pool: MathVerifyPool, plain: PlainSubprocess
) -> list[tuple[str, Sequence[Any], list[Contender]]]:
    """What is graded and by whom. Ours first in each list."""

    def ours(pair: Pair) -> object:
        return grade_math(*pair, worker)

    def boxed(pair: Pair) -> Pair:
        return rf"\boxed{{{pair[0]}}}", pair[1]

    rivals = [
        Contender(
            f"Math-Verify, pool of {POOL_WORKERS}",
            lambda pair: pool.grade(boxed(pair)),
            lambda pairs: pool.grade_all([boxed(pair) for pair in pairs]),
        ),
        Contender("TRL accuracy_reward", lambda pair: trl_grade(boxed(pair))),
    ]
    math = [Contender("Polymath", ours), *rivals]
    code = PROGRAM, PROGRAM_TESTS
    call = FUNCTION_SOURCE, FUNCTION_TESTS
    answers = [
        ("exact", r"\boxed{The Eiffel Tower.}", "the Eiffel tower"),
        ("choice", r"\boxed{(B)}", "B"),
        ("set", r"\boxed{c, a, b}", ["a", "b", "c"]),
        ("qa", r"\boxed{in Paris}", ["Paris", "in Paris"]),
        ("f1", r"\boxed{Gustave Eiffel in 1889}", ["Gustave Eiffel, 1889"]),
        ("json", '{"a": [1, 2], "b": null}', {"a": [1, 2], "b": None}),
        ("instructions", ENGLISH, [{"kind": "min_words", "count": 50}, {"kind": "sentences", "min": 3}]),
    ]
    lengths = [(n * 37) % 900 + 20 for n in range(16)]
    own = lambda grade: [Contender("Polymath", grade)]  # noqa: E731
    return [
        ("math: values", LITERAL, math),
        ("math: expressions", EXPRESSION, math),
        ("math: functions (child)", FUNCTION, math),
        (
            f"code: program, {len(PROGRAM_TESTS)} tests",
            [code],
            [
                Contender("Polymath", lambda item: grade_program(item[0], item[1], worker)),
                Contender("plain subprocess, 2 threads", lambda item: plain.program(*item)),
            ],
        ),
        (
            f"code: function, {len(FUNCTION_TESTS)} calls",
            [call],
            [
                Contender("Polymath", lambda item: grade_function(item[0], "f", item[1], worker)),
                Contender("plain subprocess", lambda item: plain.function(*item)),
            ],
        ),
        *(
            (f"answer: {kind}", [(kind, text, truth)], own(lambda item: grade_answer(*item)))
            for kind, text, truth in answers
        ),
        ("language: 1,200 characters", [ENGLISH, CHINESE, MIXED], own(lambda text: language_consistency(text, "en"))),
        (
            "language: en or de",
            [ENGLISH],
            own(lambda text: language_consistency(text, "en", ("en", "de"))),
        ),
        (
            "length: a group of 16",
            [lengths],
            own(lambda group: length_factors(group, [True, False, True, True] * 4, 1000)),
        ),
        (
            "rubric: one check",
            [{"kind": "contains", "text": "table", "times": 2}, {"kind": "max_words", "count": 500}],
            own(lambda spec: check_criterion(spec, ENGLISH)),
        ),
    ]


def take_turns(
    kind: str, inputs: Sequence[Any], contenders: Sequence[Contender], seconds: float
) -> list[dict[str, Any]]:
    """Rows of one kind. In each round every contender grades every input once; the first round is not counted."""
    times: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    rates: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    end = time.perf_counter() + seconds * len(contenders)
    rounds = 0
    while rounds < 3 or time.perf_counter() < end:
        for contender in contenders:
            spent = []
            for one in inputs:
                started = time.perf_counter()
                contender.grade(one)
                spent.append(time.perf_counter() - started)
            if contender.together is not None:
                started = time.perf_counter()
                contender.together(inputs)
                rate = len(inputs) / (time.perf_counter() - started)
            else:
                rate = len(inputs) / sum(spent)
            if rounds:
                times[contender.name] += spent
                rates[contender.name].append(rate)
        rounds += 1
    return [
        {
            "kind": kind,
            "contender": name,
            "grades": len(spent),
            "grades_per_s": statistics.median(rates[name]),
            "median_ms": 1e3 * statistics.median(spent),
            "p95_ms": 1e3 * sorted(spent)[int(0.95 * (len(spent) - 1))],
        }
        for name, spent in times.items()
    ]


def _judges(worker: SandboxWorker, pool: MathVerifyPool) -> list[tuple[str, Callable[[Pair], bool | None]]]:
    def ours(pair: Pair) -> bool | None:
        answer = boxed_answer(pair[0])
        return False if isinstance(answer, FormatError) else grade_math(answer, pair[1], worker).correct

    return [("Polymath", ours), ("Math-Verify", pool.grade), ("TRL accuracy_reward", trl_grade)]


def notations() -> list[Pair]:
    """The audit's right answers, each as the text after the thinking: many notations of each truth."""
    subjects = [case.subject for case in CASES if isinstance(case.subject, MathSubject)]
    return [(subject.completion.rpartition("</think>")[2], subject.truth) for subject in subjects]


def judged(name: str, grade: Callable[[Pair], bool | None], more: Sequence[Pair] = ()) -> dict[str, Any]:
    """What a contender says of the labelled pairs, and how many of `more` right answers it refuses. None (no opinion)
    is neither paid nor refused."""
    right, wrong, notated = ([grade(pair) for pair in pairs] for pairs in (HONEST, WRONG, more))
    return {
        "contender": name,
        "right": len(right),
        "right_refused": [pair for pair, said in zip(HONEST, right, strict=True) if said is False],
        "wrong": len(wrong),
        "wrong_paid": [pair for pair, said in zip(WRONG, wrong, strict=True) if said],
        "notations": len(notated),
        "notations_refused": notated.count(False),
        "no_opinion": (right + wrong + notated).count(None),
    }


def _show(result: dict[str, Any]) -> None:
    print(f"{result['machine']}; sandbox {result['sandbox']}; load {result['load']['before'][0]:.1f} before the run")
    print(f"\n{'input':28} {'contender':30} {'grades/s':>10} {'median ms':>10} {'p95 ms':>8}")
    for row in result["speed"]:
        figures = f"{row['grades_per_s']:10,.0f} {row['median_ms']:10.3f} {row['p95_ms']:8.3f}"
        print(f"{row['kind']:28} {row['contender']:30} {figures}")
    print(f"\n{'contender':24} {'right refused':>14} {'wrong paid':>11} {'notations refused':>18} {'no opinion':>11}")
    for row in result["agreement"]:
        refused = f"{len(row['right_refused'])} of {row['right']}"
        paid = f"{len(row['wrong_paid'])} of {row['wrong']}"
        notated = f"{row['notations_refused']} of {row['notations']}"
        print(f"{row['contender']:24} {refused:>14} {paid:>11} {notated:>18} {row['no_opinion']:>11}")
    print("\nan input that never ends, and the next good one")
    for name, said in result["hangs"].items():
        print(f"  {name:24} {said}")


if __name__ == "__main__":
    main()
