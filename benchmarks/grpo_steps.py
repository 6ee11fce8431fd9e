"""The two sides of `benchmarks.loop_vs_trl`: GRPO steps of ours and of TRL's `GRPOTrainer`, timed.

Both sides write completions of the same forced lengths. Random weights would end a turn at random, so the end token
lies outside the model's vocabulary. Our engine takes a limit per request; TRL has none, so its `generate` gets a
stopping criterion per row, and the padding that transformers writes behind a stopped row, which the model is kept from
drawing, is named to TRL as an end token.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.config.schema import (
    Config,
    DomainConfig,
    ModelConfig,
    OptimizerConfig,
    RLConfig,
    RuntimeConfig,
    SamplingConfig,
)

TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"
NEVER = "<|never|>"
"""End token that the model's vocabulary does not hold."""
DOMAIN = "bench"
LR, CLIP_LOW, CLIP_HIGH = 1e-3, 0.2, 0.28


@dataclass(frozen=True)
class Shape:
    """Sizes of a step: `prompts` x `group` sequences of `prompt_length` + `completion_length` tokens.

    With `ragged` the completion length is the mean, and lengths are even between 2 and twice the mean: what a policy
    that thinks writes is spread at least as widely.
    """

    prompts: int
    group: int
    prompt_length: int
    completion_length: int
    hidden: int
    layers: int
    ragged: bool

    @property
    def lengths(self) -> list[int]:
        """Completion tokens of each sequence, prompt by prompt: the same in each step."""
        count = self.prompts * self.group
        if not self.ragged:
            return [self.completion_length] * count
        spread = [round(2 + (2 * self.completion_length - 4) * i / (count - 1)) for i in range(count)]
        random.Random(0).shuffle(spread)
        return spread

    @property
    def tokens(self) -> int:
        """Prompt and completion tokens of one step."""
        return self.prompts * self.group * self.prompt_length + sum(self.lengths)


@dataclass(frozen=True)
class StepTime:
    """Seconds of one step; what is neither rollout nor update is the reward and the passing about of data."""

    total: float
    rollout: float
    update: float


Contender = Callable[[int], list[StepTime]]
"""Takes so many steps and says how long each took."""


def digit_share(completions: Sequence[Any], **columns: Any) -> list[float]:
    """Share of digits among the characters of each completion: cheap, and different from sample to sample."""
    texts = [completion[0]["content"] for completion in completions]
    return [sum(c.isdigit() for c in text) / max(1, len(text)) for text in texts]


def make_prompts(shape: Shape) -> list[str]:
    """Prompts of digits, each of which is a token."""
    rng = random.Random(0)
    return ["".join(rng.choices("0123456789", k=shape.prompt_length)) for _ in range(shape.prompts)]


def make_checkpoint(shape: Shape, folder: Path) -> None:
    """A random sparse model of the pipeline's default shape, with a tokenizer whose end token it cannot write."""
    from model import add_indexer, save_checkpoint
    from model.tokenizer import train_tokenizer
    from pipeline.learning.build import new_model

    config = ModelConfig(hidden_size=shape.hidden, num_hidden_layers=shape.layers)
    words = random.Random(1)
    letters = "abcdefghijklmnopqrstuvwxyz"
    texts = [" ".join("".join(words.choices(letters, k=4)) for _ in range(20)) for _ in range(500)]
    tokenizer = train_tokenizer(texts, config.vocab_size)
    with tempfile.TemporaryDirectory() as plain:
        tokenizer.save_pretrained(plain)
        dense = new_model(config, Path(plain), seed=0, device="cpu")
    model = add_indexer(dense, config.index_n_heads, config.index_head_dim, config.index_topk, seed=0)
    tokenizer.add_special_tokens({"eos_token": NEVER})
    tokenizer.chat_template = TEMPLATE
    model.config.eos_token_id = tokenizer.eos_token_id
    save_checkpoint(model, tokenizer, folder)


@contextmanager
def ours(backend: str, shape: Shape, prompts: Sequence[str], checkpoint: Path, threads: int) -> Iterator[Contender]:
    """The policy's actor and the grader's, driven as `pipeline.learning.rl` drives them."""
    from pipeline.grader import Grader
    from pipeline.learning.rl import RLRun, grade, make_trials
    from pipeline.policy_worker import PolicySpec, PolicyWorker
    from pipeline.runtime import create_runtime
    from rollout.records import Task

    never = 10**9
    optimizer = OptimizerConfig(lr=LR, betas=[0.9, 0.999])
    rl = RLConfig(steps=never, clip_low=CLIP_LOW, clip_high=CLIP_HIGH, optimizer=optimizer, checkpoint_every=never)
    domain = DomainConfig(group_size=shape.group, reward=f"benchmarks.grpo_steps:{digit_share.__name__}")
    lengths = shape.lengths
    config = Config(
        sampling=SamplingConfig(max_new_tokens=max(lengths), max_context=shape.prompt_length + max(lengths) + 1),
        domains={DOMAIN: domain},
        runtime=RuntimeConfig(backend=backend),
        grpo=rl,
    )
    tasks = [
        Task(f"{DOMAIN}/{number}", DOMAIN, ({"role": "user", "content": prompt},), "direct")
        for number, prompt in enumerate(prompts)
    ]
    run = RLRun("grpo", DOMAIN, rl, lambda step: tasks)
    runtime = create_runtime(config)
    try:
        with tempfile.TemporaryDirectory() as state:
            spec = PolicySpec(str(checkpoint), state, rl, {}, threads, "cpu", sandboxed=False)
            policy = runtime.spawn(PolicyWorker, spec, config, name="policy", num_cpus=1)
            grader = runtime.spawn(Grader, config, None, name="grader", num_cpus=0.1)

            def steps(count: int) -> list[StepTime]:
                done = policy.call("last").result().steps
                return [step(number) for number in range(done, done + count)]

            def step(number: int) -> StepTime:
                started = time.perf_counter()
                trials = make_trials(run, config, number)
                trials = [replace(t, max_new_tokens=n) for t, n in zip(trials, lengths, strict=True)]
                trajectories = policy.call("rollout", trials).result()
                rolled = time.perf_counter()
                groups = grade(trajectories, grader)
                graded = time.perf_counter()
                policy.call("update", number, groups, {}).result()
                ended = time.perf_counter()
                assert [len(t.token_ids) - shape.prompt_length for t in trajectories] == lengths
                return StepTime(ended - started, rolled - started, ended - graded)

            yield steps
    finally:
        runtime.shutdown()


def trl(shape: Shape, prompts: Sequence[str], checkpoint: Path) -> Contender:
    """`GRPOTrainer` on transformers' `DeepseekV32ForCausalLM`; a step ends where the trainer says so."""
    import torch
    from datasets import Dataset
    from transformers import AutoTokenizer, DeepseekV32ForCausalLM, PrinterCallback, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    lengths = shape.lengths

    def stopped(input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        # One token short where padding follows, which counts as the end token.
        limits = torch.tensor([n if n == max(lengths) else n - 1 for n in lengths])
        return limits <= input_ids.shape[1] - shape.prompt_length

    generation: list[float] = []
    ends: list[float] = []

    class Timed(GRPOTrainer):  # type: ignore[misc, valid-type]
        def _generate(self, *args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            result = super()._generate(*args, **kwargs)
            generation.append(time.perf_counter() - started)
            return result

        def _generate_and_score_completions(self, *args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            result = super()._generate_and_score_completions(*args, **kwargs)
            scoring.append(time.perf_counter() - started)
            return result

    class Clock(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            ends.append(time.perf_counter())

    def reward(completions: Any, completion_ids: Any, **columns: Any) -> list[float | None]:
        assert [len(ids) for ids in completion_ids] == lengths
        return list(digit_share(completions))

    scoring: list[float] = []
    batch = shape.prompts * shape.group
    output = tempfile.mkdtemp()

    def steps(count: int) -> list[StepTime]:
        for log in (generation, scoring, ends):
            log.clear()
        config = GRPOConfig(
            output_dir=output, per_device_train_batch_size=batch, gradient_accumulation_steps=1,
            steps_per_generation=1, num_iterations=1, num_generations=shape.group,
            max_completion_length=max(lengths), temperature=1.0, top_p=1.0, top_k=0, beta=0.0,
            generation_kwargs={"suppress_tokens": [tokenizer.pad_token_id]},
            loss_type="grpo", scale_rewards="none", epsilon=CLIP_LOW, epsilon_high=CLIP_HIGH, max_steps=count,
            learning_rate=LR, lr_scheduler_type="constant", weight_decay=0.0, max_grad_norm=1.0, use_cpu=True,
            bf16=False, gradient_checkpointing=False, report_to=[], logging_strategy="no", save_strategy="no",
            disable_tqdm=True, dataloader_pin_memory=False,
        )  # fmt: skip
        rows = [{"prompt": [{"role": "user", "content": prompt}]} for prompt in prompts]
        trainer = Timed(
            model=model, args=config, reward_funcs=reward, train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer, callbacks=[Clock()],
        )  # fmt: skip
        trainer.eos_token_ids = [tokenizer.pad_token_id]
        trainer.remove_callback(PrinterCallback)
        begun = time.perf_counter()
        trainer.train()
        starts = [begun, *ends[:-1]]
        return [
            StepTime(end - start, made, end - start - scored)
            for start, end, made, scored in zip(starts, ends, generation, scoring, strict=True)
        ]

    model = DeepseekV32ForCausalLM.from_pretrained(checkpoint)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model.generate = partial(model.generate, stopping_criteria=[stopped])
    return steps
