import io
import json
import random

import pytest
from rich.console import Console

from pipeline.plots import write_plots
from pipeline.report import (
    CHECKPOINTS,
    build_report,
    checks,
    domain_rate,
    mean_rate,
    print_table,
    summarize,
    summary,
    write_report,
)

RATES = {"base": 0.4, "sparsified": 0.38, "specialists": 0.8, "distilled": 0.74, "final": 0.79}


def cell(rate, n=200, tokens=12.0):
    return summarize(
        {"passed": i < round(rate * n), "tokens": tokens, "language_consistency": 1.0} for i in range(n)
    )


def evaluations(rates=RATES, domains=("math", "code"), n=200):
    return {
        name: {d: {"thinking": cell(rate + 0.05, n, 40.0), "direct": cell(rate - 0.05, n)} for d in domains}
        for name, rate in rates.items()
    }


def report(**changes):
    return build_report(evaluations(**changes), {"base": 100.0, "grpo": 65.0}, {"torch": "2.13.0"})


def shown(of, width=100):
    stream = io.StringIO()
    print_table(of, Console(file=stream, width=width))
    return stream.getvalue()


def test_a_cell_counts_what_was_judged():
    got = summarize(
        [
            {"passed": True, "tokens": 10, "language_consistency": 1.0},
            {"passed": False, "tokens": 20, "language_consistency": None},
            {"passed": None, "tokens": 99, "language_consistency": 0.0},
        ]
    )
    assert got.pop("ci95") == pytest.approx([0.0945, 0.9055], abs=1e-4)
    assert got == {"pass_rate": 0.5, "n": 2, "mean_tokens": 15.0, "language_consistency": 1.0, "invalid": 1}
    assert set(cell(0.5)) == {"pass_rate", "ci95", "n", "mean_tokens", "language_consistency"}
    assert summarize([])["ci95"] == [0.0, 1.0]


def test_the_report_has_its_form_and_is_written_whole(tmp_path):
    of = build_report(evaluations(), {"base": 1.0}, {"torch": "2.13.0"}, judge={"agreement": 0.9})
    path = write_report(tmp_path / "run", of)
    assert json.loads(path.read_text()) == json.loads(json.dumps(of))
    assert path == tmp_path / "run" / "report.json"
    assert list(of) == ["evaluate", "timings", "versions", "judge", "checks"]
    assert list(of["evaluate"]) == list(CHECKPOINTS)
    assert [file.name for file in path.parent.iterdir()] == ["report.json"]
    with pytest.raises(ValueError, match="unknown checkpoint 'finale'"):
        build_report({"finale": {}}, {}, {})


def test_means_are_over_modes_then_domains():
    of = report()
    assert domain_rate(of, "final", "math")[0] == pytest.approx(0.79)
    assert mean_rate(of, "final")[0] == pytest.approx(0.79)
    assert domain_rate(of, "final", "search") is None
    del of["evaluate"]["final"]["code"]
    assert mean_rate(of, "final") is None


def test_checks_compute_the_figures():
    got = checks(report())
    assert [check.value for check in got] == pytest.approx([42.0, 92.5, 98.75, -1.0, 200])
    assert all(check.ok for check in got)
    assert "(math)" in got[0].name  # the first of equals


@pytest.mark.parametrize(
    ("rates", "n", "failing"),
    [
        ({**RATES, "specialists": 0.57, "distilled": 0.56, "final": 0.56}, 200, 0),
        ({**RATES, "distilled": 0.67}, 200, 1),
        ({**RATES, "final": 0.755, "specialists": 0.8}, 200, 2),
        (RATES, 180, 4),
    ],
)
def test_a_check_fails_below_its_bar(rates, n, failing):
    assert [index for index, check in enumerate(checks(report(rates=rates, n=n))) if not check.ok] == [
        failing
    ]


def test_one_domain_can_fail_alone():
    of = evaluations()
    of["final"]["code"] = {"direct": cell(0.7)}
    got = checks(build_report(of, {}, {}))
    assert got[3].value == pytest.approx(-10)
    assert "(code)" in got[3].name
    assert got[3].ok is False


def test_what_was_not_measured_is_not_judged():
    got = checks(report(rates={"base": 0.4, "sparsified": 0.4}))
    assert [check.ok for check in got] == [None, None, None, None, True]
    assert all(check.ok is None for check in checks(build_report({}, {}, {})))


def test_the_table_shows_every_domain_and_what_changed():
    text = shown(report())
    for part in (
        "math",
        "specialist",
        "80 ±4  +42",
        "85 / 75",
        "thinking / direct",
        "mean",
        "✓ smallest gain",
    ):
        assert part in text
    assert max(len(line) for line in shown(report(), width=80).splitlines()) <= 80
    failing = shown(report(rates={**RATES, "final": 0.6}))
    assert "✗ final, % of the specialists' mean: 75, at least 95" in failing


def test_the_summary_says_it_in_words():
    assert summary(report()) == (
        "Specialists +42 points over the sparsified base (38 → 80 %). "
        "The distilled generalist has 92 % of the specialists' mean. "
        "The final model has 99 % of the specialists' mean. "
        "Answers of final take 40 tokens in thinking mode and 12 tokens in direct mode. "
        "The stages before evaluation took 2 min 45 s."
    )


def test_a_part_of_a_run_can_be_shown():
    text = shown(report(rates={"base": 0.4, "sparsified": 0.38}))
    assert "not measured" in text
    assert "distilled generalist" not in text
    assert shown(build_report({}, {}, {})) == "No checkpoint was evaluated.\n"


def events():
    draw = random.Random(0).random
    rows = [{"stage": "base", "domain": "base", "step": i, "loss": 5 / (1 + i)} for i in range(30)]
    for phase in ("warm-up", "sparse"):
        rows += [
            {"stage": "sparsify", "domain": phase, "step": i, "indexer_kl": 1 / (1 + i)} for i in range(9)
        ]
    for stage in ("specialists", "grpo"):
        for domain in ("math", "code", "search", "logic"):
            rows += [
                {"stage": stage, "domain": domain, "step": i, "reward": draw(), "tokens": 30 * draw()}
                for i in range(9)
            ]
    return rows


def test_all_pictures_are_drawn(tmp_path):
    layers = {"layers": [{"topk_mass": 0.9}, {"topk_mass": 0.8}]}
    of = build_report(
        evaluations(), {}, {}, sparsify={"untrained_indexer": layers, "dense": {}, "warmup": layers}
    )
    files = write_plots(tmp_path, of, events())
    assert [file.name for file in files] == [
        f"{name}.{suffix}"
        for name in ("pass_rate", "specialists", "grpo", "base")
        for suffix in ("png", "svg")
    ]
    assert all(file.stat().st_size > 5000 and file.parent == tmp_path / "plots" for file in files)


def test_pictures_of_missing_stages_are_left_out(tmp_path):
    assert write_plots(tmp_path, build_report({}, {}, {}), []) == []
    only = [event for event in events() if event["stage"] == "grpo"]
    assert {file.stem for file in write_plots(tmp_path, build_report({}, {}, {}), only)} == {"grpo"}
    few = [{"stage": "specialists", "domain": "math", "step": 0, "reward": 1.0}]
    assert {file.stem for file in write_plots(tmp_path, build_report({}, {}, {}), few)} == {"specialists"}


def test_a_table_of_few_tasks_says_that_it_proves_little():
    assert "mostly chance" in shown(report(n=16))
    assert "mostly chance" not in shown(report(n=200))
