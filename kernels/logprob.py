"""Log-probability and entropy of given tokens from hidden states, without keeping [T, V] logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels.tiles import accumulation_dtype

# Rows whose logits exist at one time: 1024 rows of a 129k vocabulary are 0.5 GiB in float32, and of a 1k
# vocabulary 4 MiB, which stays in a CPU's cache.
LOGIT_CHUNK = 1024


def token_logprob(
    hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float = 1.0, with_entropy: bool = False
) -> tuple[Tensor, Tensor | None]:
    """log softmax(hidden . weight^T / temperature)[target] for each row.

    Args:
        hidden: [T, D].
        weight: [V, D] head weights.
        targets: [T] int64 token ids.
        temperature: > 0, divides the logits.
        with_entropy: also give the entropy of each row's distribution.

    Returns:
        log-probabilities [T] and entropies [T] (or None) in nats, in at least float32; both differentiable.
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be > 0, not {temperature}; greedy decoding has no log-probabilities")
    if len(hidden) != len(targets):
        raise ValueError(f"{len(hidden)} hidden states but {len(targets)} targets")
    logprobs, entropy = _TokenLogprob.apply(hidden, weight, targets, temperature, with_entropy)
    return logprobs, entropy if with_entropy else None


def _logits(hidden: Tensor, weight: Tensor, temperature: float) -> Tensor:
    logits = (hidden @ weight.t()).to(accumulation_dtype(hidden.dtype))
    return logits if temperature == 1.0 else logits.div_(temperature)


class _TokenLogprob(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float, with_entropy: bool
    ) -> tuple[Tensor, Tensor]:
        dtype = accumulation_dtype(hidden.dtype)
        chosen, normaliser = (torch.empty(len(hidden), dtype=dtype, device=hidden.device) for _ in range(2))
        entropy = torch.empty_like(chosen) if with_entropy else chosen.new_empty(0)
        for i in range(0, len(hidden), LOGIT_CHUNK):
            rows = slice(i, i + LOGIT_CHUNK)
            logits = _logits(hidden[rows], weight, temperature)
            chosen[rows] = logits.gather(1, targets[rows, None])[:, 0]
            normaliser[rows] = logits.logsumexp(-1)
            if with_entropy:
                log_p = logits.sub_(normaliser[rows, None])
                entropy[rows] = log_p.exp().mul_(log_p).sum(-1).neg_()
        ctx.save_for_backward(hidden, weight, targets, normaliser, entropy)
        ctx.temperature = temperature
        ctx.set_materialize_grads(False)
        return chosen - normaliser, entropy

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # type: ignore[override]
        ctx: Any, grad_logprob: Tensor | None, grad_entropy: Tensor | None
    ) -> tuple:
        if grad_logprob is None and grad_entropy is None:
            return None, None, None, None, None
        hidden, weight, targets, normaliser, entropy = ctx.saved_tensors
        need_hidden, need_weight = ctx.needs_input_grad[:2]
        grad_hidden = torch.empty_like(hidden) if need_hidden else None
        grad_weight = torch.zeros_like(weight) if need_weight else None
        for i in range(0, len(hidden), LOGIT_CHUNK):
            rows = slice(i, i + LOGIT_CHUNK)
            log_p = _logits(hidden[rows], weight, ctx.temperature).sub_(normaliser[rows, None])
            if grad_entropy is None:
                assert grad_logprob is not None
                grad = log_p.exp_().mul_(-grad_logprob[rows, None])
            else:
                # dH/dz = -p (log p + H)
                grad = log_p.exp()
                factor = log_p.add_(entropy[rows, None]).mul_(-grad_entropy[rows, None])
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
        return grad_hidden, grad_weight, None, None, None
