"""The judge's server: a reply does not depend on what else is under way, and the judge is never the policy."""

import socket
from dataclasses import replace
from types import SimpleNamespace

import httpx
import pytest
import torch

from model import DeepseekForCausalLM, save_checkpoint
from model.tokenizer import train_tokenizer
from pipeline.config import ConfigError, load_config
from pipeline.errors import StageError
from pipeline.grader import judge_client
from pipeline.judge import JudgeServer, _reached_at
from pipeline.runs import Artifact
from pipeline.stages.common import _refuse_policy_as_judge, free_port
from rewards.judge.client import JudgeRequest
from specialists.judge_data import judge_example
from tests.model.tiny_models import dense_config


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A judge that has learned nothing: what it writes hangs on the last bits as much as that of any."""
    folder = tmp_path_factory.mktemp("judge") / "checkpoint"
    lessons = [judge_example(number, "train") for number in range(40)]
    tokenizer = train_tokenizer([text for e in lessons for text in (e.messages[-1]["content"], e.target)], 400)
    torch.manual_seed(0)
    model = DeepseekForCausalLM(dense_config(vocab_size=len(tokenizer), max_position_embeddings=512))
    with torch.no_grad():
        model.lm_head.weight.mul_(20)
    save_checkpoint(model, tokenizer, folder)
    return folder


@pytest.fixture
def server(checkpoint):
    opened = JudgeServer(str(checkpoint), "judge", "cpu", 1, free_port(), "127.0.0.1")
    yield opened
    opened.close()


def body_of(number, temperature=1.0):
    example = judge_example(number, "heldout")
    return {"messages": list(example.messages), "temperature": temperature, "max_tokens": 12, "seed": number}


def texts(server, bodies):
    """The replies to requests that arrive together."""
    waiting = [server._enqueue(body) for body in bodies]
    return [request.answer.result(60)[0] for request in waiting]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_reply_is_the_same_alone_in_company_and_in_other_company(server, temperature):
    bodies = [body_of(number, temperature) for number in range(16)]
    together = texts(server, bodies)
    assert len(set(together)) > 8
    assert [texts(server, [body])[0] for body in bodies] == together
    assert texts(server, bodies[::-1])[::-1] == together
    assert [text for body in range(0, 16, 5) for text in texts(server, bodies[body : body + 5])] == together
    assert texts(server, [*bodies[:3], *(body_of(n, 0.5) for n in range(50, 60))])[:3] == together[:3]


def test_the_arithmetic_is_double_precision_on_a_cpu(server):
    """In single precision the same rows have other bits in another batch; that is what this avoids."""
    assert server.engine.model.dtype == torch.float64


def test_it_speaks_the_protocol(server):
    reply = httpx.post(f"{server.url()}/chat/completions", json=body_of(3), timeout=60).json()
    assert reply["choices"][0]["message"]["role"] == "assistant"
    assert reply["usage"]["total_tokens"] == reply["usage"]["prompt_tokens"] + reply["usage"]["completion_tokens"]
    assert httpx.post(f"{server.url()}/chat/completions", json={"messages": 3}, timeout=60).status_code == 400
    too_long = {"messages": [{"role": "user", "content": "x " * 2000}]}
    assert "context" in httpx.post(f"{server.url()}/chat/completions", json=too_long, timeout=60).text


def test_a_judge_that_learned_nothing_abstains_through_the_real_client(server):
    config, _ = load_config("smoke")
    client = judge_client(config, server.url())
    example = judge_example(1, "heldout")
    (result,) = client.judge_many([JudgeRequest(example.question, example.answer, (example.criterion,))])
    client.close()
    assert result.score is None and "not the JSON" in result.invalid_reason
    assert client.usage.completion_tokens > 0


def test_it_listens_where_it_is_told(checkpoint):
    server = JudgeServer(str(checkpoint), "judge", "cpu", 1, port := free_port(), "0.0.0.0")
    try:
        assert server.url() == f"http://{_reached_at('0.0.0.0')}:{port}/v1"
        assert httpx.get(f"{server.url()}/models", timeout=10).json()["data"][0]["id"] == "judge"
        assert _reached_at("127.0.0.1") == "127.0.0.1" and socket.inet_aton(_reached_at("0.0.0.0"))
    finally:
        server.close()


def test_the_judge_is_not_the_policy_unless_configured():
    config, _ = load_config("smoke")
    judge, policy = (Artifact(f"{name}/checkpoint", "checkpoint", name) for name in ("judge", "policy"))

    def context(found):
        return SimpleNamespace(config=config, inputs={"judge": {"checkpoint": judge}, "distill": {"checkpoint": found}})

    _refuse_policy_as_judge(context(policy))
    with pytest.raises(StageError, match="same weights as the policy's"):
        _refuse_policy_as_judge(context(replace(policy, sha256="judge")))
    config.judge.may_be_policy = True
    _refuse_policy_as_judge(context(replace(policy, sha256="judge")))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("judge.criteria_per_call=2", "embedded judge has learned"),
        ("judge.criteria_per_call=4", "1, 2 or 3"),
        ("judge.guided=true", "is for a judge behind"),
        ("judge.cache=x.sqlite", "is for a judge behind"),
        ("judge.canary_min_share=1.5", "share between 0 and 1"),
        ("judge.canary_every=-1", "0 or more"),
    ],
)
def test_settings_that_do_not_fit_are_named(override, message):
    with pytest.raises(ConfigError, match=message):
        load_config("smoke", overrides=[override])


def test_an_endpoint_takes_them():
    overrides = ["judge.base_url=http://h/v1", "judge.criteria_per_call=3", "judge.guided=true", "judge.cache=x.sqlite"]
    assert load_config("smoke", overrides=overrides)[0].judge.guided
