"""Sparse MLA attention in the absorbed (MQA) form, over explicit key indices."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.backend import use_triton
from kernels.tiles import accumulation_dtype


def sparse_mla_attention(
    q: Tensor, kv: Tensor, indices: Tensor, scale: float, value_dim: int, chunk: int = 256
) -> tuple[Tensor, Tensor]:
    """Attention of every query over its selected latent rows (DeepSeek-V3.2, eq. 2; MLA's MQA mode).

    Args:
        q: [T, H, D] absorbed queries, D = kv_lora_rank + qk_rope_head_dim.
        kv: [S, D] latent rows in q's dtype; a value is the first `value_dim` columns of the same row.
        indices: [T, k] int32 or int64, rows of `kv` for each query; -1 is padding. In exact arithmetic the order does
            not matter; equal bits come from equal order.
        scale: softmax scale. It belongs to the *unabsorbed* head size (nope + rope), not to D.
        value_dim: kv_lora_rank.
        chunk: queries that the torch body gathers at a time, which bounds its memory to chunk * k * D elements in the
            forward.

    Returns:
        out [T, H, value_dim] in q's dtype and the natural-log sum of exponentials lse [T, H] in float32 (float64 for
        float64). A query without a key gives out = 0 and lse = -inf. On CUDA no gradient flows through lse.

    Raises:
        ValueError: shapes or dtypes that do not belong together.
    """
    check_rows(q, kv, value_dim)
    if indices.ndim != 2 or len(indices) != len(q):
        raise ValueError(f"indices must be [{len(q)}, k], one row for each query; they are {list(indices.shape)}")
    if use_triton(q):
        return _sparse_mla(q, kv, indices, scale, value_dim)
    parts = [_attend(q[i : i + chunk], kv, indices[i : i + chunk], scale, value_dim) for i in range(0, len(q), chunk)]
    return torch.cat([out for out, _ in parts]), torch.cat([lse for _, lse in parts])


def _attend(q: Tensor, kv: Tensor, indices: Tensor, scale: float, value_dim: int) -> tuple[Tensor, Tensor]:
    rows = kv[indices.clamp_min(0).long()]
    scores = (q @ rows.transpose(1, 2)).to(accumulation_dtype(q.dtype)) * scale
    empty = indices < 0
    scores = scores.masked_fill(empty.unsqueeze(1), -torch.inf)
    lse = scores.logsumexp(-1)
    # A row of only -inf would give exp(nan): its probabilities are 0 by definition.
    probs = (scores - lse.masked_fill(empty.all(-1, keepdim=True), 0).unsqueeze(-1)).exp()
    return probs.to(q.dtype) @ rows[..., :value_dim], lse


def check_rows(q: Tensor, rows: Tensor, value_dim: int) -> None:
    """Raises a ValueError unless latent `rows` [S, D] belong to queries `q` [T, H, D]."""
    if q.ndim != 3 or rows.ndim != 2 or q.shape[2] != rows.shape[1] or q.dtype != rows.dtype:
        raise ValueError(
            f"queries [T, H, D] and latent rows [S, D] must agree in D and dtype; they are {list(q.shape)} {q.dtype} "
            f"and {list(rows.shape)} {rows.dtype}"
        )
    if not 0 < value_dim <= q.shape[2]:
        raise ValueError(f"the first {value_dim} columns are to be the value, of {q.shape[2]} columns in all")


@torch.library.custom_op("polymath::sparse_mla", mutates_args=())
def _sparse_mla(q: Tensor, kv: Tensor, indices: Tensor, scale: float, value_dim: int) -> tuple[Tensor, Tensor]:
    from kernels.sparse_mla_triton import sparse_mla_forward

    return sparse_mla_forward(q, kv, indices, scale, value_dim)


@_sparse_mla.register_fake
def _(q: Tensor, kv: Tensor, indices: Tensor, scale: float, value_dim: int) -> tuple[Tensor, Tensor]:
    return q.new_empty(*q.shape[:2], value_dim), q.new_empty(q.shape[:2], dtype=torch.float32)


@torch.library.custom_op("polymath::sparse_mla_backward", mutates_args=())
def _sparse_mla_backward(
    q: Tensor, kv: Tensor, indices: Tensor, out: Tensor, lse: Tensor, grad_out: Tensor, scale: float, value_dim: int
) -> tuple[Tensor, Tensor]:
    from kernels.sparse_mla_backward_triton import sparse_mla_backward

    return sparse_mla_backward(q, kv, indices, out, lse, grad_out, scale, value_dim)


@_sparse_mla_backward.register_fake
def _(
    q: Tensor, kv: Tensor, indices: Tensor, out: Tensor, lse: Tensor, grad_out: Tensor, scale: float, value_dim: int
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(q), torch.empty_like(kv)


def _save(ctx, inputs, output) -> None:
    q, kv, indices, ctx.scale, ctx.value_dim = inputs
    ctx.save_for_backward(q, kv, indices, *output)
    ctx.mark_non_differentiable(output[1])


def _backward(ctx, grad_out: Tensor, grad_lse: Tensor | None):
    q, kv, indices, out, lse = ctx.saved_tensors
    dq, dkv = _sparse_mla_backward(q, kv, indices, out, lse, grad_out, ctx.scale, ctx.value_dim)
    return dq, dkv, None, None, None


_sparse_mla.register_autograd(_backward, setup_context=_save)
