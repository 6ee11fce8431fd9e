"""`pipeline rubrics` and `pipeline judge-report`: against a scripted server, through the command line."""

import json

import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.config.schema import DataConfig
from pipeline.data import load_tasks
from rewards.judge.reply import JudgeVerdict
from rewards.rubric_writer import TEMPLATE_SHA256
from tests.rewards.scripted_judge import Judge
from tests.rewards.test_rubric_writer import FAULT, row, rubric

GOOD = rubric(row(), FAULT)


def pipeline(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def prompts(tmp_path):
    file = tmp_path / "prompts.jsonl"
    texts = ["Capital of France?", "Capital of Italy?", "Capital of France?", "Write a poem."]
    lines = [json.dumps({"prompt": text, "difficulty": n + 1}) for n, text in enumerate(texts)]
    file.write_text("\n".join([*lines, "not json", '{"difficulty": 1}']))
    return file


def rows(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_rubrics_are_written_kept_and_gone_on_with(prompts, tmp_path):
    out = tmp_path / "tasks.jsonl"
    poem_works = False

    def script(_, prompt):
        return "Sorry." if "poem" in prompt and not poem_works else GOOD

    with Judge(script) as judge:
        words = ("rubrics", "--data", prompts, "--out", out, f"judge.base_url={judge.url}/v1", "judge.model=writer")
        first = pipeline(*words)
        assert first.exit_code == 4 and "2 rubrics written" in first.output
        for text in ("line 5: not a line of JSON", "line 6: no prompt", "line 4: no rubric in 3 replies"):
            assert text in first.output
        assert len(judge.prompts) == 5 and sorted({body["seed"] for body in judge.bodies}) == [0, 1, 2]
        with out.open("a") as file:
            file.write('{"prompt": "torn')
        poem_works = True
        second = pipeline(*words)
        assert "1 rubrics written, 3 were there" in second.output and len(judge.prompts) == 6
    found = rows(out)
    assert [one["prompt"] for one in found] == ["Capital of France?", "Capital of Italy?", "Write a poem."]
    origin = found[0]["provenance"]["rubric"]
    assert origin["model"] == "writer" and origin["template_sha256"] == TEMPLATE_SHA256
    assert origin["sampling"] == {"temperature": 0.0, "max_tokens": 2048, "seed": 0}
    assert len(origin["prompt_sha256"]) == 64 and origin["date"].endswith("+00:00")


def test_what_it_writes_is_data_for_a_general_domain(prompts, tmp_path):
    out = tmp_path / "tasks.jsonl"
    with Judge(lambda *_: GOOD) as judge:
        pipeline("rubrics", "--data", prompts, "--out", out, f"judge.base_url={judge.url}/v1")
    tasks = load_tasks(DataConfig(train=str(out), heldout=None), "letters", "train")
    assert tasks and all([c.importance for c in task.rubric] == ["essential", "pitfall"] for task in tasks)


def test_another_model_writes_anew_and_a_server_that_is_down_loses_nothing(prompts, tmp_path):
    out = tmp_path / "tasks.jsonl"
    with Judge(lambda *_: GOOD) as judge:
        base = ("rubrics", "--data", prompts, "--out", out, f"judge.base_url={judge.url}/v1")
        pipeline(*base, "judge.model=one")
        assert "0 rubrics written, 4 were there" in pipeline(*base, "judge.model=one").output
        assert "3 rubrics written, 1 were there" in pipeline(*base, "judge.model=two").output
    kept = out.read_text()
    down = pipeline("rubrics", "--data", prompts, "--out", out, "judge.base_url=http://127.0.0.1:9/v1",
                    "judge.model=three", "judge.timeout_s=0.1")  # fmt: skip
    assert down.exit_code == 4 and "gave no reply: ConnectError" in down.output and out.read_text() == kept


def test_usage_errors_are_sentences(prompts, tmp_path):
    for words, text in (
        (("--data", prompts), "judge.base_url is not set"),
        (("--data", "nowhere.jsonl", "judge.base_url=http://h"), "no such file"),
        (("--data", prompts, "--column", "question", "judge.base_url=http://h"), "--column"),
    ):
        result = pipeline("rubrics", "--out", tmp_path / "x.jsonl", *words)
        assert result.exit_code == 2 and text in result.output, result.output


def test_messages_are_a_prompt_too(tmp_path):
    file, out = tmp_path / "chats.jsonl", tmp_path / "tasks.jsonl"
    said = (("user", "Hi"), ("assistant", "Yes?"), ("user", "Go"))
    chat = [{"role": role, "content": text} for role, text in said]
    file.write_text(json.dumps({"messages": chat}))
    with Judge(lambda *_: GOOD) as judge:
        assert pipeline("rubrics", "--data", file, "--out", out, f"judge.base_url={judge.url}").exit_code == 0
        assert "user: Hi\n\nassistant: Yes?\n\nuser: Go" in judge.prompts[0]


def test_the_judge_report_of_an_endpoint(tmp_path):
    verdict = JudgeVerdict("no", "", False).to_text()
    with Judge(lambda *_: verdict) as judge:
        words = ("judge-report", "--run", tmp_path / "run", "--examples", 8, f"judge.base_url={judge.url}/v1")
        table = pipeline(*words)
        assert table.exit_code == 0 and "agreement" in table.output and "canary failed: good" in table.output
        report = json.loads((tmp_path / "run" / "judge" / "calibration.json").read_text())
        assert report["n"] == 8 and report["wrongly_met"] == 0.0 and report["wrongly_not_met"] == 1.0
        assert json.loads(pipeline(*words, "--json").output)["canaries"]["good"] == 0.0
    assert pipeline("judge-report", "--run", tmp_path / "none").exit_code == 2
