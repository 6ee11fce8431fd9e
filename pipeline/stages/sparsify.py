"""sparsify: from dense MLA to sparse attention. Indexer added, dense warm-up, sparse training.

DeepSeek-V3.2 (arXiv:2512.02556), section 2.1.1: in the warm-up everything is frozen but the indexer, which learns the
head-summed dense attention; in sparse training top-k selection is on, the indexer sees detached inputs and learns on
the selected set, and the main model learns by the LM loss alone.

The dense twin is the checkpoint that came in. In the warm-up its weights do not move, so the warmed model with dense
attention *is* the twin. With `sparsify.attention: dense` the stage leaves that twin instead, trained on for as many
steps on the same batches: what later stages make of it is the control of an experiment.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.config.schema import TextDataConfig
from pipeline.errors import StageError
from pipeline.own_texts import read_texts
from pipeline.runs import write_json
from pipeline.runtime import Handle
from pipeline.sparsify_plots import plot_sparsify
from pipeline.stages import StageContext, StageResult
from pipeline.stages.common import artifact, device, input_path, text_run, threads
from pipeline.text_worker import TextSpec


@dataclass(frozen=True)
class Source:
    """What sparsify starts from: the dense checkpoint, its tokenizer, and texts as `load_texts` reads them."""

    checkpoint: Path
    tokenizer: Path
    texts: Path
    heldout: Path


def run(context: StageContext) -> StageResult:
    """Artifacts: `checkpoint` (sparse), `report` (losses and attention shares after each phase, the indexer in lower
    precision, the needle test)."""
    config, folder = context.config, context.folder
    source, settings = _source(context), config.sparsify
    shared: dict[str, Any] = {
        "architecture": None,
        "tokenizer": str(source.tokenizer),
        "texts": str(source.texts),
        "heldout": str(source.heldout),
        "batch_tokens": settings.batch_tokens,
        "context_length": settings.context_length,
        "join_documents": settings.join_documents,
        "gradient_checkpointing": settings.gradient_checkpointing,
        "checkpoint_every": settings.checkpoint_every,
        "threads": threads(config),
        "device": device(config),
        "eval_batches": settings.eval_batches,
        "stats_every": settings.stats_every,
        "needle": settings.needle,
    }
    model = config.model
    warm, final = folder / "warmed", folder / "checkpoint"
    warmup = TextSpec(
        objective="indexer_warmup",
        checkpoint=str(source.checkpoint),
        add_indexer=(model.index_n_heads, model.index_head_dim, model.index_topk),
        state=str(folder / "warmup_state"),
        steps=settings.warmup_steps,
        accumulation=settings.warmup_accumulation,
        optimizer=settings.warmup,
        seed=config.seed + 1,
        **shared,
    )
    sparse = TextSpec(
        objective="sparse",
        checkpoint=str(warm),
        state=str(folder / "sparse_state"),
        steps=settings.sparse_steps,
        accumulation=settings.sparse_accumulation,
        optimizer=settings.sparse,
        indexer_lr=settings.indexer_lr,
        seed=config.seed + 2,
        **shared,
    )
    if settings.attention == "dense":
        twin = replace(sparse, objective="language_model", checkpoint=str(source.checkpoint))
        return _train_twin(context, twin, final)
    known = folder / "phases.json"
    report = json.loads(known.read_text(encoding="utf-8")) if known.is_file() else {}
    if "warmup" not in report or not warm.is_dir():
        _warm_up(context, warmup, warm, report, known)
    _train_sparse(context, sparse, final, report)
    write_json(folder / "report.json", report)
    plot_sparsify(folder.parent, report, context.events.read("sparsify"))
    last = report["sparse_training"]
    summary = {
        "loss_dense": report["dense"]["loss"],
        "loss_after_warmup": report["warmup"]["loss"],
        "loss_after_sparse_training": last["loss"],
        "topk_mass": [layer["topk_mass"] for layer in last["layers"]],
    }
    artifacts = {
        "checkpoint": artifact(context, final, "checkpoint"),
        "report": artifact(context, folder / "report.json", "report"),
    }
    return StageResult(artifacts, {"steps": warmup.steps + sparse.steps}, summary)


def _warm_up(context: StageContext, spec: TextSpec, checkpoint: Path, report: dict[str, Any], known: Path) -> None:
    """Trains the indexer; adds to the report the dense loss and the sparse one with the untrained and with the warmed
    indexer. It is written to `known` as it grows: what is measured before the first step can not be measured again."""

    def measure(worker: Handle, done: int) -> None:
        if done == 0:
            report["untrained_indexer"] = worker.call("measure", "auto").result()
            report["dense"] = worker.call("measure", "dense").result()
            write_json(known, report)

    def examine(worker: Handle) -> None:
        report["needle"] = {"dense": worker.call("find_needles", "dense").result()}

    report["warmup"] = text_run(context, "warm-up", spec, checkpoint, before=measure, after=examine)
    write_json(known, report)


def _train_sparse(context: StageContext, spec: TextSpec, checkpoint: Path, report: dict[str, Any]) -> None:
    """Trains model and indexer; adds to the report what became of them."""

    def examine(worker: Handle) -> None:
        report["needle"]["sparse"] = worker.call("find_needles", "sparse").result()
        report["recall_by_precision"] = worker.call("recall_by_precision").result()

    report["sparse_training"] = text_run(context, "sparse", spec, checkpoint, after=examine)


def _train_twin(context: StageContext, spec: TextSpec, checkpoint: Path) -> StageResult:
    """The control: the dense model, trained on by its LM loss alone."""
    text_run(context, "dense", spec, checkpoint, measure=None)
    return StageResult({"checkpoint": artifact(context, checkpoint, "checkpoint")}, {"steps": spec.steps})


def _source(context: StageContext) -> Source:
    """Base's artifacts, or the user's own checkpoint and texts where they are given."""
    config, folder = context.config, context.folder
    if "base" in context.inputs:
        checkpoint, tokenizer = input_path(context, "base", "checkpoint"), input_path(context, "base", "tokenizer")
    else:
        assert config.model.path is not None
        checkpoint = tokenizer = Path(config.model.path)
    if config.sparsify.data is None:
        corpus = input_path(context, "base", "corpus")
        return Source(checkpoint, tokenizer, corpus / "texts.npz", corpus / "heldout.npz")
    texts, heldout = folder / "texts", folder / "heldout"
    if not (texts.is_dir() and heldout.is_dir()):
        context.progress.say(f"sparsify: tokenises {config.sparsify.data.train}")
        _tokenise(config.sparsify.data, tokenizer, texts, heldout)
    return Source(checkpoint, tokenizer, texts, heldout)


def _tokenise(data: TextDataConfig, tokenizer: Path, texts: Path, heldout: Path) -> None:
    from transformers import AutoTokenizer

    from pipeline.learning.text import load_texts, save_plain_texts

    reader = AutoTokenizer.from_pretrained(tokenizer)
    save_plain_texts(texts, read_texts(data, "train"), reader)
    save_plain_texts(heldout, read_texts(data, "heldout"), reader)
    for split, folder in (("to train on", texts), ("held out", heldout)):
        if not len(load_texts(folder)):
            raise StageError(
                f"sparsify.data: none of the texts is {split}; give more texts, or a file of its own in "
                "sparsify.data.heldout"
            )
