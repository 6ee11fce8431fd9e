"""sparsify on a checkpoint and texts of the user's own: what it leaves, how it goes on, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from transformers import DeepseekV3ForCausalLM, DeepseekV32ForCausalLM

from model import load_checkpoint
from model.tokenizer import train_tokenizer
from pipeline.conductor import run_stages
from pipeline.config import load_config
from pipeline.errors import Interrupted, UsageError
from pipeline.plan import make_plan, with_needs
from pipeline.progress import NullProgress
from pipeline.runs import Manifest, Run, read_events
from pipeline.sparsify_plots import plot_sparsify
from pipeline.text_worker import TextTrainer
from tests.model.tiny_models import dense_config

LAYERS = 3
SETTINGS = (
    "runtime.backend=inline", "runtime.threads=1", "model.index_topk=16", "model.index_head_dim=16",
    "sparsify.context_length=96", "sparsify.batch_tokens=192", "sparsify.warmup_steps=4", "sparsify.sparse_steps=4",
    "sparsify.warmup_accumulation=2", "sparsify.eval_batches=2", "sparsify.stats_every=2",
    "sparsify.checkpoint_every=2", "sparsify.needle.lengths=[64,96]", "sparsify.needle.depths=2",
    "sparsify.needle.samples=2",
)  # fmt: skip


@pytest.fixture(scope="session")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`model/`, written by transformers, and `texts.jsonl`."""
    folder = tmp_path_factory.mktemp("own")
    texts = [f"Text {n}: " + " ".join(str(n * k) for k in range(1 + n % 40)) for n in range(60)]
    lines = [json.dumps({"text": text, "body": text}) for text in texts]
    (folder / "texts.jsonl").write_text("\n".join(lines), encoding="utf-8")
    torch.manual_seed(0)
    tokenizer = train_tokenizer(texts, 300)
    DeepseekV3ForCausalLM(dense_config(vocab_size=len(tokenizer))).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return folder


def settings(own: Path, run: Path, *overrides: str):
    given = (f"model.path={own / 'model'}", f"sparsify.data.train={own / 'texts.jsonl'}", f"run={run}")
    return load_config("smoke", [], [*given, *SETTINGS, *overrides])[0]


def sparsify(config) -> None:
    run_stages(config, ["sparsify"], progress=NullProgress())


@pytest.fixture(scope="session")
def undisturbed(own: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    sparsify(settings(own, run))
    return run


def test_a_hugging_face_folder_becomes_a_sparse_checkpoint_without_base(undisturbed: Path) -> None:
    assert not (undisturbed / "base").exists()
    folder = undisturbed / "sparsify" / "checkpoint"
    model, theirs = load_checkpoint(folder), DeepseekV32ForCausalLM.from_pretrained(folder)
    assert model.config.model_type == theirs.config.model_type == "deepseek_v32" and model.config.index_topk == 16
    assert torch.equal(
        theirs.model.layers[1].self_attn.indexer.wk.weight, model.model.layers[1].self_attn.indexer.wk.weight
    )
    assert (undisturbed / "sparsify" / "checkpoint" / "tokenizer.json").is_file()
    report = json.loads((undisturbed / "sparsify" / "report.json").read_text(encoding="utf-8"))
    assert {len(report[phase]["layers"]) for phase in ("untrained_indexer", "warmup", "sparse_training")} == {LAYERS}
    recall = report["recall_by_precision"]
    assert set(recall) == {"unrounded", "bf16", "fp8", "fp8_hadamard"}
    assert all(len(shares) == LAYERS and all(0 < share <= 1 for share in shares) for shares in recall.values())
    for attention in ("dense", "sparse"):
        rows = report["needle"][attention]
        assert [(row["length"], row["depth"]) for row in rows] == [(64, 0.0), (64, 1.0), (96, 0.0), (96, 1.0)]
        assert all(0 <= row["accuracy"] <= 1 and ("selected" in row) == (attention == "sparse") for row in rows)


def test_the_pictures_are_there_and_the_heat_map_only_with_needles(undisturbed: Path, tmp_path: Path) -> None:
    drawn = {file.name for file in (undisturbed / "plots").iterdir()}
    assert drawn == {f"{name}.{kind}" for name in ("sparsify", "needle") for kind in ("png", "svg")}
    report = json.loads((undisturbed / "sparsify" / "report.json").read_text(encoding="utf-8"))
    events = read_events(undisturbed / "events.jsonl")
    assert plot_sparsify(tmp_path, report | {"needle": {"dense": [], "sparse": []}}, []) == []
    many = [{**event, **{f"kl/layer_{layer:02}": 1.0 for layer in range(40)}} for event in events]
    nothing_selected = report | {"needle": {}, "recall_by_precision": {"unrounded": []}}
    assert {file.stem for file in plot_sparsify(tmp_path, nothing_selected, many)} == {"sparsify"}


def test_every_step_is_logged_by_layer_and_every_second_one_measured(undisturbed: Path) -> None:
    for phase in ("warm-up", "sparse"):
        events = read_events(undisturbed / "events.jsonl", "sparsify", phase)
        assert [event["step"] for event in events] == [0, 1, 2, 3]
        for event in events:
            kl = [event[f"kl/layer_{layer:02}"] for layer in range(LAYERS)]
            assert sum(kl) == pytest.approx(event["indexer_kl"], rel=1e-5) and min(kl) > 0
            measured = {name for name in event if name.startswith("heldout/")}
            figures = {f"heldout/{name}/layer_02" for name in ("kl", "topk_mass", "tie_rate", "margin")}
            assert (measured >= {"heldout/loss", *figures}) == (event["step"] % 2 == 0)
            assert event["tokens"] == (2 * 192 if phase == "warm-up" else 192)


def test_nothing_is_done_twice_and_another_content_is_noticed(own: Path, undisturbed: Path, tmp_path: Path) -> None:
    copy = tmp_path / "own"
    shutil.copytree(own, copy)
    shutil.copytree(undisturbed, tmp_path / "run")

    def reasons() -> tuple[str, tuple[str, ...]]:
        config = settings(copy, tmp_path / "run")
        (part,) = make_plan(Run(config.run), config, ["sparsify"]).stages
        return part.state, part.reasons

    first = settings(own, undisturbed)
    assert make_plan(Run(first.run), first, ["sparsify"]).stages[0].state == "cached"
    (copy / "texts.jsonl").write_text('{"text": "another text"}\n', encoding="utf-8")
    state, why = reasons()
    assert state == "stale" and [reason.split()[0] for reason in why] == ["model.path", "sparsify.data.train"]


@pytest.mark.parametrize(("phase", "objective"), [("warm-up", "indexer_warmup"), ("sparse", "sparse")])
def test_a_run_that_was_stopped_in_a_phase_ends_like_one_that_was_not(
    own: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: str, objective: str
) -> None:
    config = settings(own, tmp_path / "run")
    train = TextTrainer._train_step

    def stopped(self: TextTrainer, step: int) -> dict[str, float]:
        if self.spec.objective == objective and step == 3:
            raise KeyboardInterrupt
        return train(self, step)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(TextTrainer, "_train_step", stopped)
        sparsify(config)
    sparsify(config)
    manifests = [Manifest.read(run / "sparsify") for run in (tmp_path / "run", undisturbed)]
    assert manifests[0].hashes() == manifests[1].hashes() and manifests[0].attempts == 2
    assert [event["step"] for event in read_events(tmp_path / "run" / "events.jsonl", "sparsify", phase)] == [
        0,
        1,
        2,
        3,
    ]


def test_a_sparse_checkpoint_is_trained_on_without_a_warm_up(own: Path, undisturbed: Path, tmp_path: Path) -> None:
    start = undisturbed / "sparsify" / "checkpoint"
    changes = (
        f"model.path={start}",
        "sparsify.warmup_steps=0",
        "sparsify.sparse_steps=0",
        "sparsify.needle.lengths=[]",
    )
    sparsify(settings(own, tmp_path / "run", *changes))
    same, left = (load_checkpoint(path).state_dict() for path in (start, tmp_path / "run" / "sparsify" / "checkpoint"))
    assert all(torch.equal(same[name], left[name]) for name in left)


def test_base_is_needed_where_checkpoint_or_texts_are_not_given(own: Path, tmp_path: Path) -> None:
    config = settings(own, tmp_path)
    assert [spec.name for spec in with_needs(["sparsify"], config)] == ["sparsify"]
    config.sparsify.data = None
    assert [spec.name for spec in with_needs(["sparsify"], config)] == ["base", "sparsify"]
    config = settings(own, tmp_path)
    config.model.path = None
    assert [spec.name for spec in with_needs(["sparsify"], config)] == ["base", "sparsify"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "llama"}, "expected model_type deepseek_v3"),
        ({"q_lora_rank": None}, "q_lora_rank is not set"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings is true"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantised (fp8)"),
        ({"model_type": "deepseek_v32"}, "set sparsify.warmup_steps=0"),
        ({"qk_rope_head_dim": 64}, "model.index_head_dim is 16, below its qk_rope_head_dim (64)"),
        ({"max_position_embeddings": 64}, "sparsify.context_length asks for 96 tokens"),
        ("tokenizer*", "no tokenizer"),
        ("model.safetensors", "no weights"),
        ("config.json", "with a config.json"),
        ("*", "with a config.json"),
    ],
)
def test_a_checkpoint_that_can_not_be_used_is_refused_before_anything_is_written(
    own: Path, tmp_path: Path, change: dict | str, said: str
) -> None:
    folder = tmp_path / "own"
    shutil.copytree(own, folder)
    if isinstance(change, str):
        for file in (folder / "model").glob(change):
            file.unlink()
    else:
        file = folder / "model" / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | change), encoding="utf-8")
    with pytest.raises(UsageError, match=re.escape(said)):
        sparsify(settings(folder, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model.path=nowhere", "nowhere is nothing there"),
        ("sparsify.data.column=words", "no column 'words' (sparsify.data.column); there are: 'text', 'body'"),
        ("sparsify.data.train=absent.jsonl", "absent.jsonl: no such file"),
        ("sparsify.data.heldout=absent.jsonl", "absent.jsonl: no such file"),
    ],
)
def test_what_is_not_there_is_named(own: Path, tmp_path: Path, override: str, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        sparsify(settings(own, tmp_path / "run", override))
    assert not (tmp_path / "run").exists()
