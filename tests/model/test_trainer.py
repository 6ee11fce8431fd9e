"""The model inside TRL's SFTTrainer, with assistant-only labels, saving and resuming."""

from pathlib import Path

import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer

from model import DeepseekForCausalLM, load_checkpoint
from tests.model.tiny_models import sparse_config

TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|end|>"
    "{% endgeneration %}{% else %}{{ m.content }}<|end|>{% endif %}{% endfor %}"
)


def tokenizer() -> PreTrainedTokenizerFast:
    words = ["<|pad|>", "<|end|>", "plus", "is", *map(str, range(30))]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<|pad|>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<|pad|>", eos_token="<|end|>")
    made.chat_template = TEMPLATE
    return made


@pytest.mark.filterwarnings("ignore")
def test_sft_trainer_learns_saves_and_resumes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = DeepseekForCausalLM(sparse_config(vocab_size=64))
    questions = [" plus ".join(str((i + j) % 10) for j in range(1 + i % 12)) for i in range(16)]
    rows = [
        {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": str(i % 3)}]}
        for i, q in enumerate(questions)
    ]
    config = SFTConfig(
        output_dir=str(tmp_path), max_steps=8, save_steps=4, learning_rate=1e-2,
        per_device_train_batch_size=8,
        assistant_only_loss=True, logging_steps=1, report_to=[], use_cpu=True, bf16=False,
        gradient_checkpointing=False, disable_tqdm=True,
    )  # fmt: skip
    trainer = SFTTrainer(model, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer())
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < 0.7 * losses[0]
    saved = load_checkpoint(tmp_path / "checkpoint-8").state_dict()
    assert all(torch.equal(saved[name], tensor) for name, tensor in model.state_dict().items())

    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, saved[name], atol=1e-5, rtol=1e-4)
