"""Talking to a checkpoint: one question, a conversation through a pipe, and the commands inside it."""

import io
import re
import shutil
import sys

import numpy as np
import pytest
import torch

from model import DeepseekForCausalLM, save_checkpoint
from model.tokenizer import train_tokenizer
from pipeline.chat import Talk, chat, load_talk, obey, split_thought
from pipeline.config.schema import Config, SamplingConfig
from pipeline.errors import UsageError
from rollout.chat import Chat
from rollout.engine import Completion

CONFIG = Config(sampling=SamplingConfig(max_new_tokens=12, max_context=120), device="cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from transformers import DeepseekV3Config

    tokenizer = train_tokenizer(["what is 12 + 34", "hello you"] * 20, 300)
    torch.manual_seed(0)
    config = DeepseekV3Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, kv_lora_rank=16, q_lora_rank=16, qk_rope_head_dim=8,
        qk_nope_head_dim=8, v_head_dim=8, first_k_dense_replace=1, n_routed_experts=2, num_experts_per_tok=1,
        n_group=1, topk_group=1, moe_intermediate_size=8, max_position_embeddings=256,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4}, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("checkpoints") / "one"
    save_checkpoint(DeepseekForCausalLM(config), tokenizer, path)
    return path


class Script:
    """An engine that writes what it is told, and remembers what it was asked."""

    version = 0

    def __init__(self, chat, *turns):
        self.chat, self.turns, self.prompts, self.limits = chat, list(turns), [], []

    def generate(self, requests, temperature):
        [request] = requests
        self.prompts.append(self.chat.tokenizer.decode(request.token_ids))
        self.limits.append(request.max_new_tokens)
        text = self.turns.pop(0)
        ids = self.chat.encode(text.removesuffix("…"))
        if not text.endswith("…"):
            ids.append(self.chat.end_token_id)
        stop = "length" if text.endswith("…") else "stop"
        return [Completion(np.array(ids, np.int32), np.zeros(len(ids), np.float32), stop)]


@pytest.fixture
def scripted(monkeypatch, folder):
    """Runs `chat` with scripted turns and piped lines; gives what was printed and the engine."""
    from transformers import AutoTokenizer

    rendering = Chat(AutoTokenizer.from_pretrained(folder))

    def run(turns, lines="", mode="thinking", prompt=None, max_context=400):
        engine = Script(rendering, *turns)
        talk = Talk(engine, rendering, mode, 1.0, 50, max_context, 0)
        monkeypatch.setattr("pipeline.chat.load_talk", lambda *arguments: talk)
        monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
        chat(folder, str(folder), mode, prompt, CONFIG)
        return engine, talk

    return run


@pytest.mark.parametrize("mode", ["thinking", "direct"])
def test_a_folder_of_a_checkpoint_answers_once(folder, tmp_path, capsys, mode):
    chat(tmp_path, str(folder), mode, "what is 12?", CONFIG)
    first = capsys.readouterr().out
    chat(tmp_path, str(folder), mode, "what is 12?", CONFIG)
    assert first.strip() and capsys.readouterr().out == first


def test_a_name_of_the_run_that_does_not_exist_is_explained(tmp_path):
    with pytest.raises(UsageError, match="no checkpoint 'final'"):
        chat(tmp_path, "final", "direct", "hello", CONFIG)
    with pytest.raises(UsageError, match="expected mode thinking or direct, got 'loud'"):
        chat(tmp_path, "final", "loud", "hello", CONFIG)


def test_thought_and_answer_are_shown_without_markup(scripted, capsys):
    scripted(["12 + 34 is 46</think>it is [46]"], prompt="what is 12 + 34?")
    assert capsys.readouterr().out == "12 + 34 is 46\nit is [46]\n"


def test_the_thought_is_dimmed_on_a_terminal(scripted, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    scripted(["a thought</think>an answer"], prompt="hello")
    printed = capsys.readouterr().out
    assert re.search(r"\x1b\[2ma thought\x1b\[0m\nan answer", printed)


def test_a_piped_conversation_remembers_what_was_said(scripted, capsys):
    engine, talk = scripted(["so</think>one", "well</think>two"], lines="hello\nand you?\n")
    assert capsys.readouterr().out == "so\none\nwell\ntwo\n"
    assert engine.prompts[1] == (
        "<|bos|><|user|>hello<|end|><|assistant|><think></think>one<|end|><|user|>and you?<|end|><|assistant|><think>"
    )
    assert [m["role"] for m in talk.messages] == ["user", "assistant"] * 2


def test_commands_switch_the_mode_and_forget(scripted, capsys):
    lines = "hello\n/direct\nagain\n/reset\nnew\n/what\n\nnever read\n"
    engine, _ = scripted(["so</think>one", "two", "three"], lines=lines)
    assert engine.prompts[1].endswith("<|user|>again<|end|><|assistant|><think></think>")
    assert engine.prompts[2] == "<|bos|><|user|>new<|end|><|assistant|><think></think>"
    out = capsys.readouterr().out
    assert "mode: direct" in out and "a new conversation" in out and "unknown command /what" in out
    assert engine.turns == []


def test_an_answer_that_was_cut_off_says_so(scripted, capsys):
    scripted(["going on and on…"], prompt="hello")
    assert "cut off" in capsys.readouterr().out


def test_a_full_conversation_says_how_to_go_on_and_keeps_what_it_has(scripted, capsys):
    engine, talk = scripted(["so</think>one"], lines=f"hello\n{'what is 12? ' * 30}\n/reset\n", max_context=60)
    assert "begin anew with /reset" in capsys.readouterr().out
    assert engine.limits[0] <= 50 and talk.messages == []
    with pytest.raises(UsageError, match="max_context is 5"):
        scripted([], prompt="what is 12 + 34?", max_context=5)


def test_split_thought():
    assert split_thought("a</think>b", "thinking") == ("a", "b")
    assert split_thought("never closed", "thinking") == ("never closed", "")
    assert split_thought("b", "direct") == ("", "b")


def test_a_loaded_talk_follows_the_configuration(folder):
    talk = load_talk(folder, "direct", CONFIG)
    assert (talk.mode, talk.max_new_tokens, talk.max_context, talk.temperature) == ("direct", 12, 120, 1.0)
    talk.answer("hello")
    assert obey(talk, "/reset") == "a new conversation" and talk.messages == []


def test_a_folder_without_weights_is_refused(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "broken")
    (tmp_path / "broken" / "model.safetensors").unlink()
    with pytest.raises(UsageError, match=r"broken cannot be talked to: .* has no model\.safetensors"):
        chat(tmp_path, str(tmp_path / "broken"), "direct", "hello", CONFIG)
