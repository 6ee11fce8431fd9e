"""The formulas in float64, straight from the paper and independent of `kernels/`: what an error is measured against."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def relative_error(found: Tensor, expected: Tensor) -> float:
    """||found - expected|| / ||expected|| over all elements; inf where either is not finite."""
    expected = expected.detach().double()
    error = (found.detach().double() - expected).norm() / expected.norm()
    return float(error.nan_to_num(torch.inf))


def index_scores(q: Tensor, k: Tensor, weights: Tensor) -> Tensor:
    """[M, N] of q [M, J, d], k [N, d] and weights [M, J]."""
    return torch.stack([w.double() @ (x.double() @ k.double().t()).relu_() for x, w in zip(q, weights, strict=True)])


def sparse_attention(q: Tensor, kv: Tensor, indices: Tensor, scale: float, value_dim: int) -> Tensor:
    """[M, H, value_dim] of q [M, H, D] over the rows `indices` [M, k] of kv [S, D]; -1 is padding."""
    out = []
    for query, chosen in zip(q, indices, strict=True):
        rows = kv[chosen[chosen >= 0].long()].double()
        out.append((query.double() @ rows.t() * scale).softmax(-1) @ rows[:, :value_dim])
    return torch.stack(out)


def sparse_attention_gradients(
    q: Tensor, kv: Tensor, indices: Tensor, grad: Tensor, scale: float, value_dim: int
) -> tuple[Tensor, Tensor]:
    """Gradients [M, H, D] in q and [S, D] in kv, from `grad` [M, H, value_dim] in the output."""
    grad_q, grad_kv = torch.empty_like(q, dtype=torch.float64), torch.zeros_like(kv, dtype=torch.float64)
    for m, chosen in enumerate(indices):
        chosen = chosen[chosen >= 0].long()
        query, rows, upstream = q[m].double(), kv[chosen].double(), grad[m].double()
        probs = (query @ rows.t() * scale).softmax(-1)
        products = upstream @ rows[:, :value_dim].t()
        grad_scores = probs * (products - (probs * products).sum(-1, keepdim=True)) * scale
        grad_q[m] = grad_scores @ rows
        grad_rows = grad_scores.t() @ query
        grad_rows[:, :value_dim] += probs.t() @ upstream
        grad_kv.index_add_(0, chosen, grad_rows)
    return grad_q, grad_kv


def causal_attention(q: Tensor, k: Tensor, v: Tensor, scale: float, rows: Tensor) -> Tensor:
    """[len(rows), H, d_v]: the queries `rows` of q [L, H, d] over k [L, H, d] and v [L, H, d_v], each up to itself."""
    out = []
    for row in rows.tolist():
        keys, values = k[: row + 1].double(), v[: row + 1].double()
        out.append(
            torch.einsum("hs,shd->hd", (torch.einsum("hd,shd->hs", q[row].double(), keys) * scale).softmax(-1), values)
        )
    return torch.stack(out)


def dense_lse(q: Tensor, k_nope: Tensor, k_rope: Tensor, ends: Tensor, scale: float) -> Tensor:
    """[M, H] float32 natural log-sum-exp of q [M, H, nope + rope] over the first `ends[m]` keys, k_nope [N, H, nope]
    and k_rope [N, rope]. Products in the inputs' precision with float32 sums, as an attention kernel makes them."""
    hidden = torch.arange(len(k_rope), device=q.device) >= ends.unsqueeze(1)
    columns = []
    for h in range(q.shape[1]):
        keys = torch.cat([k_nope[:, h], k_rope], 1)
        columns.append((q[:, h] @ keys.t()).float().mul_(scale).masked_fill_(hidden, -torch.inf).logsumexp(-1))
    return torch.stack(columns, 1)


def kl_gradients(
    index_q: Tensor, index_k: Tensor, index_weights: Tensor, q: Tensor, k_nope: Tensor, k_rope: Tensor, lse: Tensor,
    ends: Tensor, scale: float, rows: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Gradients of the warm-up KL in index_q [M, J, d] and index_weights [M, J], for the queries `rows`: the target is
    exp(score - lse), averaged over the heads of the main attention."""
    seen = torch.arange(len(k_rope), device=q.device) < ends[rows].unsqueeze(1)
    target = torch.zeros_like(seen, dtype=torch.float64)
    for h in range(q.shape[1]):
        scores = q[rows, h].double() @ torch.cat([k_nope[:, h], k_rope], 1).double().t() * scale
        target += (scores - lse[rows, h, None].double()).exp().where(seen, 0) / q.shape[1]
    grad_q, grad_weights = [], []
    for row, p, visible in zip(rows.tolist(), target, seen, strict=True):
        products = index_q[row].double() @ index_k.double().t()
        weights = index_weights[row].double()
        scores = (weights @ products.relu()).masked_fill(~visible, -torch.inf)
        grad = scores.softmax(-1) - p
        grad_q.append((weights.unsqueeze(1) * (products > 0) * grad) @ index_k.double())
        grad_weights.append(products.relu() @ grad)
    return torch.stack(grad_q), torch.stack(grad_weights)


def token_logprob(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """[T] log-probabilities of the targets."""
    logits = hidden.double() @ weight.double().t()
    return -F.cross_entropy(logits, targets, reduction="none")


def fp8_cache_rows(cache: Tensor) -> Tensor:
    """[S, 576] of an FP8 latent cache [S, 656] uint8: 512 e4m3 values in 4 blocks, 4 float32 scales, 64 bf16 values."""
    values = cache[:, :512].contiguous().view(torch.float8_e4m3fn).double().view(-1, 4, 128)
    scales = cache[:, 512:528].contiguous().view(torch.float32).double()
    rope = cache[:, 528:].contiguous().view(torch.bfloat16).double()
    return torch.cat([(values * scales.unsqueeze(-1)).flatten(1), rope], 1)


def topk_mismatch(scores: Tensor, indices: Tensor, k: int) -> float:
    """Share of the rows [M, N] whose selected scores are not the k largest (ties count as equal)."""
    best = scores.topk(k, dim=-1).values
    found = scores.gather(-1, indices.clamp_min(0).long()).masked_fill(indices < 0, -torch.inf)
    return float((found.sort(-1, descending=True).values != best).any(-1).double().mean())
