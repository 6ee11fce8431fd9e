"""`pipeline audit-rewards`: what it finds, what it passes, what it writes."""

import json
import re
import textwrap
from pathlib import Path

import jsonschema
import pytest
from typer.testing import CliRunner

from pipeline.audit import own
from pipeline.audit.cases import AgentSubject, Case, Cut, InfrastructureSubject, JudgeSubject, MathSubject, call, script
from pipeline.audit.corpus import AREAS, all_cases
from pipeline.audit.policies import POLICIES
from pipeline.audit.workbench import Bench
from pipeline.cli import app
from rewards.extract import FormatError
from rewards.rubric import Criterion
from rewards.types import Verdict
from specialists import DOMAINS, get_domain
from specialists.base import Request

SCHEMA = json.loads(
    re.search(r"```json\n(.*?)```", (Path(__file__).parents[2] / "docs/audit.md").read_text(), re.DOTALL)[1]
)


@pytest.fixture(scope="module")
def bench():
    with Bench() as opened:
        yield opened


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Writes a module of the user's and stands beside it; a name of its own for each test. Few tasks, to be quick."""
    monkeypatch.setattr(own, "TASKS", 4)
    name = f"mine_{abs(hash(tmp_path))}"
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(source):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
        return name

    return write


def audit(*arguments):
    """The command's result and what it wrote as JSON, which must fit the documented schema."""
    result = CliRunner().invoke(app, ["audit-rewards", *arguments, "--json", "audit.json"], catch_exceptions=False)
    if result.exit_code not in (0, 1):
        return result, None
    record = json.loads(Path("audit.json").read_text())
    jsonschema.validate(record, SCHEMA)
    return result, record


def test_all_of_it_passes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result, record = audit()
    assert result.exit_code == 0, result.output
    summary = record["summary"]
    assert summary["exploits"] >= 250 and summary["exploits_paid"] == 0
    written = [case for case in record["cases"] if case["honest"] and "demonstration of" not in case["id"]]
    assert len(written) >= 500 and summary["false_negative_rate"] <= 0.01
    assert summary["policies"] == len(DOMAINS) * 2 * len(POLICIES) and summary["policies_paid"] == 0
    assert {area["area"] for area in record["areas"]} == set(AREAS)
    assert record["provenance"]["sandbox_tier"]


def test_every_case_has_a_name_of_its_own():
    ids = [case.id for case in all_cases()]
    assert len(set(ids)) == len(ids)


def test_a_broken_grader_is_found(tmp_path, monkeypatch):
    """A reader that takes the last of several boxes, as many do, is paid for the shotgun; the audit says so."""
    monkeypatch.chdir(tmp_path)

    def last_box(text):
        found = re.findall(r"\\boxed\{([^{}]*)\}", text)
        return found[-1] if found else FormatError("no_answer", "")

    monkeypatch.setattr("specialists.boxed.boxed_answer", last_box)
    result, record = audit("--case", "math/")
    assert result.exit_code == 1
    paid = [case for case in record["cases"] if not case["ok"] and not case["honest"]]
    assert paid and all(case["paid"] > 0 and case["sample"] for case in paid)
    assert paid[0]["id"] in result.output and "The audit failed." in result.output


def test_a_grader_that_refuses_what_is_right_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("specialists.math.grade_math", lambda *arguments: Verdict(False, "never"))
    result, record = audit("--case", "math/")
    assert result.exit_code == 1
    assert record["summary"]["exploits_paid"] == 0 and record["summary"]["false_negative_rate"] > 0.9


def test_a_grader_that_raises_is_found(bench, monkeypatch):
    def broken(*arguments):
        raise RecursionError("too deep")

    monkeypatch.setattr("specialists.math.grade_math", broken)
    paid = bench.pay(Case("any", "math", "zero", MathSubject("1 + 1?", "2", r"\boxed{3}")))
    assert paid.value is None and paid.error == "RecursionError: too deep"


@pytest.mark.parametrize(
    ("payment", "held"),
    [("zero", (0.0, -1.0, None)), ("invalid", (None,)), ("floor", (0.3, 0.0, -1.0, None)), ("paid", (0.5, 1.0))],
)
def test_what_a_case_may_get(payment, held):
    case = Case("any", "math", payment, MathSubject("", "", ""), floor=0.3)
    values = (0.0, -1.0, 0.3, 0.31, 0.5, 1.0, None)
    assert [value for value in values if case.holds(value)] == [value for value in values if value in held]


def test_a_policy_reads_what_its_tools_answered(bench):
    """The results that a scripted policy sees, taken from the tokens, are what the environment said."""
    seen = []

    def policy(task, results):
        seen.append(tuple(results))
        return (call("view", path="calc.py"), call("nothing"), "<tool_call>oops</tool_call>", "Done.")[len(results)]

    task = get_domain("agentic_code").generate(Request(3, "train", "direct"))
    attempt = bench.play(task, policy)
    assert seen[-1] == attempt.tool_results and len(attempt.tool_results) == 3
    assert attempt.tool_results[0].startswith("1 ") and attempt.tool_results[2].startswith("error:")
    assert attempt.finished and attempt.final == "Done."


def test_a_turn_that_is_cut_did_not_end(bench):
    task = get_domain("math").generate(Request(3, "train", "direct"))
    assert bench.play(task, script(Cut(r"\boxed{1}"))).stop_reason == "length"
    assert bench.play(task, script(Cut(""))).stop_reason == "length"
    ended_early = bench.play(task, script("one<|end|>two"))
    assert ended_early.finished and ended_early.completions == ("one",)


def test_a_judge_that_fails_gives_invalid(bench):
    criterion = (Criterion("kind", "is kind"),)
    paid = bench.pay(Case("any", "judge", "invalid", JudgeSubject("Greet.", "Hello.", criterion, lambda body: 500)))
    assert paid.value is None and paid.error is None and "500" in paid.reason


def test_an_exception_of_a_provoked_failure_is_no_invalid(bench):
    def provoke(workbench):
        raise OSError("disk full")

    paid = bench.pay(Case("any", "infrastructure", "invalid", InfrastructureSubject(provoke)))
    assert paid.error == "OSError: disk full"


def test_a_general_domain_is_paid_by_what_is_true(bench):
    empty = bench.pay(Case("any", "judge", "zero", AgentSubject("writing", script(""), seed=5)))
    assert empty.value == 0.0 and empty.error is None


GAMEABLE = """
    import random, re, time

    def strict(prompts, completions, answer, **columns):
        return [float(c[0]["content"].strip() == "\\\\boxed{%s}" % a) for c, a in zip(completions, answer)]

    def contains(prompts, completions, answer, **columns):
        return [float(a in c[0]["content"]) for c, a in zip(completions, answer)]

    def executes(prompts, completions, answer, **columns):
        found = [re.search(r"boxed{(.*)}", c[0]["content"]) for c in completions]
        return [float(bool(m) and str(eval(m[1])) == a) for m, a in zip(found, answer)]

    def short(prompts, completions, **columns):
        return [0.0]

    def nan(prompts, completions, **columns):
        return [float("nan") for _ in completions]

    def flaky(prompts, completions, **columns):
        return [random.random() * 1e-9 - 1.0 for _ in completions]

    def placed(prompts, completions, **columns):
        return [-float(i) for i, _ in enumerate(completions)]

    def hangs(prompts, completions, **columns):
        time.sleep(5)
"""


@pytest.mark.parametrize(
    ("function", "failed"),
    [
        ("strict", set()),
        ("contains", set()),
        ("executes", {"raises on no text", "executes no text"}),
        ("short", {"one value per completion", "says the same twice"}),
        ("nan", {"gives finite numbers"}),
        ("flaky", {"says the same twice"}),
        ("placed", {"does not depend on the order"}),
    ],
)
def test_own_reward(mine, function, failed):
    result, record = audit("--reward", f"{mine(GAMEABLE)}:{function}")
    compared, verdicts = "pays the truth more than anything else", {p["name"]: p["ok"] for p in record["probes"]}
    assert verdicts[compared] == (function == "strict") or function == "flaky"
    assert {name for name, ok in verdicts.items() if not ok} - {compared} == failed
    assert result.exit_code == (0 if function == "strict" else 1)
    paid = {row["policy"] for row in record["policies"] if not row["ok"]}
    assert ("the truth denied" in paid) == (function == "contains")


def test_own_reward_that_hangs_is_left(mine, monkeypatch):
    monkeypatch.setattr(own, "DEADLINE_S", 0.3)
    result, record = audit("--reward", f"{mine(GAMEABLE)}:hangs")
    assert result.exit_code == 1 and len(record["policies"]) == 1
    assert "no result within 0.3 s" in record["policies"][0]["errors"][0]


def test_own_reward_on_own_data(mine, tmp_path):
    words = ("ant", "bee", "cat", "dog", "elk", "fox", "gnu", "hen")
    rows = [{"asked": f"Say {word}.", "answer": word} for word in words]
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    name = mine(GAMEABLE)
    result, record = audit("--reward", f"{name}:strict", "--data", "tasks.jsonl", "--column", "prompt=asked")
    assert result.exit_code == 0, result.output
    result, record = audit("--reward", f"{name}:contains", "--data", "tasks.jsonl", "--column", "prompt=asked")
    assert result.exit_code == 1
    assert "echo of the prompt" in {row["policy"] for row in record["policies"] if not row["ok"]}


DOMAIN = """
    from rewards.types import Verdict
    from specialists.agentic_search import AgenticSearchDomain
    from specialists.math import Math

    class Good(Math):
        name = "good"

    class Gameable(Math):
        name = "gameable"

        def grade(self, attempt, sandbox):
            return Verdict(attempt.task.answer in attempt.final, "in it")

    class World:
        def __init__(self, world):
            self.world = world

        def call(self, name, arguments):
            return self.world.call(name, {**arguments, "id": arguments["id"]} if name == "open" else arguments)

        def state(self):
            return self.world.state()

    class Raises(AgenticSearchDomain):
        name = "raises"

        def environment(self, task, sandbox):
            return World(super().environment(task, sandbox))

    class Nothing:
        name = "nothing"

    class NoTasks(Math):
        name = "none"

        def generate(self, request):
            raise KeyError(request.mode)
"""


def test_own_environment(mine):
    name = mine(DOMAIN)
    result, record = audit("--environment", f"{name}:Good")
    assert result.exit_code == 0, result.output
    assert record["guess_rates"] and all(probe["ok"] for probe in record["probes"])
    result, record = audit("--environment", f"{name}:Gameable")
    assert result.exit_code == 1 and "all candidates" in result.output
    result, record = audit("--environment", f"{name}:Raises")
    assert result.exit_code == 1
    assert "direct: bears senseless tool calls" in {probe["name"] for probe in record["probes"] if not probe["ok"]}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--area", "maths"], "There is no area 'maths'"),
        (["--case", "no such case"], "No case fits"),
        (["--reward", "nowhere:f"], "cannot import"),
        (["--reward", "json:dumps", "--environment", "json:dumps"], "two targets"),
        (["--environment", "MINE:Nothing"], "has no kind, families"),
        (["--environment", "MINE:NoTasks"], "generate raised KeyError"),
        (["--environment", "MINE:Missing"], "has no class 'Missing'"),
        (["--data", "tasks.jsonl"], "there is no --reward"),
        (["--column", "prompt=asked"], "there is no --data"),
        (["--reward", "MINE:World", "--data", "nowhere.jsonl", "--column", "prompt"], "expected FIELD=NAME"),
        (["--floor", "0.5"], "built-in floors are fixed"),
        (["--reward", "MINE:World", "--data", "nowhere.jsonl"], "nowhere.jsonl"),
    ],
)
def test_what_can_not_be_done_is_told(mine, arguments, told):
    name = mine(DOMAIN)
    result, _ = audit(*[argument.replace("MINE", name) for argument in arguments])
    assert result.exit_code == 2
    assert told in result.stderr
