"""The policy: DeepSeek-V3.2 (sparse) and its dense twin DeepSeek-V3, one definition for learner and
sampler."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, DeepseekV3Config, DeepseekV32Config, GenerationConfig, PreTrainedModel
from transformers import initialization as init
from transformers.conversion_mapping import (
    get_checkpoint_conversion_mapping,
    register_checkpoint_conversion_mapping,
)
from transformers.modeling_outputs import CausalLMOutput

from kernels import Group, token_logprob
from kernels.batch_invariant import batch_invariant
from model.attention import ForwardContext
from model.cache import CacheStep, LatentCache
from model.decoder import Decoder, is_sparse
from model.layout import BlockLayout
from model.moe import Experts, Router
from model.packing import PackedBatch
from model.stats import DsaStats

ARCHITECTURES = {"deepseek_v32": "DeepseekV32ForCausalLM", "deepseek_v3": "DeepseekV3ForCausalLM"}


@dataclass(frozen=True)
class PackedOutput:
    """hidden [T, D] after the final norm, in the packed batch's order; indexer_loss: 0-dim KL in nats, summed
    over layers and tokens, or None; stats: the `collect` argument, filled."""

    hidden: Tensor
    indexer_loss: Tensor | None
    stats: DsaStats | None


@dataclass(frozen=True)
class NextTokens:
    """What predicts the next token of N sequences: final hidden states [N, D] and their logits [N, V]."""

    hidden: Tensor
    logits: Tensor

    def __getitem__(self, rows: Tensor) -> NextTokens:
        return NextTokens(self.hidden[rows], self.logits[rows])


class DeepseekForCausalLM(PreTrainedModel):
    """DeepSeek-V3.2 for `DeepseekV32Config`, its dense twin for `DeepseekV3Config`.

    The learner calls `hidden_states` and `token_logprobs` on a `PackedBatch`, the sampler `prefill` and
    `decode` with a `LatentCache`, and trainers of the Hugging Face ecosystem call `forward`.
    """

    config_class = DeepseekV32Config
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _keep_in_fp32_modules = ["indexer.weights_proj"]  # noqa: RUF012
    _keep_in_fp32_modules_strict = ["e_score_correction_bias"]  # noqa: RUF012

    def __init__(self, config: DeepseekV32Config | DeepseekV3Config) -> None:
        _check_config(config)
        super().__init__(config)
        self.model = Decoder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        # For CUDA: a row's numbers do not depend on its companions, so that learner and sampler agree bit for bit.
        self.batch_invariant = False
        # TRL notes its pad token here, although this class has no generate().
        self.generation_config = GenerationConfig()
        self.post_init()

    # -- the learner
    # ---------------------------------------------------------------------------------------------

    def hidden_states(
        self,
        batch: PackedBatch,
        attention: str = "auto",
        indexer_loss: str | None = None,
        collect: DsaStats | None = None,
    ) -> PackedOutput:
        """Runs a packed batch.

        Args:
            batch: T tokens.
            attention: "auto" is sparse for deepseek_v32 and dense for deepseek_v3; "dense" ignores the
                indexer, as its warm-up does; "sparse" attends to the selected keys only.
            indexer_loss: "dense" compares the indexer with dense attention over all visible keys (warm-up,
                needs dense attention), "sparse" over the selected keys (needs sparse attention), None
                computes no loss. Its gradient reaches the indexers only.
            collect: filled with one entry for each layer, at the price of a dense pass without gradient.
        """
        sparse = self._resolve_attention(attention, indexer_loss, collect)
        with self._arithmetic():
            hidden, context = self.model.packed(batch, sparse, indexer_loss=indexer_loss, stats=collect)
        loss = torch.stack(list(context.indexer_losses.values())).sum() if context.indexer_losses else None
        return PackedOutput(hidden, loss, collect)

    def token_logprobs(
        self,
        batch: PackedBatch,
        temperature: float = 1.0,
        hidden: Tensor | None = None,
        with_entropy: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """log pi(token t | tokens before t) for every token, in nats.

        Args:
            batch: T tokens.
            temperature: divides the logits.
            hidden: [T, D] from `hidden_states`; computed when not given.
            with_entropy: also return the entropy of the distribution that token t was drawn from.

        Returns:
            [T] log-probabilities (and [T] entropies); 0 at the first token of each sequence, which nothing
            predicts. Float32 or wider. [T, V] logits are never kept.
        """
        if hidden is None:
            hidden = self.hidden_states(batch).hidden
        ids = batch.input_ids.to(hidden.device)
        with self._arithmetic():
            logprobs, entropy = token_logprob(hidden[:-1], self.lm_head.weight, ids[1:], temperature, with_entropy)
        first = batch.position_ids.to(hidden.device) == 0
        logprobs = nn.functional.pad(logprobs, (1, 0)).masked_fill(first, 0)
        if entropy is None:
            return logprobs
        return logprobs, nn.functional.pad(entropy, (1, 0)).masked_fill(first, 0)

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., D] hidden states -> [..., V] next-token logits."""
        return self.lm_head(hidden)

    # -- the sampler
    # ---------------------------------------------------------------------------------------------

    @torch.no_grad()
    def prefill(self, batch: PackedBatch, cache: LatentCache, slots: Tensor) -> NextTokens:
        """Appends sequence i of the batch to slot `slots[i]`, whatever that slot already holds.

        The batch's own position_ids are not used: positions go on from each slot's length.
        """
        lengths = batch.lengths
        layout = BlockLayout.build(lengths, self.device)
        rows = self._run_cached(batch.input_ids.to(self.device)[layout.row_token], layout, cache, slots, lengths)
        last = layout.token_row[batch.cu_seqlens[1:].to(self.device).long() - 1]
        return self._next_tokens(rows[last])

    @torch.no_grad()
    def decode(self, tokens: Tensor, cache: LatentCache, slots: Tensor) -> NextTokens:
        """Appends one token to each slot: tokens [B], slots [B]."""
        count = len(tokens)
        index = torch.arange(count)
        layout = BlockLayout((Group(count, 1),), (index,), index, index, index, None)
        return self._next_tokens(self._run_cached(tokens.to(self.device), layout, cache, slots, [1] * count))

    @torch.no_grad()
    def score(self, hidden: Tensor, tokens: Tensor, temperature: float = 1.0) -> Tensor:
        """log pi of tokens [N] that follow hidden states [N, D], by the operator that the learner uses: [N] nats."""
        with self._arithmetic():
            return token_logprob(hidden, self.lm_head.weight, tokens, temperature)[0]

    def _next_tokens(self, hidden: Tensor) -> NextTokens:
        with self._arithmetic():
            return NextTokens(hidden, self.lm_head(hidden))

    def _run_cached(
        self, ids: Tensor, layout: BlockLayout, cache: LatentCache, slots: Tensor, lengths: list[int]
    ) -> Tensor:
        sparse = is_sparse(self.config)
        if sparse != (cache.index_k is not None):
            raise ValueError(f"the cache was not made for a {self.config.model_type} model; make it with its config")
        step = CacheStep.build(cache, slots, lengths, layout)
        positions = torch.cat([group.positions.flatten() for group in step.groups])
        with self._arithmetic():
            rows = self.model.run(ids, ForwardContext(layout, self.model.rope(positions), sparse, cache=step))
        cache.lengths[slots.cpu()] += torch.tensor(lengths)
        return rows

    # -- Hugging Face
    # --------------------------------------------------------------------------------------------

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool = False,
        **loss_kwargs: Any,
    ) -> CausalLMOutput:
        """input_ids [B, L] -> logits [B, L, V], and the mean next-token loss where labels [B, L] are not
        -100.

        Padding and packing as for `Decoder.forward`; logits at padding are those of a zero hidden state.
        """
        hidden = self.model(input_ids, attention_mask, position_ids, use_cache).last_hidden_state
        logits = self.lm_head(hidden)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **loss_kwargs)
        return CausalLMOutput(loss=loss, logits=logits)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, path: Any, *args: Any, config: Any = None, **kwargs: Any
    ) -> DeepseekForCausalLM:
        """As `PreTrainedModel.from_pretrained`, for either of the two model types."""
        config = config if config is not None else AutoConfig.from_pretrained(path)
        return super().from_pretrained(path, *args, config=config, **kwargs)

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """As `PreTrainedModel.save_pretrained`, naming the transformers class as the architecture."""
        super().save_pretrained(save_directory, *args, **kwargs)
        self.config.architectures = [ARCHITECTURES[self.config.model_type]]
        self.config.save_pretrained(save_directory)

    def get_input_embeddings(self) -> nn.Module:
        return self.model.embed_tokens

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        std = self.config.initializer_range
        if isinstance(module, Router):
            init.normal_(module.weight, mean=0.0, std=std)
            init.zeros_(module.e_score_correction_bias)
        elif isinstance(module, Experts):
            init.normal_(module.gate_up_proj, mean=0.0, std=std)
            init.normal_(module.down_proj, mean=0.0, std=std)

    # -- inside
    # --------------------------------------------------------------------------------------------------

    def _arithmetic(self) -> AbstractContextManager[None]:
        return batch_invariant() if self.batch_invariant else nullcontext()

    def _resolve_attention(self, attention: str, indexer_loss: str | None, collect: DsaStats | None) -> bool:
        has_indexer = is_sparse(self.config)
        if attention not in ("auto", "dense", "sparse"):
            raise ValueError(f"attention must be 'auto', 'dense' or 'sparse', not {attention!r}")
        sparse = has_indexer if attention == "auto" else attention == "sparse"
        if not has_indexer and (sparse or indexer_loss or collect is not None):
            raise ValueError("this deepseek_v3 model has no indexer; make a deepseek_v32 model of it with add_indexer")
        if indexer_loss not in (None, "dense", "sparse"):
            raise ValueError(f"indexer_loss must be None, 'dense' or 'sparse', not {indexer_loss!r}")
        if indexer_loss is not None and (indexer_loss == "sparse") != sparse:
            ran = "sparse" if sparse else "dense"
            raise ValueError(f"indexer_loss {indexer_loss!r} needs {indexer_loss} attention, but attention is {ran}")
        return sparse


# On disk experts are apart, in the module they are stacked; transformers converts when the class is
# registered.
register_checkpoint_conversion_mapping(
    DeepseekForCausalLM.__name__, get_checkpoint_conversion_mapping("deepseek_v3"), overwrite=True
)


def _check_config(config: Any) -> None:
    if config.model_type not in ARCHITECTURES:
        raise ValueError(f"model_type must be one of {sorted(ARCHITECTURES)}, not {config.model_type!r}")
    if config.q_lora_rank is None:
        raise ValueError("q_lora_rank must be set: the indexer reads the query latent")
    if config.tie_word_embeddings:
        raise ValueError("tie_word_embeddings must be false: DeepSeek's head is untied")
    if config.hidden_act != "silu":
        raise ValueError(f"hidden_act must be 'silu', not {config.hidden_act!r}")
    if not getattr(config, "rope_interleave", True):
        raise ValueError("rope_interleave must be true: the main attention rotates interleaved pairs")
    if is_sparse(config) and config.index_head_dim < config.qk_rope_head_dim:
        raise ValueError(
            f"index_head_dim ({config.index_head_dim}) must be at least qk_rope_head_dim ({config.qk_rope_head_dim})"
        )
