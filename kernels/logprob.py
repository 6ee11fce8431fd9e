"""Log-probability and entropy of given tokens from hidden states, without keeping [T, V] logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels.backend import use_triton
from kernels.tiles import accumulation_dtype

# Rows whose logits exist at one time: 1024 rows of a 129k vocabulary are 0.5 GiB in float32, and of a 1k
# vocabulary 4 MiB, which stays in a CPU's cache.
LOGIT_CHUNK = 1024


def token_logprob(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    temperature: float = 1.0,
    with_entropy: bool = False,
    kept: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor | None]:
    """log softmax(hidden . weight^T / temperature)[target] for each row.

    Args:
        hidden: [T, D].
        weight: [V, D] head weights.
        targets: [T] int64 token ids.
        temperature: > 0, divides the logits.
        with_entropy: also give the entropy of each row's distribution.
        kept: (offsets [T + 1], ids [offsets[-1]] int32), the sampling set that a truncation (top-p, top-k) left to each
            row (DeepSeek-V3.2's Keep Sampling Mask): row t's probabilities are renormalised over the distinct tokens
            `ids[offsets[t]:offsets[t + 1]]`, one of which must be the target (on CUDA, where nothing waits to look,
            the log-probability of another is -inf).

    Returns:
        log-probabilities [T] and entropies [T] (or None) in nats, in at least float32; both differentiable.
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be > 0, not {temperature}; greedy decoding has no log-probabilities")
    if len(hidden) != len(targets):
        raise ValueError(f"{len(hidden)} hidden states but {len(targets)} targets")
    if kept is not None and len(kept[0]) != len(hidden) + 1:
        raise ValueError(f"{len(hidden)} hidden states need {len(hidden) + 1} offsets of kept sets, not {len(kept[0])}")
    if use_triton(hidden):
        from kernels import kept_logprob_triton, logprob_triton

        if kept is None:
            logprobs, entropy, *_ = logprob_triton.token_logprob(hidden, weight, targets, temperature, with_entropy)
        else:
            logprobs, entropy, *_ = kept_logprob_triton.kept_logprob(hidden, weight, targets, temperature, *kept)
    else:
        logprobs, entropy = _TokenLogprob.apply(hidden, weight, targets, temperature, with_entropy, kept)
    return logprobs, entropy if with_entropy else None


def _logits(
    hidden: Tensor, weight: Tensor, temperature: float, kept: tuple[Tensor, Tensor] | None, rows: slice
) -> Tensor:
    logits = (hidden[rows] @ weight.t()).to(accumulation_dtype(hidden.dtype))
    if temperature != 1.0:
        logits.div_(temperature)
    if kept is None:
        return logits
    offsets = kept[0][rows.start : rows.start + len(logits) + 1].long()
    row = torch.repeat_interleave(torch.arange(len(logits), device=logits.device), offsets.diff())
    column = kept[1][offsets[0] : offsets[-1]].long()
    return torch.full_like(logits, -torch.inf).index_put_((row, column), logits[row, column])


class _TokenLogprob(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        temperature: float,
        with_entropy: bool,
        kept: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, Tensor]:
        dtype = accumulation_dtype(hidden.dtype)
        chosen, normaliser = (torch.empty(len(hidden), dtype=dtype, device=hidden.device) for _ in range(2))
        entropy = torch.empty_like(chosen) if with_entropy else chosen.new_empty(0)
        for i in range(0, len(hidden), LOGIT_CHUNK):
            rows = slice(i, i + LOGIT_CHUNK)
            logits = _logits(hidden, weight, temperature, kept, rows)
            chosen[rows] = logits.gather(1, targets[rows, None])[:, 0]
            if kept is not None and (chosen[rows] == -torch.inf).any():
                row = i + int((chosen[rows] == -torch.inf).nonzero()[0])
                raise ValueError(f"the target {int(targets[row])} of row {row} is not in the row's kept set")
            normaliser[rows] = logits.logsumexp(-1)
            if with_entropy:
                log_p = logits.sub_(normaliser[rows, None])
                entropy[rows] = log_p.exp().mul_(_finite(log_p, kept)).sum(-1).neg_()
        ctx.save_for_backward(hidden, weight, targets, normaliser, entropy)
        ctx.temperature, ctx.kept = temperature, kept
        ctx.set_materialize_grads(False)
        return chosen - normaliser, entropy

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # type: ignore[override]
        ctx: Any, grad_logprob: Tensor | None, grad_entropy: Tensor | None
    ) -> tuple:
        if grad_logprob is None and grad_entropy is None:
            return None, None, None, None, None, None
        hidden, weight, targets, normaliser, entropy = ctx.saved_tensors
        need_hidden, need_weight = ctx.needs_input_grad[:2]
        grad_hidden = torch.empty_like(hidden) if need_hidden else None
        grad_weight = torch.zeros_like(weight) if need_weight else None
        for i in range(0, len(hidden), LOGIT_CHUNK):
            rows = slice(i, i + LOGIT_CHUNK)
            log_p = _logits(hidden, weight, ctx.temperature, ctx.kept, rows).sub_(normaliser[rows, None])
            if grad_entropy is None:
                assert grad_logprob is not None
                grad = log_p.exp_().mul_(-grad_logprob[rows, None])
            else:
                # dH/dz = -p (log p + H)
                grad = log_p.exp()
                factor = _finite(log_p, ctx.kept).add_(entropy[rows, None]).mul_(-grad_entropy[rows, None])
                grad.mul_(factor if grad_logprob is None else factor.sub_(grad_logprob[rows, None]))
            if grad_logprob is not None:
                grad.scatter_add_(1, targets[rows, None], grad_logprob[rows, None])
            if ctx.temperature != 1.0:
                grad.div_(ctx.temperature)
            grad = grad.to(hidden.dtype)
            if grad_hidden is not None:
                torch.mm(grad, weight, out=grad_hidden[rows])
            if grad_weight is not None:
                grad_weight.addmm_(grad.t(), hidden[rows])
        return grad_hidden, grad_weight, None, None, None, None


def _finite(log_p: Tensor, kept: tuple[Tensor, Tensor] | None) -> Tensor:
    """log_p without -inf outside the kept sets; exp of the floor is 0 in any dtype, and so is its product with that."""
    return log_p if kept is None else log_p.clamp_min_(-1e4)
