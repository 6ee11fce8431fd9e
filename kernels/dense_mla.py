"""Dense causal MLA attention over a packed batch, not absorbed: keys and values of each head are expanded.

Scores have 192 products here against 576 in the latent form, which is why training over all keys uses it. The work is
done by libraries that torch brings: cuDNN on Hopper, the memory-efficient attention of CUTLASS on other GPUs and, for
the backward pass, under `torch.use_deterministic_algorithms`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.backend import is_hopper, use_triton
from kernels.tiles import Group, accumulation_dtype

# cuDNN builds a plan for each new shape, which takes as long as attention over a few thousand tokens; groups below this
# length come in many shapes and are cheap in any body.
CUDNN_LENGTH = 2048


def dense_mla_attention(
    q: Tensor, k_nope: Tensor, k_rope: Tensor, v: Tensor, groups: Sequence[tuple[int, ...]], scale: float
) -> tuple[Tensor, Tensor]:
    """Causal attention inside each sequence.

    Args:
        q: [T, H, nope + rope], k_nope: [S, H, nope], k_rope: [S, rope], v: [S, H, dv] in block layout (see
            `kernels.tiles`); the rope key is shared by all heads. Head dimensions on CUDA: multiples of 8.
        groups: `(n, L)` or `(n, L, s)` of consecutive groups; the sum of n * (L - s) is T, that of n * L is S.
        scale: softmax scale.

    Returns:
        out [T, H, dv] in q's dtype, differentiable in q, k_nope, k_rope and v; lse [T, H], natural logarithm, at least
        float32, without gradient.
    """
    spans = [Group(*group) for group in groups]
    queries, keys = sum(group.query_rows for group in spans), sum(group.key_rows for group in spans)
    if len(q) != queries or len(v) != keys:
        raise ValueError(f"groups hold {queries} queries and {keys} keys, but q has {len(q)} rows and v {len(v)}")
    k = torch.cat([k_nope, k_rope.unsqueeze(1).expand(-1, q.shape[1], -1)], dim=-1)
    body = _attention if use_triton(q) else _reference
    out, lse = body(q, k, v, [size for group in spans for size in group], scale)
    return out, lse.detach()


def _pieces(groups: Sequence[int]) -> Iterator[tuple[Group, slice, slice]]:
    """Each group of the flat list n, L, s, n, L, s, ... with its rows of queries and of keys."""
    query_row = key_row = 0
    for first in range(0, len(groups), 3):
        group = Group(*groups[first : first + 3])
        yield group, slice(query_row, query_row + group.query_rows), slice(key_row, key_row + group.key_rows)
        query_row, key_row = query_row + group.query_rows, key_row + group.key_rows


def _reference(q: Tensor, k: Tensor, v: Tensor, groups: Sequence[int], scale: float) -> tuple[Tensor, Tensor]:
    outs, lses = [], []
    for group, rows, keys in _pieces(groups):
        ours, theirs, values = (x.unflatten(0, (group.n, -1)) for x in (q[rows], k[keys], v[keys]))
        scores = torch.einsum("nqhd,nkhd->nhqk", ours, theirs).to(accumulation_dtype(q.dtype)) * scale
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu_(1 + group.first)
        scores = scores.masked_fill(hidden, -torch.inf)
        outs.append(torch.einsum("nhqk,nkhd->nqhd", scores.softmax(-1).to(q.dtype), values).flatten(0, 1))
        lses.append(scores.logsumexp(-1).transpose(1, 2).flatten(0, 1))
    return torch.cat(outs), torch.cat(lses)


@torch.library.custom_op("polymath::dense_attention", mutates_args=())
def _attention(q: Tensor, k: Tensor, v: Tensor, groups: list[int], scale: float) -> tuple[Tensor, Tensor]:
    out = q.new_empty(*q.shape[:2], v.shape[-1])
    lse = q.new_empty(q.shape[:2], dtype=torch.float32)
    for group, rows, keys in _pieces(groups):
        if not group.query_rows:
            continue
        body = _cudnn_forward if _cudnn_takes(q, group) else _cutlass_forward
        made, log_sum = body([_batched(x, group) for x in (q[rows], k[keys], v[keys])], scale)
        out[rows] = made.flatten(0, 1)
        lse[rows] = log_sum.transpose(1, 2).flatten(0, 1)
    return out, lse


@torch.library.custom_op("polymath::dense_attention_backward", mutates_args=())
def _attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, groups: list[int], scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    grads = q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)
    for group, rows, keys in _pieces(groups):
        if not group.query_rows:
            for x in grads[1:]:
                x[keys] = 0
            continue
        parts = [_batched(x, group) for x in (q[rows], k[keys], v[keys], out[rows], grad[rows])]
        log_sum = _batched(lse[rows], group).transpose(1, 2).contiguous()
        # cuDNN adds up dq in the order in which its programs finish.
        fast = _cudnn_takes(q, group) and not torch.are_deterministic_algorithms_enabled()
        body = _cudnn_backward if fast else _cutlass_backward
        for x, where, made in zip(grads, (rows, keys, keys), body(parts, log_sum, scale), strict=True):
            x[where] = made.flatten(0, 1)
    return grads


@_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, groups: list[int], scale: float) -> tuple[Tensor, Tensor]:
    return q.new_empty(*q.shape[:2], v.shape[-1]), q.new_empty(q.shape[:2], dtype=torch.float32)


@_attention_backward.register_fake
def _(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, groups: list[int], scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:3], *output)
    ctx.spec = inputs[3:]
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple:
    return *_attention_backward(grad.contiguous(), *ctx.saved_tensors, *ctx.spec), None, None


_attention.register_autograd(_backward, setup_context=_setup_context)


# The bodies take q, k, v (and out and its gradient) as [n, L, H, d], and lse as [n, H, L].


def _batched(x: Tensor, group: Group) -> Tensor:
    return x.unflatten(0, (group.n, -1))


def _cudnn_takes(q: Tensor, group: Group) -> bool:
    """cuDNN's causal mask begins at the first key, so that it serves whole sequences only."""
    return is_hopper(q) and q.dtype != torch.float32 and group.first == 0 and group.length >= CUDNN_LENGTH


def _cudnn_forward(parts: list[Tensor], scale: float) -> tuple[Tensor, Tensor]:
    q, k, v = (x.transpose(1, 2) for x in parts)
    made = torch.ops.aten._scaled_dot_product_cudnn_attention(q, k, v, None, True, 0.0, True, False, scale=scale)
    return made[0].transpose(1, 2), made[1].squeeze(-1)


def _cudnn_backward(parts: list[Tensor], lse: Tensor, scale: float) -> list[Tensor]:
    q, k, v, out, grad = (x.transpose(1, 2) for x in parts)
    seed = torch.zeros((), dtype=torch.int64, device=q.device)  # of the dropout, which is 0
    made = torch.ops.aten._scaled_dot_product_cudnn_attention_backward(
        grad, q, k, v, out, lse.unsqueeze(-1), seed, seed, None, None, None, q.shape[2], k.shape[2], 0.0, True,
        scale=scale,
    )  # fmt: skip
    return [x.transpose(1, 2) for x in made]


# `custom_mask_type` of CUTLASS' attention: the last query sees the last key.
CAUSAL_FROM_BOTTOM_RIGHT = 2
# It stores lse in rows of a multiple of this.
LSE_ALIGNMENT = 32


def _cutlass_forward(parts: list[Tensor], scale: float) -> tuple[Tensor, Tensor]:
    made = torch.ops.aten._efficient_attention_forward(
        *parts, None, None, None, None, None, 0.0, CAUSAL_FROM_BOTTOM_RIGHT, True, scale=scale
    )
    return made[0], made[1][..., : parts[0].shape[1]]


def _cutlass_backward(parts: list[Tensor], lse: Tensor, scale: float) -> list[Tensor]:
    q, k, v, out, grad = parts
    lse = F.pad(lse, (0, -lse.shape[-1] % LSE_ALIGNMENT), value=torch.inf)
    seed = torch.zeros((), dtype=torch.int64, device=q.device)  # of the dropout, which is 0
    # With the keys split over programs, dq would be a sum in the order in which they finish.
    made = torch.ops.aten._efficient_attention_backward(
        grad, q, k, v, None, out, None, None, q.shape[1], k.shape[1], lse, 0.0, seed, seed, CAUSAL_FROM_BOTTOM_RIGHT,
        False, scale=scale, num_splits_key=1,
    )  # fmt: skip
    return list(made[:3])
