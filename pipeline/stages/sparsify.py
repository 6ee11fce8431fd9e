"""sparsify: from dense MLA to sparse attention. Indexer added, dense warm-up, sparse training.

DeepSeek-V3.2 (arXiv:2512.02556), section 2.1.1: in the warm-up everything is frozen but the indexer, which learns the
head-summed dense attention; in sparse training top-k selection is on, the indexer sees detached inputs and learns on
the selected set, and the main model learns by the LM loss alone.
"""

from __future__ import annotations

import json
from typing import Any

from pipeline.runs import write_json
from pipeline.runtime import Handle
from pipeline.stages import StageContext, StageResult
from pipeline.stages.common import artifact, device, input_path, text_run, threads
from pipeline.text_worker import TextSpec


def run(context: StageContext) -> StageResult:
    """Artifacts: `checkpoint` (sparse), `report` (losses and attention shares after each phase)."""
    config, folder = context.config, context.folder
    corpus = input_path(context, "base", "corpus")
    shared: dict[str, Any] = {
        "architecture": None,
        "tokenizer": str(input_path(context, "base", "tokenizer")),
        "texts": str(corpus / "texts.npz"),
        "heldout": str(corpus / "heldout.npz"),
        "batch_tokens": config.sparsify.batch_tokens,
        "checkpoint_every": config.sparsify.checkpoint_every,
        "threads": threads(config),
        "device": device(config),
        "eval_batches": config.sparsify.eval_batches,
    }
    model = config.model
    warm, final = folder / "warmed", folder / "checkpoint"
    report: dict[str, Any] = {}
    warmup = TextSpec(
        objective="indexer_warmup",
        checkpoint=str(input_path(context, "base", "checkpoint")),
        add_indexer=(model.index_n_heads, model.index_head_dim, model.index_topk),
        state=str(folder / "warmup_state"),
        steps=config.sparsify.warmup_steps,
        optimizer=config.sparsify.warmup,
        seed=config.seed + 1,
        **shared,
    )
    sparse = TextSpec(
        objective="sparse",
        checkpoint=str(warm),
        state=str(folder / "sparse_state"),
        steps=config.sparsify.sparse_steps,
        optimizer=config.sparsify.sparse,
        indexer_lr=config.sparsify.indexer_lr,
        seed=config.seed + 2,
        **shared,
    )
    known = folder / "phases.json"
    if known.is_file() and warm.is_dir():
        report = json.loads(known.read_text(encoding="utf-8"))
    else:
        report = _warm_up(context, warmup, warm)
        write_json(known, report)
    report["sparse_training"] = text_run(context, "sparse", sparse, final)
    write_json(folder / "report.json", report)
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


def _warm_up(context: StageContext, spec: TextSpec, checkpoint: Any) -> dict[str, Any]:
    """Trains the indexer; reports the dense loss and the sparse one with the untrained and with the warmed indexer."""
    report: dict[str, Any] = {}

    def measure(worker: Handle, done: int) -> None:
        if done == 0:
            report["untrained_indexer"] = worker.call("measure", "auto").result()
        report["dense"] = worker.call("measure", "dense").result()

    report["warmup"] = text_run(context, "warm-up", spec, checkpoint, before=measure)
    return report
