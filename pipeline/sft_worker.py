"""The actor that fine-tunes the generalist with TRL's `SFTTrainer` on the tokens that the specialists wrote."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from pipeline.config.schema import SFTConfig


class SFTWorker:
    """`train` may be repeated: it goes on from the trainer's last checkpoint, and a finished run is not done again."""

    uses_gpu = True

    def __init__(self, torch_threads: int) -> None:
        import torch

        torch.set_num_threads(torch_threads)

    def train(
        self, checkpoint: str, dataset: str, work: str, out: str, config: SFTConfig, seed: int, device: str
    ) -> list[dict[str, Any]]:
        """Trains `checkpoint` on the dataset folder, writes the checkpoint folder `out`; the trainer's log."""
        import datasets
        from transformers import AutoTokenizer, PrinterCallback
        from transformers.trainer_utils import get_last_checkpoint
        from trl import SFTConfig as TrainerConfig
        from trl import SFTTrainer

        from model import indexer_parameters, load_checkpoint, save_checkpoint

        datasets.disable_progress_bars()
        tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        model = load_checkpoint(Path(checkpoint), device=device)
        for parameter in indexer_parameters(model):
            parameter.requires_grad_(False)
        rows = datasets.load_from_disk(dataset).select_columns(["input_ids", "assistant_masks"])
        steps = max(1, math.ceil(len(rows) / config.batch_size * config.epochs))
        arguments = TrainerConfig(
            output_dir=work,
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
            seed=seed % 2**32,
            data_seed=seed % 2**32,
            use_cpu=device == "cpu",
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
        trainer.remove_callback(PrinterCallback)  # the log history has all that it would print
        last = get_last_checkpoint(work) if Path(work).is_dir() else None
        trainer.train(resume_from_checkpoint=last)
        save_checkpoint(model, tokenizer, Path(out))
        return [entry for entry in trainer.state.log_history if "loss" in entry]
