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
    vocab_size: int = 1024  #: size of the embedded base's tokenizer, in tokens
    hidden_size: int = 128  #: width of the residual stream
    num_hidden_layers: int = 4  #: transformer layers
    num_attention_heads: int = 4  #: attention heads of a layer
    q_lora_rank: int = 64  #: width of the compressed query
    kv_lora_rank: int = 64  #: width of the latent that the cache keeps of a token's keys and values
    qk_nope_head_dim: int = 32  #: width of a head's query and key without rotary position
    qk_rope_head_dim: int = 16  #: width of a head's query and key with rotary position
    v_head_dim: int = 32  #: width of a head's value
    intermediate_size: int = 320  #: inner width of a dense MLP
    first_k_dense_replace: int = 64  #: layers before this one have a dense MLP, later ones a mixture of experts
    n_routed_experts: int = 4  #: experts of a mixture that tokens are routed to
    num_experts_per_tok: int = 2  #: routed experts that a token uses
    moe_intermediate_size: int = 128  #: inner width of one expert
    rope_theta: float = 10000.0  #: base of the rotary wavelengths
    max_position_embeddings: int = 1024  #: longest sequence, in tokens
    index_n_heads: int = 2  #: lightning indexer's heads
    index_head_dim: int = 32  #: width of one head of the indexer
    index_topk: int = 32  #: keys that a query attends to


@dataclass
class OptimizerConfig:
    lr: float = 1e-3  #: largest learning rate
    warmup_steps: int = 0  #: steps of linear warm-up
    decay: str = "constant"  #: constant | linear | cosine, after the warm-up, to min_lr_ratio
    min_lr_ratio: float = 0.0  #: learning rate at the end, as a share of lr
    weight_decay: float = 0.0  #: decoupled weight decay, per unit of learning rate
    betas: list[float] = field(default_factory=lambda: [0.9, 0.95])  #: AdamW's decay rates of the two moments
    grad_clip: float = 1.0  #: largest gradient norm


@dataclass
class BaseConfig:
    documents: int = 40000  #: demonstrations in the generated corpus
    careful_share: float = 0.4  #: share of the demonstrations that do it right; the rest show bad habits
    steps: int = 400  #: optimizer steps of pre-training
    batch_tokens: int = 8192  #: tokens of one packed batch
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)  #: optimizer of pre-training
    checkpoint_every: int = 50  #: steps between two checkpoints to go on from


@dataclass
class TextDataConfig:
    """Own texts: a JSONL or Parquet file, or the name of a `datasets` dataset."""

    train: str = ""  #: file (.jsonl, .parquet), folder of `save_to_disk`, or dataset name
    heldout: str | None = None  #: the same for measuring; null = a tenth of train, by content hash
    column: str = "text"  #: column that holds the text
    split: str = "train"  #: split of a named dataset
    subset: str | None = None  #: configuration of a named dataset


@dataclass
class NeedleConfig:
    lengths: list[int] = field(default_factory=list)  #: tokens of the haystacks; empty = no needle test
    depths: int = 5  #: places of the needle, evenly from the beginning to the end
    samples: int = 8  #: haystacks of each length and depth


@dataclass
class SparsifyConfig:
    attention: str = "sparse"  #: sparse | dense; dense trains the dense twin on for sparse_steps, as a control
    data: TextDataConfig | None = None  #: own texts instead of base's corpus; with model.path, base is not needed
    context_length: int | None = None  #: tokens of a packed sequence; null = a document each, as long as it is
    join_documents: bool = False  #: documents of a packed sequence see one another; off, each sees itself alone
    warmup_steps: int = 60  #: steps of dense warm-up: everything frozen but the indexer
    sparse_steps: int = 60  #: steps of sparse training: top-k on, indexer by its KL, main model by the LM loss
    batch_tokens: int = 8192  #: tokens of one packed batch
    warmup_accumulation: int = 1  #: packed batches of one step of the dense warm-up, their gradients summed
    sparse_accumulation: int = 1  #: packed batches of one step of sparse training, their gradients summed
    gradient_checkpointing: bool = False  #: run layers again in sparse training's backward, on the same keys
    warmup: OptimizerConfig = field(default_factory=OptimizerConfig)  #: the indexer's optimizer in the dense warm-up
    sparse: OptimizerConfig = field(default_factory=OptimizerConfig)  #: the main model's optimizer in sparse training
    indexer_lr: float = 1e-3  #: the indexer's own learning rate in the sparse stage
    eval_batches: int = 4  #: batches of the longest held-out texts behind the reported losses and attention shares
    stats_every: int = 20  #: steps between two measurements on those batches; 0 = only before and after a phase
    needle: NeedleConfig = field(default_factory=NeedleConfig)  #: retrieval from haystacks, dense against sparse
    checkpoint_every: int = 50  #: steps between two checkpoints to go on from


@dataclass
class SamplingConfig:
    temperature: float = 1.0  #: softmax temperature of training rollouts
    max_new_tokens: int = 48  #: policy tokens in one turn
    max_context: int = 384  #: tokens of the whole conversation
    batch_invariant: bool = False  #: on a GPU: rollout and learner compute the same bits, whatever the batch; slower


@dataclass
class LengthConfig:
    penalty: float = 0.1  #: largest share of the outcome that length beyond the band can cost; 0 turns it off
    band: float = 1.2  #: no penalty up to this multiple of the group's reference length
    quantile: float = 0.5  #: reference length: this quantile of the right answers' lengths
    min_accuracy: float = 0.5  #: groups less often right than this are not shortened
    overlong_penalty: float = 0.1  #: largest share of the outcome that nearness to the token limit can cost; 0: off
    overlong_share: float = 0.1  #: share of the token limit before its end in which that penalty rises


@dataclass
class LanguageConfig:
    penalty: float = 0.1  #: largest deduction for thinking in another language than the prompt's; 0 turns it off
    minimum_letters: int = 20  #: letters; less text than this has no language


@dataclass
class RewardsConfig:
    length: LengthConfig = field(default_factory=LengthConfig)  #: shorter right answers are worth more
    language: LanguageConfig = field(default_factory=LanguageConfig)  #: thinking stays in the prompt's language
    max_invalid_share: float = 0.25  #: a step with more invalid rewards than this stops the run and names the culprit
    max_silent_steps: int = 3  #: so many steps in a row without one valid reward of a domain stop the run


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
    enabled: bool = True  #: whether the domain takes part
    levels: list[int] = field(default_factory=lambda: [1])  #: difficulties to draw from
    languages: list[str] = field(default_factory=lambda: ["en"])  #: languages of generated prompts
    corpus_share: float = 1.0  #: weight in the corpus of the embedded base
    share: float = 1.0  #: weight in the mixed stage
    group_size: int = 8  #: samples of one prompt
    max_new_tokens: int | None = None  #: policy tokens in one turn; null = sampling.max_new_tokens
    specialist_steps: int | None = None  #: training steps of its specialist; null = specialists.rl.steps
    kind: str = "verifiable"  #: verifiable (graded) | general (judged by rubric); only of a domain of your own
    data: DataConfig | None = None  #: own tasks instead of generated ones
    reward: str | None = None  #: dotted path of an own reward function in TRL's signature
    kl_coef: float | None = None  #: weight of the KL to the reference; null = the one of the RL section


@dataclass
class RLConfig:
    steps: int = 40  #: rollout batches, each followed by its optimizer steps
    prompts_per_step: int = 16  #: prompts of a step, each sampled group_size times
    minibatches: int = 1  #: optimizer steps per rollout batch
    batch_tokens: int = 16384  #: tokens of one packed micro-batch
    clip_low: float = 0.2  #: importance ratios are clipped below 1 - clip_low
    clip_high: float = 0.28  #: importance ratios are clipped above 1 + clip_high
    kl_coef: float = 0.0  #: weight of the KL to the reference; 0 loads no reference model
    scale_by_std: bool = False  #: divide advantages by the group's standard deviation
    advantage_normalization: str = "reward"  #: reward | component: whose deviation; component is GDPO, by each its own
    train_indexer: bool = False  #: keep training the indexer by its KL on the selected set
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)  #: optimizer of the policy
    checkpoint_every: int = 1  #: steps between two checkpoints to go on from


@dataclass
class SpecialistsConfig:
    modes: str = "joint"  #: joint: one run trains both modes; separate: a specialist per domain and mode
    wave: int = 2  #: specialists trained at the same time
    rl: RLConfig = field(default_factory=RLConfig)  #: the RL run of every specialist


@dataclass
class SFTConfig:
    epochs: float = 2.0  #: passes over the dataset
    batch_size: int = 32  #: sequences of one optimizer step
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)  #: optimizer of the fine-tuning


@dataclass
class DistillConfig:
    tasks_per_domain: int = 200  #: training tasks that a specialist answers, in each mode
    samples_per_task: int = 4  #: answers sampled of one task and mode
    keep_per_task: int = 1  #: verified answers kept of one task and mode
    max_rows_per_cell: int = 400  #: rows of one domain and mode at most, to balance
    decontamination_ngram: int = 13  #: a row that shares so many words in a row with a held-out prompt is dropped
    sft: SFTConfig = field(default_factory=SFTConfig)  #: fine-tuning of the generalist on what was kept


@dataclass
class LabelDataConfig:
    """Own labelled triples for the judge: a JSONL or Parquet file, or the name of a `datasets` dataset."""

    train: str = ""  #: file (.jsonl, .parquet), folder of `save_to_disk`, or dataset name
    heldout: str | None = None  #: the same for measuring agreement; null = a tenth of train's questions, by their hash
    split: str = "train"  #: split of a named dataset
    subset: str | None = None  #: configuration of a named dataset


@dataclass
class JudgeConfig:
    base_url: str | None = None  #: an OpenAI-compatible server; null = the judge that this run trains and serves
    model: str = "judge"  #: name of the model that requests ask for
    api_key_env: str = "OPENAI_API_KEY"  #: environment variable that holds the key for base_url
    votes: int = 1  #: odd number of verdicts per criterion
    temperature: float = 0.0  #: softmax temperature of verdicts; 0 is greedy
    max_new_tokens: int = 256  #: tokens of one reply
    criteria_per_call: int = 1  #: criteria asked for together, 1 to 3; the embedded judge has learned one
    guided: bool = False  #: ask base_url for guided decoding (response_format json_schema)
    cache: str | None = None  #: SQLite file that keeps the verdicts of base_url over runs; null = memory only
    host: str = "127.0.0.1"  #: address that the embedded judge listens on; 0.0.0.0 for graders on other machines
    may_be_policy: bool = False  #: allow a judge whose weights are those of the policy that it pays
    canary_every: int = 10  #: steps between two checks of the judge with answers of known verdict; 0 = never
    canary_min_share: float = 0.9  #: of each kind of canary, the share that a judge must get right to go on paying
    canaries: str | None = None  #: JSONL file of own canaries, beside the built-in ones
    concurrency: int = 32  #: requests under way at once
    timeout_s: float = 120.0  #: seconds for one request, retries included
    steps: int = 200  #: training steps of the embedded judge
    data: LabelDataConfig | None = None  #: own labelled triples; null = generated ones about the writing tasks
    examples: int = 12000  #: labelled triples it is trained on, at most
    heldout: int = 400  #: triples behind the reported agreement, at most
    min_agreement: float = 0.85  #: below this the judge is not used and the run stops
    batch_tokens: int = 8192  #: tokens of one packed batch
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)  #: optimizer of the embedded judge


@dataclass
class EvaluateConfig:
    tasks: int = 200  #: held-out tasks per domain and mode
    temperature: float = 1.0  #: 0 is greedy
    checkpoints: list[str] = field(
        default_factory=lambda: ["base", "sparsified", "specialists", "distilled", "final"]
    )  #: checkpoints to compare


@dataclass
class SandboxConfig:
    min_tier: str = "landlock"  #: weakest isolation accepted for code domains: landlock | bubblewrap
    cpu_s: int = 2  #: CPU seconds of one job
    wall_s: float = 5.0  #: wall-clock seconds of one job
    memory_mb: int = 512  #: memory of one job, in MiB
    url: str | None = None  #: a sandbox server of another machine (pipeline sandbox-server); null = this machine's own
    token_env: str = "POLYMATH_SANDBOX_TOKEN"  #: environment variable that holds the token of url, if it wants one


@dataclass
class RuntimeConfig:
    backend: str = "ray"  #: ray | inline (one process, for debugging)
    address: str = "local"  #: local starts a single-node Ray; otherwise the address of a cluster
    num_cpus: int | None = None  #: CPUs for the local Ray; null = all of the machine
    threads: int | None = None  #: torch threads of a lone worker; null = all CPUs
    gpus_per_worker: float = 0.0  #: GPUs of one worker that computes, a fraction shares one
    start_deadline_s: float = 120.0  #: seconds for actors to come up
    step_deadline_s: float = 900.0  #: seconds for one request to an actor


@dataclass
class MetricsConfig:
    sinks: list[str] = field(default_factory=list)  #: copies of events.jsonl for: tensorboard | trackio | wandb
    project: str = "polymath"  #: what trackio and Weights & Biases file the run under


@dataclass
class Config:
    seed: int = 0  #: every random draw follows from it
    run: str = "runs/default"  #: folder of the run
    device: str = "auto"  #: auto | cpu | cuda
    model: ModelConfig = field(default_factory=ModelConfig)  #: size of the embedded model, or where a downloaded one is
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)  #: where actors run, and how long to wait for them
    metrics: MetricsConfig = field(default_factory=MetricsConfig)  #: viewers that get a copy of the metrics
    sandbox: SandboxConfig = field(default_factory=SandboxConfig)  #: limits of programs that the policy writes
    sampling: SamplingConfig = field(default_factory=SamplingConfig)  #: how rollouts are sampled
    domains: dict[str, DomainConfig] = field(default_factory=dict)  #: what is learned, by name of the domain
    rewards: RewardsConfig = field(default_factory=RewardsConfig)  #: what is added to or taken from a verdict
    base: BaseConfig = field(default_factory=BaseConfig)  #: the embedded base: corpus and pre-training
    sparsify: SparsifyConfig = field(default_factory=SparsifyConfig)  #: from dense attention to sparse
    judge: JudgeConfig = field(default_factory=JudgeConfig)  #: the generative reward model of general tasks
    specialists: SpecialistsConfig = field(default_factory=SpecialistsConfig)  #: one policy per domain, by RL
    distill: DistillConfig = field(default_factory=DistillConfig)  #: verified answers into one generalist
    grpo: RLConfig = field(default_factory=RLConfig)  #: the mixed RL stage
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)  #: held-out tasks of every checkpoint
