"""The actor that trains on text: the dense base, the indexer's warm-up, sparse training, and the judge.

Idempotent by step number like the policy's actor: `advance` goes on from the committed step, and repeated requests for
steps that are done get the stored metrics.
"""

from __future__ import annotations

import gc
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.config.schema import ModelConfig, NeedleConfig, OptimizerConfig

if TYPE_CHECKING:
    from pipeline.learning.text_batches import TextBatch

Objective = Literal["language_model", "indexer_warmup", "sparse"]


@dataclass(frozen=True)
class TextSpec:
    """A run of text training.

    Attributes:
        objective: `language_model` trains all by the LM loss; `indexer_warmup` trains the indexer alone by its KL to
            dense attention; `sparse` trains the main model by the LM loss and the indexer by its KL on the selected
            set (DeepSeek-V3.2, arXiv:2512.02556, section 2.1).
        checkpoint: weights to start from; None starts from `architecture` and the seed.
        tokenizer: folder of the tokenizer that the texts were written with.
        texts, heldout: what `load_texts` reads.
        state: folder of the training states.
        batch_tokens, context_length, join_documents: see `Packing`.
    """

    objective: Objective
    checkpoint: str | None
    architecture: ModelConfig | None
    tokenizer: str
    texts: str
    heldout: str
    state: str
    steps: int
    batch_tokens: int
    optimizer: OptimizerConfig
    checkpoint_every: int
    seed: int
    threads: int
    device: str
    add_indexer: tuple[int, int, int] | None = None
    """(heads, head size, top-k) of an indexer to add to a dense checkpoint first."""
    indexer_lr: float | None = None
    context_length: int | None = None
    join_documents: bool = False
    accumulation: int = 1
    """Packed batches of one step."""
    gradient_checkpointing: bool = False
    eval_batches: int = 4
    stats_every: int = 0
    """Steps between two measurements on held-out texts; 0 = none."""
    needle: NeedleConfig = field(default_factory=NeedleConfig)
    muon: bool = False
    """Train the layers' matrices by Muon instead of AdamW: about twice as far per token on a new model."""


class TextTrainer:
    """See the module."""

    uses_gpu = True

    def __init__(self, spec: TextSpec) -> None:
        import torch

        from model import add_indexer, indexer_parameters, load_checkpoint, main_parameters
        from pipeline.learning.build import new_model
        from pipeline.learning.checkpoints import latest_state
        from pipeline.learning.master import MasterWeights
        from pipeline.learning.optimizer import Muon, adamw, split_for_muon
        from pipeline.learning.text import load_texts
        from pipeline.learning.text_batches import Packing, TextBatches

        torch.set_num_threads(spec.threads)
        if spec.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        self.spec = spec
        saved = latest_state(Path(spec.state))
        if saved:
            model = load_checkpoint(saved.folder / "model", device=spec.device)
        elif spec.checkpoint:
            model = load_checkpoint(Path(spec.checkpoint), device=spec.device)
        elif spec.architecture:
            model = new_model(spec.architecture, Path(spec.tokenizer), spec.seed, spec.device)
        else:
            raise ValueError("a text run needs a checkpoint or an architecture to start from")
        if spec.add_indexer and model.config.model_type == "deepseek_v3":
            model = add_indexer(model, *spec.add_indexer, seed=spec.seed)
        # In the warm-up only indexers have a gradient: layers keep little, and would run dense attention a second time.
        if spec.gradient_checkpointing and spec.objective != "indexer_warmup":
            model.gradient_checkpointing_enable()
        self.model = model
        self.indexer, self.main = list(indexer_parameters(model)), list(main_parameters(model))
        for parameter in self.main:
            parameter.requires_grad_(spec.objective != "indexer_warmup")
        for parameter in self.indexer:
            parameter.requires_grad_(spec.objective != "language_model")
        self.masters = MasterWeights(model.parameters())
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.parameters: dict[str, list[torch.nn.Parameter]] = {}
        if spec.muon:
            matrices, others = split_for_muon(model)
            self.parameters["matrices"], self.parameters["main"] = self.masters.of(matrices), self.masters.of(others)
            self.optimizers["matrices"] = Muon(
                self.parameters["matrices"], spec.optimizer.lr, spec.optimizer.betas[1], spec.optimizer.weight_decay
            )
        elif spec.objective != "indexer_warmup":
            self.parameters["main"] = self.masters.of([p for p in self.main if p.requires_grad])
        if spec.objective != "language_model":
            self.parameters["indexer"] = self.masters.of(self.indexer)
        for name in set(self.parameters) - {"matrices"}:
            self.optimizers[name] = adamw(self.parameters[name], spec.optimizer)
        self.packing = Packing(spec.batch_tokens, spec.context_length, spec.join_documents)
        self.batches = TextBatches(load_texts(Path(spec.texts)), self.packing, spec.seed)
        self.step = 0
        self._log: list[dict[str, float]] = []
        if saved:
            state = torch.load(saved.folder / "optimizer.pt", map_location=spec.device, weights_only=True)
            self.masters.load(state["masters"])
            for name, optimizer in self.optimizers.items():
                optimizer.load_state_dict(state[name])
            self.step, self._log = saved.step, list(saved.extra["log"])

    def committed(self) -> int:
        """Steps that are done."""
        return self.step

    def peak_memory(self) -> int | None:
        """Most bytes of the GPU's memory that tensors have taken so far; None on a CPU."""
        import torch

        return torch.cuda.max_memory_allocated() if self.model.device.type == "cuda" else None

    def advance(self, start: int, count: int) -> list[dict[str, float]]:
        """Metrics of steps `start` … `start + count − 1`; steps not done yet are done now."""
        while self.step < min(start + count, self.spec.steps):
            self._log.append(self._train_step(self.step))
            self.step += 1
            if self.step % self.spec.checkpoint_every == 0 or self.step == self.spec.steps:
                self._commit()
        return self._log[start : start + count]

    def _train_step(self, step: int) -> dict[str, float]:
        from pipeline.learning.optimizer import learning_rate, optimizer_step

        spec = self.spec
        metrics = self._heldout(step)
        self.model.train()
        metrics |= self._accumulate(step)
        scale = learning_rate(step, spec.steps, spec.optimizer) / spec.optimizer.lr
        # Clipped apart: the losses share no parameter, and one's spikes must not slow the other.
        for name, optimizer in self.optimizers.items():
            lr = spec.indexer_lr if name == "indexer" and spec.indexer_lr is not None else spec.optimizer.lr
            norm = optimizer_step(optimizer, self.parameters[name], lr * scale, spec.optimizer.grad_clip)
            metrics[f"grad_norm/{name}"] = norm
        self.masters.publish()
        return metrics

    def _accumulate(self, step: int) -> dict[str, float]:
        """Gradients of a step's batches, each weighted by its share of the step's tokens; their sum is the gradient of
        one large batch."""
        from pipeline.learning.text_batches import text_loss
        from pipeline.learning.watching import watch_indexer_losses

        spec = self.spec
        batches = [self.batches.batch(step * spec.accumulation + i) for i in range(spec.accumulation)]
        tokens = sum(len(batch.packed.input_ids) for batch in batches)
        counted = sum(int(batch.mask.sum()) for batch in batches)
        metrics: defaultdict[str, float] = defaultdict(float)
        attention = "dense" if spec.objective == "indexer_warmup" else "auto"
        kl_stage = {"language_model": None, "indexer_warmup": "dense", "sparse": "sparse"}[spec.objective]
        for batch in batches:
            share = int(batch.mask.sum()) / max(1, counted)
            batch = batch.to(self.model.device)
            with watch_indexer_losses(self.model) as of_layers:
                output = self.model.hidden_states(batch.packed, attention=attention, indexer_loss=kl_stage)
            losses = []
            if spec.objective != "indexer_warmup" and share > 0:
                loss = text_loss(self.model, batch, output.hidden) * share
                metrics["loss"] += float(loss.detach())
                losses.append(loss)
            if output.indexer_loss is not None:
                kl = output.indexer_loss / tokens
                metrics["indexer_kl"] += float(kl.detach())
                losses.append(kl)
                for layer, of_layer in of_layers.items():
                    metrics[f"kl/layer_{layer:02}"] += float(of_layer) / tokens
            if losses:
                sum(losses[1:], losses[0]).backward()
        return {"tokens": float(tokens), **metrics}

    def _heldout(self, step: int) -> dict[str, float]:
        """The figures of `measure` before every `stats_every`-th step."""
        from pipeline.learning.measuring import as_metrics

        every = self.spec.stats_every
        return as_metrics(self.measure()) if every and step % every == 0 else {}

    def _commit(self) -> None:
        import torch

        from pipeline.learning.checkpoints import save_state

        def write(folder: Path) -> None:
            self.model.save_pretrained(folder / "model")
            state: dict[str, Any] = {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}
            torch.save(state | {"masters": self.masters.state()}, folder / "optimizer.pt")

        save_state(Path(self.spec.state), self.step, write, {"log": self._log})

    def measure(self, attention: str = "auto") -> dict[str, Any]:
        """LM loss (nats per token) on the longest held-out texts, where the selection leaves most keys out, and, for a
        sparse model, per layer the share of dense attention mass that the top-k captures, the tie rate at the k-th
        score and its margin."""
        from pipeline.learning.measuring import measure

        return measure(self.model, self._longest(), attention)

    def recall_by_precision(self) -> dict[str, list[float]]:
        """The attention mass that the selection keeps on the longest held-out sequences, by precision and layer."""
        from pipeline.learning.indexer_recall import recall_by_precision

        sequences = [ids for batch in self._longest() for ids in batch.packed.unpack(batch.packed.input_ids)]
        return recall_by_precision(self.model, sequences[-self.spec.eval_batches :])

    def find_needles(self, attention: str = "auto") -> list[dict[str, Any]]:
        """The needle test in haystacks of held-out texts; nothing where the spec has no lengths."""
        from transformers import AutoTokenizer

        from pipeline.learning.needle import find_needles
        from pipeline.learning.text import load_texts

        tokenizer, texts = AutoTokenizer.from_pretrained(self.spec.tokenizer), load_texts(Path(self.spec.heldout))
        return find_needles(self.model, tokenizer, texts, self.spec.needle, self.spec.seed, attention)

    def _longest(self) -> list[TextBatch]:
        from pipeline.learning.text import load_texts
        from pipeline.learning.text_batches import longest

        return longest(load_texts(Path(self.spec.heldout)), self.packing, self.spec.eval_batches)

    def close(self) -> None:
        """Gives the memory back at once, where the process lives on: hooks on weights are cycles."""
        vars(self).clear()
        gc.collect()

    def export(self, path: str) -> None:
        """Writes the weights with the tokenizer as a checkpoint folder."""
        from transformers import AutoTokenizer

        from model import save_checkpoint

        save_checkpoint(self.model, AutoTokenizer.from_pretrained(self.spec.tokenizer), Path(path))
