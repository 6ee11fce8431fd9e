"""The actor that trains on text: the dense base, the indexer's warm-up, sparse training, and the judge.

Idempotent by step number like the policy's actor: `advance` goes on from the committed step, and repeated requests for
steps that are done get the stored metrics.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.config.schema import ModelConfig, OptimizerConfig

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
        texts, heldout: files of `save_texts`.
        state: folder of the training states.
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
    eval_batches: int = 4
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
        from pipeline.learning.optimizer import Muon, adamw, split_for_muon
        from pipeline.learning.text import TextBatches, load_texts

        torch.set_num_threads(spec.threads)
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
        self.model = model
        self.indexer, self.main = list(indexer_parameters(model)), list(main_parameters(model))
        for parameter in self.main:
            parameter.requires_grad_(spec.objective != "indexer_warmup")
        for parameter in self.indexer:
            parameter.requires_grad_(spec.objective != "language_model")
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.parameters: dict[str, list[torch.nn.Parameter]] = {}
        if spec.muon:
            self.parameters["matrices"], self.parameters["main"] = split_for_muon(model)
            self.optimizers["matrices"] = Muon(
                self.parameters["matrices"], spec.optimizer.lr, spec.optimizer.betas[1], spec.optimizer.weight_decay
            )
        elif spec.objective != "indexer_warmup":
            self.parameters["main"] = [p for p in self.main if p.requires_grad]
        if spec.objective != "language_model":
            self.parameters["indexer"] = self.indexer
        for name in set(self.parameters) - {"matrices"}:
            self.optimizers[name] = adamw(self.parameters[name], spec.optimizer)
        self.batches = TextBatches(load_texts(Path(spec.texts)), spec.batch_tokens, spec.seed)
        self.step = 0
        self._log: list[dict[str, float]] = []
        if saved:
            state = torch.load(saved.folder / "optimizer.pt", map_location=spec.device, weights_only=True)
            for name, optimizer in self.optimizers.items():
                optimizer.load_state_dict(state[name])
            self.step, self._log = saved.step, list(saved.extra["log"])

    def committed(self) -> int:
        """Steps that are done."""
        return self.step

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
        from pipeline.learning.text import text_loss

        spec = self.spec
        self.model.train()
        batch = self.batches.batch(step).to(self.model.device)
        tokens = len(batch.packed.input_ids)
        metrics: dict[str, float] = {"tokens": float(tokens)}
        attention = "dense" if spec.objective == "indexer_warmup" else "auto"
        kl_stage = {"language_model": None, "indexer_warmup": "dense", "sparse": "sparse"}[spec.objective]
        output = self.model.hidden_states(batch.packed, attention=attention, indexer_loss=kl_stage)
        losses = []
        if spec.objective != "indexer_warmup":
            loss = text_loss(self.model, batch, output.hidden)
            metrics["loss"] = float(loss.detach())
            losses.append(loss)
        if output.indexer_loss is not None:
            kl = output.indexer_loss / tokens
            metrics["indexer_kl"] = float(kl.detach())
            losses.append(kl)
        sum(losses[1:], losses[0]).backward()
        scale = learning_rate(step, spec.steps, spec.optimizer) / spec.optimizer.lr
        # Clipped apart: the losses share no parameter, and one's spikes must not slow the other.
        for name, optimizer in self.optimizers.items():
            lr = spec.indexer_lr if name == "indexer" and spec.indexer_lr is not None else spec.optimizer.lr
            norm = optimizer_step(optimizer, self.parameters[name], lr * scale, spec.optimizer.grad_clip)
            metrics[f"grad_norm/{name}"] = norm
        return metrics

    def _commit(self) -> None:
        import torch

        from pipeline.learning.checkpoints import save_state

        def write(folder: Path) -> None:
            self.model.save_pretrained(folder / "model")
            torch.save({name: o.state_dict() for name, o in self.optimizers.items()}, folder / "optimizer.pt")

        save_state(Path(self.spec.state), self.step, write, {"log": self._log})

    def measure(self, attention: str = "auto") -> dict[str, Any]:
        """LM loss (nats per token) on the longest held-out texts, where the selection leaves most keys out, and, for a
        sparse model, per layer the share of dense attention mass that the top-k captures, the tie rate at the k-th
        score and its margin."""
        import torch

        from model import DsaStats
        from pipeline.learning.text import in_runs, load_texts, text_loss

        self.model.eval()
        texts = load_texts(Path(self.spec.heldout))
        batches = in_runs(texts, self.spec.batch_tokens)[-self.spec.eval_batches :]
        sparse = self.model.config.model_type == "deepseek_v32"
        loss, tokens, layers = 0.0, 0, []
        with torch.no_grad():
            for batch in (b.to(self.model.device) for b in batches):
                stats = DsaStats() if sparse else None
                output = self.model.hidden_states(batch.packed, attention=attention, collect=stats)
                counted = int(batch.mask.sum())
                loss += float(text_loss(self.model, batch, output.hidden)) * counted
                tokens += counted
                if stats is not None:
                    layers.append([vars(layer) for layer in stats.layers])
        result: dict[str, Any] = {"loss": loss / tokens, "tokens": tokens}
        if layers:
            result["layers"] = [
                {name: sum(run[i][name] for run in layers) / len(layers) for name in layers[0][i]}
                for i in range(len(layers[0]))
            ]
        return result

    def export(self, path: str) -> None:
        """Writes the weights with the tokenizer as a checkpoint folder."""
        from transformers import AutoTokenizer

        from model import save_checkpoint

        save_checkpoint(self.model, AutoTokenizer.from_pretrained(self.spec.tokenizer), Path(path))
