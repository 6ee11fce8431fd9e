"""base: the embedded stand-in for a downloaded base. A tokenizer and a small dense MLA model, weak on purpose.

With `model.path` set, the user's checkpoint takes its place and only the corpus is written.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.stages import StageContext, StageResult
from pipeline.stages.common import artifact, device, text_run, threads
from pipeline.tasks import domain_mixes, generated_lessons
from pipeline.text_worker import TextSpec
from specialists.corpus import Document, documents

if TYPE_CHECKING:
    from pipeline.config.schema import Config
    from rollout.chat import Chat

HELDOUT_DOCUMENTS = 600
TOKENIZER_DOCUMENTS = 6000
TOKENIZER_LESSONS = 1000
"""Judge's lessons that the tokenizer reads: the judge shares it, and its prompt's fixed words must not fall apart."""


def run(context: StageContext) -> StageResult:
    """Artifacts: `tokenizer`, `corpus` (texts.npz, heldout.npz), `checkpoint` (dense)."""
    config, folder = context.config, context.folder
    tokenizer, corpus, checkpoint = folder / "tokenizer", folder / "corpus", folder / "checkpoint"
    counts = _write_corpus(context, tokenizer, corpus)
    summary = {}
    if config.model.path is not None:
        if not checkpoint.is_dir():
            _adopt(Path(config.model.path), checkpoint)
    else:
        spec = TextSpec(
            objective="language_model",
            checkpoint=None,
            architecture=config.model,
            tokenizer=str(tokenizer),
            texts=str(corpus / "texts.npz"),
            heldout=str(corpus / "heldout.npz"),
            state=str(folder / "state"),
            steps=config.base.steps,
            batch_tokens=config.base.batch_tokens,
            optimizer=config.base.optimizer,
            checkpoint_every=config.base.checkpoint_every,
            seed=config.seed,
            threads=threads(config),
            device=device(config),
            muon=True,
        )
        measured = text_run(context, "base", spec, checkpoint)
        summary = {"loss": measured["loss"]}
    return StageResult(
        {
            "tokenizer": artifact(context, tokenizer, "tokenizer"),
            "corpus": artifact(context, corpus, "texts"),
            "checkpoint": artifact(context, checkpoint, "checkpoint"),
        },
        counts,
        summary,
    )


def _adopt(source: Path, checkpoint: Path) -> None:
    """Takes over the user's checkpoint folder, which `check_model` has seen."""
    temporary = checkpoint.with_name(".checkpoint.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(source, temporary)
    temporary.rename(checkpoint)


def _write_corpus(context: StageContext, tokenizer: Path, corpus: Path) -> dict[str, int]:
    """Generates the documents, trains (or copies) the tokenizer, and writes the tokenised texts."""
    from transformers import AutoTokenizer

    from model.tokenizer import train_tokenizer
    from pipeline.learning.text import load_texts, save_texts, tokenise
    from rollout.chat import Chat

    config = context.config
    files = {"train": corpus / "texts.npz", "heldout": corpus / "heldout.npz"}
    if not all(file.is_file() for file in files.values()):
        mixes = domain_mixes(config)
        texts: dict[str, list[Document]] = {}
        with context.progress.task("corpus", config.base.documents) as bar:
            for split, count in (("train", config.base.documents), ("heldout", HELDOUT_DOCUMENTS)):
                made = documents(mixes, count, config.base.careful_share, split, config.seed)  # type: ignore[arg-type]
                texts[split] = list(_counted(made, bar if split == "train" else None))
        if config.model.path is None:
            read = chain(_pieces(texts["train"][:TOKENIZER_DOCUMENTS]), _lessons(config))
            trained: Any = train_tokenizer(read, config.model.vocab_size)
        else:
            trained = AutoTokenizer.from_pretrained(config.model.path)
        trained.save_pretrained(tokenizer)
        chat: Chat = Chat(trained)
        corpus.mkdir(parents=True, exist_ok=True)
        for split, file in files.items():
            save_texts(file, tokenise(texts[split], chat))
    train = load_texts(files["train"])
    return {"documents": len(train), "tokens": sum(len(text.token_ids) for text in train)}


def _counted(made: Iterable[Document], bar: object) -> Iterator[Document]:
    for number, document in enumerate(made, 1):
        if bar is not None and number % 1000 == 0:
            bar.advance(step=number)  # type: ignore[attr-defined]
        yield document


def _lessons(config: Config) -> Iterator[str]:
    for lesson in generated_lessons(config, "train", TOKENIZER_LESSONS):
        yield lesson.messages[-1]["content"]
        yield lesson.target


def _pieces(made: Sequence[Document]) -> Iterator[str]:
    """The texts inside the messages, without the template's control tokens."""
    from rollout.tools import render_tool_call

    for document in made:
        for message in document.messages:
            yield message["content"]
            if message.get("reasoning_content"):
                yield message["reasoning_content"]
            for call in message.get("tool_calls", ()):
                body = render_tool_call(call["function"]["name"], call["function"]["arguments"])
                yield body.removeprefix("<tool_call>").removesuffix("</tool_call>")


