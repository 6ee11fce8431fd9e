"""judge: the tiny generative reward model, trained from the same dense base on programmatically labelled triples.

Its agreement with the truth on held-out triples is measured through the very door that the graders use: the
OpenAI-compatible server and the client with its parser.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipeline.errors import StageError
from pipeline.grader import judge_canaries, judge_client
from pipeline.judge_report import calibrate
from pipeline.runs import write_json
from pipeline.stages import StageContext, StageResult
from pipeline.stages.common import artifact, device, input_path, spawn_judge, text_run, threads
from pipeline.tasks import judge_lessons
from pipeline.text_worker import TextSpec

if TYPE_CHECKING:
    from specialists.judge_data import JudgeExample


def run(context: StageContext) -> StageResult:
    """Artifacts: `checkpoint` and `report` (calibration); neither with a judge behind `judge.base_url`, which
    `pipeline judge-report` measures."""
    config, folder = context.config, context.folder
    if config.judge.base_url is not None:
        return StageResult({}, {}, {"served_by": config.judge.base_url})
    examples = judge_lessons(config, "train", config.judge.examples)
    heldout = judge_lessons(config, "heldout", config.judge.heldout)
    _write_texts(context, examples, heldout)
    spec = TextSpec(
        objective="language_model",
        checkpoint=str(input_path(context, "base", "checkpoint")),
        architecture=None,
        tokenizer=str(input_path(context, "base", "tokenizer")),
        texts=str(folder / "texts.npz"),
        heldout=str(folder / "heldout.npz"),
        state=str(folder / "state"),
        steps=config.judge.steps,
        batch_tokens=config.judge.batch_tokens,
        optimizer=config.judge.optimizer,
        checkpoint_every=50,
        seed=config.seed + 3,
        threads=threads(config),
        device=device(config),
        muon=True,
    )
    checkpoint = folder / "checkpoint"
    text_run(context, "judge", spec, checkpoint, measure=None)
    report = _calibration(context, str(checkpoint), heldout)
    write_json(folder / "calibration.json", report)
    # What it cost is of this machine and hour; an artifact is the same whenever it is made.
    write_json(folder / "report.json", {name: value for name, value in report.items() if name != "cost"})
    if report["agreement"] < config.judge.min_agreement:
        raise StageError(
            f"the judge agrees with the truth on {report['agreement']:.1%} of {report['n']} held-out verdicts, less "
            f"than judge.min_agreement={config.judge.min_agreement:.0%}; raise judge.steps or judge.examples"
        )
    artifacts = {
        "checkpoint": artifact(context, checkpoint, "checkpoint"),
        "report": artifact(context, folder / "report.json", "report"),
    }
    figures = {name: report[name] for name in ("agreement", "n", "abstained", "by_kind", "canaries")}
    return StageResult(artifacts, {"examples": len(examples)}, figures)


def _write_texts(context: StageContext, train: Sequence[JudgeExample], heldout: Sequence[JudgeExample]) -> None:
    """The triples as texts whose loss counts on the reason and the verdict alone."""
    import numpy as np
    from transformers import AutoTokenizer

    from pipeline.learning.text import Text, save_texts
    from rollout.chat import Chat

    chat = Chat(AutoTokenizer.from_pretrained(input_path(context, "base", "tokenizer")))
    for name, examples in (("texts", train), ("heldout", heldout)):
        texts = []
        for example in examples:
            prompt = chat.prompt_ids(example.messages, "direct")
            target = [*chat.encode(example.target), chat.end_token_id]
            mask = np.arange(len(prompt) + len(target)) >= len(prompt)
            texts.append(Text(np.array(prompt + target, dtype=np.int32), mask))
        save_texts(context.folder / f"{name}.npz", texts)


def _calibration(context: StageContext, checkpoint: str, examples: Sequence[JudgeExample]) -> dict[str, Any]:
    """See `calibrate`, of the checkpoint behind its server."""
    config = context.config
    server = spawn_judge(context, checkpoint, threads(config))
    try:
        client = judge_client(config, server.call("url").result(config.runtime.start_deadline_s))
        report = calibrate(client, examples, judge_canaries(config))
        client.close()
    finally:
        server.stop()
    return report
