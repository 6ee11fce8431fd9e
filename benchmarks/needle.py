"""The needle test at lengths far beyond k, from nothing: a small dense model learns to find needles, sparsify makes it
sparse, and both look for a number in haystacks of up to `--length` tokens.

    python -m benchmarks.needle --work runs/needle --device cuda

What was done is kept in `--work`: the same command goes on from there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.provenance import provenance, result_path, write_json
from model.tokenizer import train_tokenizer
from pipeline.conductor import run_stages
from pipeline.config import load_config
from pipeline.config.schema import ModelConfig, OptimizerConfig
from pipeline.learning.needle import NAMES, NUMBERS, SENTENCE, Needle
from pipeline.learning.text import Text, save_texts
from pipeline.sparsify_plots import plot_needles
from pipeline.text_worker import TextSpec, TextTrainer

WORDS = [
    "river", "stone", "house", "light", "green", "water", "table", "garden", "window", "paper", "summer", "winter",
    "letter", "bridge", "forest", "mountain", "silver", "golden", "little", "great", "early", "late", "night",
    "morning", "evening", "quiet", "open", "small",
]  # fmt: skip
SHORT, MIDDLE = 128, 1024
"""Tokens of the documents that the model learns to look up in, before it sees long ones."""


class Writer:
    """Documents of random words with sentences about numbers in them."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        sentences = [SENTENCE.format(name=name, number=number) for name in NAMES for number in NUMBERS]
        straw = self._straw(rng, 4000)
        self.tokenizer = train_tokenizer([*sentences, straw[:20000]], 512)
        self.needles = {name: Needle(self.tokenizer, name) for name in NAMES}
        self.straw = np.array(self.tokenizer(straw)["input_ids"], dtype=np.int32)

    @staticmethod
    def _straw(rng: np.random.Generator, lines: int) -> str:
        return "".join("\n" + " ".join(rng.choice(WORDS, size=8)) for _ in range(lines))

    def text(self, rng: np.random.Generator, length: int) -> Text:
        """One document with numbers of some names. Its loss counts where a sentence comes again, and in every eighth
        document everywhere."""
        facts = 12 if length <= SHORT else 24
        names = rng.choice(NAMES, size=int(rng.integers(2, len(NAMES) + 1)), replace=False).tolist()
        numbers = {name: int(rng.choice(NUMBERS)) for name in names}
        everywhere, seen = rng.random() < 1 / 8, set[str]()
        room = length - facts * max(len(needle.opening) + 1 for needle in self.needles.values())
        parts, counted = [], []
        for gap in rng.multinomial(room, np.ones(facts) / facts):
            name = names[int(rng.integers(len(names)))]
            needle, start = self.needles[name], int(rng.integers(len(self.straw) - gap))
            ids = [*self.straw[start : start + gap], *needle.opening, needle.answers[numbers[name]]]
            mask = np.full(len(ids), everywhere)
            mask[-1] |= name in seen
            seen.add(name)
            parts.append(np.array(ids, dtype=np.int32))
            counted.append(mask)
        mask = np.concatenate(counted)
        mask[0] = False
        return Text(np.concatenate(parts), mask)

    def hay(self, rng: np.random.Generator, length: int) -> str:
        """Words alone: what haystacks are made of."""
        return self._straw(rng, length // 9)


def main() -> None:
    options = _options()
    work, writer = Path(options.work), Writer()
    dense = work / "dense"
    if not dense.is_dir():
        _learn(writer, options, work)
    texts = {"train": work / "texts.jsonl", "heldout": work / "hay.jsonl"}
    if not all(file.is_file() for file in texts.values()):
        rng = np.random.default_rng(1)
        long = (writer.tokenizer.decode(writer.text(rng, options.length).token_ids) for _ in range(options.texts))
        _write(texts["train"], long)
        _write(texts["heldout"], (writer.hay(rng, options.length) for _ in range(8)))
    config, _ = load_config("tiny", [], _settings(options, dense, texts))
    run_stages(config, ["sparsify"])
    report = json.loads((work / "run" / "sparsify" / "report.json").read_text(encoding="utf-8"))
    result = provenance("benchmarks.needle") | {"k": options.k, "options": vars(options), "needle": report["needle"]}
    write_json(result_path("needle"), result)
    for file in plot_needles(result_path("needle").parent, report["needle"], result_path("needle").stem):
        print(file)
    for kind, rows in report["needle"].items():
        for length in sorted({row["length"] for row in rows}):
            found = [row["accuracy"] for row in rows if row["length"] == length]
            print(f"{kind:6} {length:7} tokens: {100 * sum(found) / len(found):5.1f} % found")


def _learn(writer: Writer, options: argparse.Namespace, work: Path) -> None:
    """Trains the dense model: short documents first, then long ones."""
    writer.tokenizer.save_pretrained(work / "tokenizer")
    start: Path | None = None
    phases = (SHORT, options.steps), (MIDDLE, options.longer_steps), (options.length, options.longer_steps)
    for seed, (length, steps) in enumerate(phases, start=2):
        phase = f"{length}_tokens"
        folder = work / phase
        files = {name: folder / f"{name}.npz" for name in ("texts", "heldout")}
        rng, count = np.random.default_rng(seed), min(30_000, max(64, steps * options.batch_tokens // length // 4))
        if not files["heldout"].is_file():
            folder.mkdir(parents=True, exist_ok=True)
            save_texts(files["texts"], [writer.text(rng, length) for _ in range(count)])
            save_texts(files["heldout"], [writer.text(rng, length) for _ in range(16)])
        trainer = TextTrainer(
            TextSpec(
                objective="language_model", checkpoint=str(start) if start else None,
                architecture=_architecture(options), tokenizer=str(work / "tokenizer"), texts=str(files["texts"]),
                heldout=str(files["heldout"]), state=str(folder / "state"), steps=steps,
                batch_tokens=max(options.batch_tokens, length),
                optimizer=OptimizerConfig(
                    lr=options.lr if start is None else options.lr / 4, warmup_steps=20, decay="linear",
                    min_lr_ratio=0.1,
                ),
                checkpoint_every=200, seed=seed, threads=options.threads, device=options.device, muon=True,
            )
        )  # fmt: skip
        for step in range(0, steps, 50):
            print(phase, step, f"loss {trainer.advance(step, 50)[-1]['loss']:.3f}", flush=True)
        start = folder / "model" if length < options.length else work / "dense"
        trainer.export(str(start))


def _architecture(options: argparse.Namespace) -> ModelConfig:
    return ModelConfig(
        dtype=options.dtype, hidden_size=options.hidden, num_hidden_layers=options.layers, num_attention_heads=4,
        q_lora_rank=options.hidden // 2, kv_lora_rank=options.hidden // 2, qk_nope_head_dim=32, qk_rope_head_dim=32,
        v_head_dim=32, intermediate_size=2 * options.hidden, rope_theta=1e6, max_position_embeddings=options.length,
    )  # fmt: skip


def _settings(options: argparse.Namespace, dense: Path, texts: dict[str, Path]) -> list[str]:
    lengths = [options.length >> shift for shift in (4, 3, 2, 1, 0) if options.length >> shift >= 64]
    values: dict[str, Any] = {
        "run": dense.parent / "run", "device": options.device, "runtime.backend": "inline",
        "runtime.threads": options.threads, "model.path": dense, "model.index_n_heads": 4,
        "model.index_head_dim": 64, "model.index_topk": options.k, "sparsify.data.train": texts["train"],
        "sparsify.data.heldout": texts["heldout"], "sparsify.context_length": options.length,
        "sparsify.batch_tokens": max(options.batch_tokens, options.length), "sparsify.warmup_steps": options.warmup,
        "sparsify.sparse_steps": options.sparse, "sparsify.sparse.lr": 2e-4, "sparsify.eval_batches": 1,
        "sparsify.needle.lengths": f"[{','.join(map(str, lengths))}]", "sparsify.needle.samples": options.samples,
    }  # fmt: skip
    return [f"{key}={value}" for key, value in values.items()]


def _write(file: Path, texts: Iterator[str]) -> None:
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", default="runs/needle", help="folder of everything that is kept")
    parser.add_argument("--device", default="cuda", choices=("cpu", "cuda"))
    parser.add_argument("--dtype", default="bfloat16", choices=("float32", "bfloat16"))
    parser.add_argument("--length", type=int, default=16384, help="tokens of the longest haystack")
    parser.add_argument("--k", type=int, default=256, help="keys of a query")
    parser.add_argument("--hidden", type=int, default=256, help="width of the model")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--steps", type=int, default=2500, help="steps on short documents")
    parser.add_argument("--longer-steps", type=int, default=500, help="steps on each of two longer kinds")
    parser.add_argument("--warmup", type=int, default=150, help="steps of the dense warm-up")
    parser.add_argument("--sparse", type=int, default=150, help="steps of sparse training")
    parser.add_argument("--batch-tokens", type=int, default=65536)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--texts", type=int, default=200, help="long texts to sparsify on")
    parser.add_argument("--samples", type=int, default=8, help="haystacks of each length and depth")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
