"""The actor that fine-tunes the generalist with TRL's `SFTTrainer` on the tokens that the specialists wrote."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.config.schema import SFTConfig

CLOSE_DEADLINE_S = 60.0
"""How long `close` waits for the step under way."""


@dataclass(frozen=True)
class SFTSpec:
    """What is trained on what.

    Attributes:
        checkpoint: folder of the weights to start from.
        dataset: folder with the columns `input_ids` and `assistant_masks`.
        work: folder of the trainer's own checkpoints.
        out: folder of the finished checkpoint.
    """

    checkpoint: str
    dataset: str
    work: str
    out: str
    config: SFTConfig
    seed: int
    threads: int
    device: str


@dataclass(frozen=True)
class SFTState:
    """How far it is: optimizer steps done, the trainer's log so far, and whether `out` is written."""

    step: int = 0
    log: list[dict[str, Any]] = field(default_factory=list)
    done: bool = False


def sft_steps(rows: int, config: SFTConfig) -> int:
    """Optimizer steps of the whole training."""
    return max(1, math.ceil(rows / config.batch_size * config.epochs))


class SFTWorker:
    """Trains in a thread of its own, so that the driver can look on. `follow` begins or, after a restart of the actor,
    goes on from the trainer's last checkpoint."""

    uses_gpu = True

    def __init__(self, spec: SFTSpec) -> None:
        self.spec = spec
        self._state = SFTState()
        self._error: BaseException | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def follow(self, seconds: float) -> SFTState:
        """Trains on for at most so many seconds and tells how far it is; raises what the training raised."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()
        self._thread.join(seconds)
        if self._error is not None:
            raise self._error
        return self._state

    def close(self) -> None:
        """Ends the training after the step under way."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(CLOSE_DEADLINE_S)

    def _run(self) -> None:
        try:
            self._train()
        except BaseException as error:  # it belongs to whoever follows
            self._error = error

    def _train(self) -> None:
        import datasets
        import torch
        from transformers import AutoTokenizer, PrinterCallback, TrainerCallback
        from transformers.trainer_utils import get_last_checkpoint
        from trl import SFTConfig as TrainerConfig
        from trl import SFTTrainer

        from model import indexer_parameters, load_checkpoint, save_checkpoint

        spec, config = self.spec, self.spec.config
        torch.set_num_threads(spec.threads)
        datasets.disable_progress_bars()
        tokenizer = AutoTokenizer.from_pretrained(spec.checkpoint)
        model = load_checkpoint(Path(spec.checkpoint), device=spec.device)
        for parameter in indexer_parameters(model):
            parameter.requires_grad_(False)
        rows = datasets.load_from_disk(spec.dataset).select_columns(["input_ids", "assistant_masks"])
        steps = sft_steps(len(rows), config)
        arguments = TrainerConfig(
            output_dir=spec.work,
            max_steps=steps,
            per_device_train_batch_size=config.batch_size,
            train_sampling_strategy="group_by_length",
            learning_rate=config.optimizer.lr,
            lr_scheduler_type={"constant": "constant_with_warmup"}.get(config.optimizer.decay, config.optimizer.decay),
            warmup_steps=config.optimizer.warmup_steps,
            weight_decay=config.optimizer.weight_decay,
            adam_beta1=config.optimizer.betas[0],
            adam_beta2=config.optimizer.betas[1],
            max_grad_norm=config.optimizer.grad_clip,
            max_length=None,
            seed=spec.seed % 2**32,
            data_seed=spec.seed % 2**32,
            use_cpu=spec.device == "cpu",
            bf16=False,
            gradient_checkpointing=False,
            dataloader_pin_memory=False,
            logging_steps=min(5, steps),
            save_steps=max(20, steps // 4),
            save_total_limit=1,
            report_to="none",
            disable_tqdm=True,
        )
        trainer = SFTTrainer(model=model, args=arguments, train_dataset=rows, processing_class=tokenizer)
        trainer.remove_callback(PrinterCallback)  # the log has all that it would print
        worker = self

        class Report(TrainerCallback):
            def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                worker._report(state)
                control.should_training_stop |= worker._stop.is_set()

        trainer.add_callback(Report())
        last = get_last_checkpoint(spec.work) if Path(spec.work).is_dir() else None
        trainer.train(resume_from_checkpoint=last)
        if trainer.state.global_step < steps:
            raise RuntimeError(f"the fine-tuning was stopped at step {trainer.state.global_step} of {steps}")
        save_checkpoint(model, tokenizer, Path(spec.out))
        self._report(trainer.state, done=True)

    def _report(self, state: Any, done: bool = False) -> None:
        log = [entry for entry in state.log_history if "loss" in entry]
        self._state = SFTState(state.global_step, log, done)
