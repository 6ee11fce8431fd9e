"""What values a setting may have: one table for single keys, one list of checks between keys."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import Any

from pipeline.config.keys import did_you_mean
from pipeline.config.schema import Config, DomainConfig
from pipeline.stages import CHECKPOINTS
from rewards.router import MAX_PENALTY
from specialists import DOMAINS

Check = Callable[[Any], bool]
Finding = tuple[tuple[str, ...], str, str | None]
"""Keys concerned (the one to name first), the sentence, what may have been meant."""

SINK_NAMES = ("tensorboard", "trackio", "wandb")


@dataclasses.dataclass(frozen=True)
class Range:
    """What the keys that match one of `patterns` must be; `words` completes "must be …"."""

    patterns: tuple[str, ...]
    check: Check
    words: str
    choices: tuple[str, ...] = ()


def _at_least(smallest: float) -> Check:
    return lambda value: value >= smallest


def _one_of(*choices: str, keys: tuple[str, ...]) -> Range:
    return Range(keys, lambda value: value in choices, f"one of {', '.join(choices)}", choices)


def _is_share(value: float) -> bool:
    return 0 <= value <= 1


RANGES: tuple[Range, ...] = (
    _one_of("auto", "cpu", "cuda", keys=("device",)),
    _one_of("float32", "bfloat16", keys=("model.dtype",)),
    _one_of("sparse", "dense", keys=("sparsify.attention",)),
    _one_of("constant", "linear", "cosine", keys=("*.decay",)),
    _one_of("ray", "inline", keys=("runtime.backend",)),
    _one_of("joint", "separate", keys=("specialists.modes",)),
    _one_of("reward", "component", keys=("*.advantage_normalization",)),
    _one_of("landlock", "bubblewrap", keys=("sandbox.min_tier",)),
    _one_of("verifiable", "general", keys=("domains.*.kind",)),
    Range(
        (
            "seed",
            "*.steps",
            "*_steps",
            "sparsify.stats_every",
            "model.first_k_dense_replace",
            "*.weight_decay",
            "*.kl_coef",
            "judge.temperature",
            "judge.canary_every",
            "evaluate.temperature",
            "domains.*.share",
            "domains.*.corpus_share",
            "rewards.language.minimum_letters",
            "runtime.gpus_per_worker",
        ),
        _at_least(0),
        "0 or more",
    ),
    Range(
        (
            "model.hidden_size",
            "model.num_*",
            "model.*_lora_rank",
            "model.qk_nope_head_dim",
            "model.v_head_dim",
            "model.*intermediate_size",
            "model.n_routed_experts",
            "model.index_n_heads",
            "model.index_topk",
            "base.documents",
            "*.checkpoint_every",
            "*.batch_tokens",
            "*.batch_size",
            "*.max_new_tokens",
            "sparsify.*_accumulation",
            "sparsify.eval_batches",
            "sparsify.needle.depths",
            "sparsify.needle.samples",
            "*.prompts_per_step",
            "*.minibatches",
            "specialists.wave",
            "distill.tasks_per_domain",
            "distill.samples_per_task",
            "distill.keep_per_task",
            "distill.max_rows_per_cell",
            "distill.decontamination_ngram",
            "judge.concurrency",
            "judge.examples",
            "judge.heldout",
            "evaluate.tasks",
            "rewards.max_silent_steps",
            "runtime.num_cpus",
            "runtime.threads",
        ),
        _at_least(1),
        "1 or more",
    ),
    Range(("model.vocab_size",), _at_least(300), "300 or more (256 bytes and the special tokens)"),
    Range(
        ("model.max_position_embeddings", "sampling.max_context", "sparsify.context_length", "domains.*.group_size"),
        _at_least(2),
        "2 or more",
    ),
    Range(("sandbox.memory_mb",), _at_least(16), "16 or more"),
    Range(("rewards.length.band",), _at_least(1), "1 or more (a multiple of the reference length)"),
    Range(("model.qk_rope_head_dim",), lambda value: value >= 2 and value % 2 == 0, "even and 2 or more"),
    Range(("model.index_head_dim",), lambda value: value >= 2 and value % 2 == 0, "even and 2 or more"),
    Range(
        ("judge.votes",),
        lambda value: value >= 1 and value % 2 == 1,
        "odd and 1 or more, so that a vote is never tied",
    ),
    Range(
        (
            "*.lr",
            "*.indexer_lr",
            "*.grad_clip",
            "model.rope_theta",
            "sampling.temperature",
            "distill.sft.epochs",
            "*.clip_high",
            "*_s",
        ),
        lambda value: value > 0,
        "greater than 0",
    ),
    Range(("*.clip_low",), lambda value: 0 < value < 1, "between 0 and 1, both excluded"),
    Range(
        (
            "*.min_lr_ratio",
            "base.careful_share",
            "rewards.length.quantile",
            "rewards.length.min_accuracy",
            "rewards.max_invalid_share",
            "judge.min_agreement",
            "judge.canary_min_share",
        ),
        _is_share,
        "a share between 0 and 1",
    ),
    Range(
        ("rewards.*.penalty", "rewards.*.overlong_penalty"),
        lambda value: 0 <= value <= MAX_PENALTY,
        f"a share between 0 and {MAX_PENALTY}, so that a right answer always beats a wrong one",
    ),
    Range(("rewards.length.overlong_share",), lambda value: 0 < value <= 1, "above 0 and at most 1"),
    Range(
        ("*.betas",),
        lambda value: len(value) == 2 and all(0 <= beta < 1 for beta in value),
        "two numbers in [0, 1)",
    ),
    Range(
        ("domains.*.levels",),
        lambda value: bool(value) and all(level >= 1 for level in value),
        "a list of levels from 1, at least one",
    ),
    Range(
        ("domains.*.languages",),
        lambda value: bool(value) and all(re.fullmatch("[a-z]{2}", code) for code in value),
        "a list of ISO 639-1 codes such as en, at least one",
    ),
    Range(
        ("domains.*.reward",),
        lambda value: re.fullmatch(r"[A-Za-z_]\w*([.:][A-Za-z_]\w*)+", value) is not None,
        "a dotted path of a function, such as my_package.rewards.score",
    ),
    Range(("judge.criteria_per_call",), lambda value: 1 <= value <= 3, "1, 2 or 3"),
    Range(
        ("judge.base_url", "sandbox.url"),
        lambda value: value.startswith(("http://", "https://")),
        "an http:// or https:// address",
    ),
    Range(
        ("judge.api_key_env", "sandbox.token_env"),
        lambda value: re.fullmatch(r"[A-Za-z_]\w*", value) is not None,
        "the name of an environment variable, not the key itself",
    ),
    Range(
        ("run", "judge.model", "judge.host", "metrics.project", "runtime.address", "*.data.split",
         "sparsify.data.column"),
        lambda value: bool(value.strip()),
        "some text",
    ),
    Range(
        ("sparsify.needle.lengths",),
        lambda value: all(length >= 2 for length in value),
        "a list of lengths of 2 tokens or more",
    ),
    Range(
        ("metrics.sinks",),
        lambda value: set(value) <= set(SINK_NAMES),
        f"a list of some of {', '.join(SINK_NAMES)}",
        SINK_NAMES,
    ),
    Range(
        ("evaluate.checkpoints",),
        lambda value: bool(value) and set(value) <= set(CHECKPOINTS),
        f"a list of some of {', '.join(CHECKPOINTS)}",
        tuple(CHECKPOINTS),
    ),
)


@functools.cache
def range_of(key: str) -> Range | None:
    """The rule for a key, None where any value of its type will do."""
    return next(
        (rule for rule in RANGES if any(fnmatchcase(key, pattern) for pattern in rule.patterns)), None
    )


def leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(full key, value) of every setting in a config."""
    for field in dataclasses.fields(value):
        inner, path = getattr(value, field.name), f"{prefix}{field.name}"
        if dataclasses.is_dataclass(inner):
            yield from leaves(inner, f"{path}.")
        elif field.name == "domains":
            for name, domain in inner.items():
                yield from leaves(domain, f"{path}.{name}.")
        else:
            yield path, inner


def validate(config: Config) -> list[Finding]:
    """Everything that is wrong with the values of a well-typed config."""
    findings = [finding for key, value in leaves(config) for finding in _check_one(key, value)]
    wrong = {finding[0][0] for finding in findings}
    findings += [finding for finding in _check_domains(config) if not wrong.intersection(finding[0])]
    return findings + [finding for finding in _check_between(config) if not wrong.intersection(finding[0])]


def _check_one(key: str, value: Any) -> Iterator[Finding]:
    if value is None:
        return
    numbers = value if isinstance(value, list) else [value]
    if any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
        yield (key,), f"must be a finite number, got {value}.", None
        return
    rule = range_of(key)
    if rule is not None and not rule.check(value):
        meant = did_you_mean(value, rule.choices) if isinstance(value, str) else None
        yield (key,), f"must be {rule.words}, got {value!r}.", meant


def _check_domains(config: Config) -> Iterator[Finding]:
    for name, domain in config.domains.items():
        key = f"domains.{name}"
        if name not in DOMAINS and (domain.data is None or not domain.data.train):
            known = ", ".join(DOMAINS)
            meant = did_you_mean(name, DOMAINS)
            yield (
                (key,),
                f"there is no domain {name!r} (known: {known}); a domain of your own needs {key}.data.train.",
                f"domains.{meant}" if meant else None,
            )
        elif domain.data is not None and not domain.data.train:
            yield (f"{key}.data.train",), "must name a file, folder or dataset.", None
        if name in DOMAINS and domain.kind != DomainConfig.kind:
            message = f"is for domains of your own; {name} is built in and brings its kind with it, leave it out."
            yield (f"{key}.kind",), message, None
    enabled = [domain for domain in config.domains.values() if domain.enabled]
    if not enabled:
        yield ("domains",), "at least one domain must be enabled, got none.", None
    elif not any(domain.share > 0 for domain in enabled):
        yield ("domains",), "at least one enabled domain must have a share above 0.", None
    elif not any(d.enabled and d.corpus_share > 0 for name, d in config.domains.items() if name in DOMAINS):
        message = (
            "at least one built-in domain must be enabled with a corpus_share above 0: the texts that base and "
            "sparsify learn from are theirs."
        )
        yield ("domains",), message, None


def _check_between(config: Config) -> Iterator[Finding]:
    """Checks of one key against another."""
    model, sampling, domains = config.model, config.sampling, config.domains
    context = "sampling.max_context"
    at_most = [("distill.keep_per_task", "distill.samples_per_task")]
    if model.path is None:
        at_most += [
            ("model.qk_rope_head_dim", "model.index_head_dim"),
            ("model.num_experts_per_tok", "model.n_routed_experts"),
            (context, "model.max_position_embeddings"),
        ]
        if config.sparsify.context_length is not None:
            at_most.append(("sparsify.context_length", "model.max_position_embeddings"))
    if config.sparsify.context_length is not None:
        at_most.append(("sparsify.context_length", "sparsify.batch_tokens"))
    below = [("sampling.max_new_tokens", context)]
    below += [(f"domains.{name}.max_new_tokens", context) for name, d in domains.items() if d.max_new_tokens]
    values = dict(leaves(config))
    for key, limit in at_most:
        if values[key] > values[limit]:
            yield (key, limit), f"must be at most {limit} ({values[limit]}), got {values[key]}.", None
    for key, limit in below:
        if values[key] >= values[limit]:
            yield (key, limit), f"must be below {limit} ({values[limit]}), got {values[key]}.", None
    for key in ("specialists.rl.batch_tokens", "grpo.batch_tokens"):
        if values[key] < sampling.max_context:
            message = (
                f"must hold one whole conversation, {context} ({sampling.max_context}), got {values[key]}."
            )
            yield (key, context), message, None
    for key in ("specialists.rl", "grpo"):
        if values[f"{key}.advantage_normalization"] == "component" and not values[f"{key}.scale_by_std"]:
            names = (f"{key}.advantage_normalization", f"{key}.scale_by_std")
            yield names, f"component divides by standard deviations, so {names[1]} must be true.", None
    yield from _check_sparsify(config)
    yield from _check_judge(config)
    if config.device == "cpu" and config.runtime.gpus_per_worker > 0:
        message = f"must be 0 where device is cpu, got {config.runtime.gpus_per_worker}."
        yield ("runtime.gpus_per_worker", "device"), message, None


def _check_judge(config: Config) -> Iterator[Finding]:
    judge, endpoint = config.judge, "judge.base_url"
    if judge.data is not None and not judge.data.train:
        yield ("judge.data.train",), "must name a file, folder or dataset.", None
    if judge.base_url is not None:
        return
    if judge.criteria_per_call > 1:
        message = f"must be 1 without {endpoint}: the embedded judge has learned to judge one criterion at a time."
        yield ("judge.criteria_per_call", endpoint), message, None
    for key, given in (("judge.guided", judge.guided), ("judge.cache", judge.cache is not None)):
        if given:
            yield (key, endpoint), f"is for a judge behind {endpoint}; leave it out.", None


def _check_sparsify(config: Config) -> Iterator[Finding]:
    sparsify, longest = config.sparsify, config.model.max_position_embeddings
    if sparsify.data is not None and not sparsify.data.train:
        yield ("sparsify.data.train",), "must name a file, folder or dataset.", None
    if sparsify.join_documents and sparsify.context_length is None:
        message = "needs sparsify.context_length, the length of the sequences that documents are joined to."
        yield ("sparsify.join_documents", "sparsify.context_length"), message, None
    if config.model.path is None and any(length > longest for length in sparsify.needle.lengths):
        message = (
            f"must be at most model.max_position_embeddings ({longest}) each, got {max(sparsify.needle.lengths)}."
        )
        yield ("sparsify.needle.lengths", "model.max_position_embeddings"), message, None
