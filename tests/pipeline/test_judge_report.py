"""The calibration report finds in a scripted judge the faults that were put into it, and none in a true one."""

import io
import json

import pytest
from rich.console import Console

from pipeline.judge_report import PADDING, calibrate, print_calibration
from rewards.instructions import check_criterion
from rewards.judge.canaries import BUILT_IN
from rewards.judge.client import GenRMClient, Sampling
from specialists.judge_data import judge_example
from tests.rewards.scripted_judge import Judge, answer_of, reply

EXAMPLES = [judge_example(number, "heldout") for number in range(36)]
TRUTH = {c.text: c.truth for e in EXAMPLES for c in e.rubric}


def verdict(text, answer):
    """The truth of the lessons' criteria; of the canaries' own ones only the words are known here."""
    spec = TRUTH.get(text)
    met = spec is not None and check_criterion(spec, answer)
    return met, (answer.split() or [""])[0] if met else ""


def true_judge(_, prompt):
    texts = prompt.rpartition("\nCriterion: ")[2].partition("\nReply ")[0].split("\n")
    answer = answer_of(prompt)
    if len(texts) == 1:
        return reply(*verdict(texts[0], answer))
    found = [verdict(text.partition(". ")[2], answer) for text in texts]
    return "{" + ",".join(f'"{n}":{reply(*one)}' for n, one in enumerate(found, 1)) + "}"


def report_on(script, count=36, **more):
    with Judge(script) as judge:
        settings = {"votes": 1, "sampling": Sampling(temperature=0.0), **more}
        client = GenRMClient(judge.url, "judge", timeout=5.0, max_retries=0, **settings)
        return calibrate(client, EXAMPLES[:count], BUILT_IN[:20])


def test_a_true_judge_has_no_bias():
    report = report_on(true_judge)
    assert report["agreement"] == 1.0 and report["abstained"] == 0 and set(report["by_kind"].values()) == {1.0}
    assert report["wrongly_met"] == report["wrongly_not_met"] == 0.0
    assert report["repeat"] == {"n": 36, "repeats": 3, "changed": 0.0}
    assert report["length"]["n"] > 5 and report["length"]["changed"] == 0.0
    assert report["length"]["met_before"] == report["length"]["met_after"]
    assert report["order"] is None, "one criterion per call has no order"
    assert report["cost"]["seconds_per_verdict"] > 0
    json.dumps(report, allow_nan=False)


def test_a_judge_that_pays_for_length_is_seen():
    def script(number, prompt):
        padded = any(text in prompt for text in PADDING.values())
        return reply(True, answer_of(prompt)[:5].strip()) if padded else true_judge(number, prompt)

    length = report_on(script)["length"]
    assert length["met_after"] > length["met_before"] + 0.3 and length["changed"] > 0.3


def test_a_judge_that_draws_its_verdicts_is_seen():
    def script(number, prompt):
        return reply(number * 7919 % 11 < 5, answer_of(prompt)[:5].strip())

    report = report_on(script, concurrency=1)
    assert report["repeat"]["changed"] > 0.3 and 0.2 < report["agreement"] < 0.8


def test_a_judge_that_favours_the_first_place_is_seen():
    def script(number, prompt):
        record = json.loads(true_judge(number, prompt))
        if "1" in record:
            record["1"] = {"reason": "first", "evidence": answer_of(prompt)[:3].strip(), "met": True}
        return json.dumps(record)

    true, biased = (report_on(judge, 14, criteria_per_call=3)["order"] for judge in (true_judge, script))
    assert true["changed"] == 0.0 and set(true["agreement_by_place"].values()) == {1.0}
    assert biased["changed"] > 0.1
    assert biased["met_by_place"]["1"] == 1.0 > biased["met_by_place"]["2"]


def test_abstentions_are_counted_and_are_no_agreement():
    report = report_on(lambda *_: "I would rather not say.")
    asked = sum(bool(example.answer.strip(" .。，")) for example in EXAMPLES)
    assert asked - 2 <= report["abstained"] <= asked and report["agreement"] < 0.1


@pytest.mark.parametrize("per_call", [1, 3])
def test_the_table_says_it_all(per_call):
    out = io.StringIO()
    print_calibration(report_on(true_judge, 8, criteria_per_call=per_call), Console(file=out, width=120))
    for word in ("agreement", "contains", "wrongly met", "repeat variance", "length: changed", "canaries: good"):
        assert word in out.getvalue()
    assert ("met at place 2" in out.getvalue()) == (per_call == 3)
