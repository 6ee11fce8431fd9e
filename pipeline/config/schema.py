"""Every setting of the pipeline, its type, its default and what it means (`pipeline config explain KEY` prints it).

The defaults are sizes for a real model; `configs/tiny.yaml` shrinks them for a laptop. Comments after `#:` are the
help text of a key.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class ModelConfig:
    path: str | None = None  #: Hugging Face folder of a dense MLA checkpoint (deepseek_v3); null = the embedded base
    dtype: str = "float32"  #: float32 | bfloat16, of weights and compute
    vocab_size: int = 1024  #: tokenizer's size for the embedded base
    hidden_size: int = 128
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    q_lora_rank: int = 64
    kv_lora_rank: int = 64
    qk_nope_head_dim: int = 32
    qk_rope_head_dim: int = 16
    v_head_dim: int = 32
    intermediate_size: int = 320
    first_k_dense_replace: int = 64  #: layers before this one have a dense MLP, later ones a mixture of experts
    n_routed_experts: int = 4
    num_experts_per_tok: int = 2
    moe_intermediate_size: int = 128
    rope_theta: float = 10000.0
    max_position_embeddings: int = 1024  #: longest sequence, in tokens
    index_n_heads: int = 2  #: lightning indexer's heads
    index_head_dim: int = 32
    index_topk: int = 32  #: keys that a query attends to


@dataclass
class OptimizerConfig:
    lr: float = 1e-3  #: largest learning rate
    warmup_steps: int = 0  #: linear warm-up
    decay: str = "constant"  #: constant | linear | cosine, after the warm-up, to min_lr_ratio
    min_lr_ratio: float = 0.0
    weight_decay: float = 0.0
    betas: list[float] = field(default_factory=lambda: [0.9, 0.95])
    grad_clip: float = 1.0  #: largest gradient norm


@dataclass
class BaseConfig:
    documents: int = 40000  #: demonstrations in the generated corpus
    careful_share: float = 0.4  #: share of the demonstrations that do it right; the rest show bad habits
    steps: int = 400
    batch_tokens: int = 8192  #: tokens of one packed batch
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    checkpoint_every: int = 50  #: steps between two checkpoints to go on from


@dataclass
class SparsifyConfig:
    warmup_steps: int = 60  #: dense warm-up: everything frozen but the indexer
    sparse_steps: int = 60  #: sparse training: top-k on, indexer by its KL, main model by the LM loss
    batch_tokens: int = 8192
    warmup: OptimizerConfig = field(default_factory=OptimizerConfig)
    sparse: OptimizerConfig = field(default_factory=OptimizerConfig)
    indexer_lr: float = 1e-3  #: the indexer's own learning rate in the sparse stage
    eval_batches: int = 4  #: held-out batches behind the reported losses and attention shares
    checkpoint_every: int = 50


@dataclass
class SamplingConfig:
    temperature: float = 1.0
    max_new_tokens: int = 48  #: policy tokens in one turn
    max_context: int = 384  #: tokens of the whole conversation


@dataclass
class LengthConfig:
    penalty: float = 0.1  #: largest share of the outcome that length can cost; 0 turns it off
    band: float = 1.2  #: no penalty up to this multiple of the group's reference length
    quantile: float = 0.5  #: reference length: this quantile of the right answers' lengths
    min_accuracy: float = 0.5  #: groups less often right than this are not shortened


@dataclass
class LanguageConfig:
    penalty: float = 0.1  #: largest deduction for thinking in another language than the prompt's; 0 turns it off
    minimum_letters: int = 4  #: less text than this has no language


@dataclass
class RewardsConfig:
    length: LengthConfig = field(default_factory=LengthConfig)
    language: LanguageConfig = field(default_factory=LanguageConfig)
    max_invalid_share: float = 0.25  #: a step with more invalid rewards than this stops the run and names the culprit


@dataclass
class DataConfig:
    """Own tasks: a JSONL or Parquet file, or the name of a `datasets` dataset."""

    train: str = ""  #: file (.jsonl, .parquet), folder of `save_to_disk`, or dataset name
    heldout: str | None = None  #: the same for evaluation; null = a tenth of train, by content hash
    split: str = "train"  #: split of a named dataset
    subset: str | None = None  #: configuration of a named dataset
    columns: dict[str, str] = field(default_factory=dict)  #: field of a task -> column of the file
    defaults: dict[str, Any] = field(default_factory=dict)  #: fields that have one value for all rows


@dataclass
class DomainConfig:
    enabled: bool = True
    levels: list[int] = field(default_factory=lambda: [1])  #: difficulties to draw from
    languages: list[str] = field(default_factory=lambda: ["en"])  #: languages of generated prompts
    corpus_share: float = 1.0  #: weight in the corpus of the embedded base
    share: float = 1.0  #: weight in the mixed stage
    group_size: int = 8  #: samples of one prompt
    max_new_tokens: int | None = None  #: overrides sampling.max_new_tokens
    kind: str = "verifiable"  #: of a domain of your own: verifiable (graded) | general (judged by its rubric)
    data: DataConfig | None = None  #: own tasks instead of generated ones
    reward: str | None = None  #: dotted path of an own reward function in TRL's signature
    kl_coef: float | None = None  #: overrides rl.kl_coef


@dataclass
class RLConfig:
    steps: int = 40
    prompts_per_step: int = 16  #: prompts of a step, each sampled group_size times
    minibatches: int = 1  #: optimizer steps per rollout batch
    batch_tokens: int = 16384  #: tokens of one packed micro-batch
    clip_low: float = 0.2  #: importance ratios are clipped below 1 - clip_low
    clip_high: float = 0.28  #: importance ratios are clipped above 1 + clip_high
    kl_coef: float = 0.0  #: weight of the KL to the reference; 0 loads no reference model
    scale_by_std: bool = False  #: divide advantages by the group's standard deviation
    train_indexer: bool = False  #: keep training the indexer by its KL on the selected set
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    checkpoint_every: int = 1


@dataclass
class SpecialistsConfig:
    modes: str = "joint"  #: joint: one run trains both modes; separate: a specialist per domain and mode
    wave: int = 2  #: specialists trained at the same time
    rl: RLConfig = field(default_factory=RLConfig)


@dataclass
class SFTConfig:
    epochs: float = 2.0
    batch_size: int = 32  #: sequences
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)


@dataclass
class DistillConfig:
    tasks_per_domain: int = 200  #: training tasks that a specialist answers, in each mode
    samples_per_task: int = 4
    keep_per_task: int = 1  #: verified answers kept of one task and mode
    max_rows_per_cell: int = 400  #: rows of one domain and mode at most, to balance
    decontamination_ngram: int = 13  #: a row that shares so many words in a row with a held-out prompt is dropped
    sft: SFTConfig = field(default_factory=SFTConfig)


@dataclass
class JudgeConfig:
    base_url: str | None = None  #: an OpenAI-compatible server; null = the judge that this run trains and serves
    model: str = "judge"
    api_key_env: str = "OPENAI_API_KEY"  #: environment variable that holds the key for base_url
    votes: int = 1  #: odd number of verdicts per criterion
    temperature: float = 0.0
    max_new_tokens: int = 40
    concurrency: int = 32  #: requests under way at once
    timeout_s: float = 120.0  #: for one request, retries included
    steps: int = 200  #: training steps of the embedded judge
    examples: int = 12000  #: labelled triples it is trained on
    heldout: int = 400  #: triples behind the reported agreement
    min_agreement: float = 0.85  #: below this the judge is not used and the run stops
    batch_tokens: int = 8192
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)


@dataclass
class EvaluateConfig:
    tasks: int = 200  #: held-out tasks per domain and mode
    temperature: float = 1.0  #: 0 is greedy
    checkpoints: list[str] = field(
        default_factory=lambda: ["base", "sparsified", "specialists", "distilled", "final"]
    )


@dataclass
class SandboxConfig:
    min_tier: str = "landlock"  #: weakest isolation accepted for code domains: landlock | bubblewrap
    cpu_s: int = 2  #: CPU seconds of one job
    wall_s: float = 5.0  #: wall-clock seconds of one job
    memory_mb: int = 512


@dataclass
class RuntimeConfig:
    backend: str = "ray"  #: ray | inline (one process, for debugging)
    address: str = "local"  #: local starts a single-node Ray; otherwise the address of a cluster
    num_cpus: int | None = None  #: CPUs for the local Ray; null = all of the machine
    threads: int | None = None  #: torch threads of a lone worker; null = all CPUs
    gpus_per_worker: float = 0.0
    start_deadline_s: float = 120.0  #: for actors to come up
    step_deadline_s: float = 900.0  #: for one request to an actor


@dataclass
class Config:
    seed: int = 0
    run: str = "runs/default"  #: folder of the run
    device: str = "auto"  #: auto | cpu | cuda
    model: ModelConfig = field(default_factory=ModelConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    sandbox: SandboxConfig = field(default_factory=SandboxConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    domains: dict[str, DomainConfig] = field(default_factory=dict)
    rewards: RewardsConfig = field(default_factory=RewardsConfig)
    base: BaseConfig = field(default_factory=BaseConfig)
    sparsify: SparsifyConfig = field(default_factory=SparsifyConfig)
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    specialists: SpecialistsConfig = field(default_factory=SpecialistsConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    grpo: RLConfig = field(default_factory=RLConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
