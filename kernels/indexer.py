"""The lightning indexer's score of every key for every query."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels.backend import is_hopper, use_triton
from kernels.quantize import quantize_fp8
from kernels.tiles import accumulation_dtype, visible_keys


def indexer_logits(q: Tensor, k: Tensor, weights: Tensor) -> Tensor:
    """I[t, s] = sum_j w[t, j] * ReLU(q[t, j] . k[s])  (DeepSeek-V3.2, eq. 1). Not masked: causality is the
    caller's.

    Args:
        q: [B, Q, J, d] index queries (J index heads), already rotated.
        k: [B, S, d] index keys, one head shared by all J.
        weights: [B, Q, J] head weights, with the scales J^-0.5 and d^-0.5 folded in (they are > 0 and commute
            with the ReLU). May be negative.

    Returns:
        [B, Q, S] scores in at least float32.
    """
    batch, queries, heads, dim = q.shape
    dots = (q.reshape(batch, queries * heads, dim) @ k.transpose(1, 2)).to(accumulation_dtype(q.dtype))
    dots = dots.relu_().view(batch, queries, heads, -1)
    weights = weights.to(dots.dtype)
    if heads == 1:
        return dots[:, :, 0] * weights
    return (dots * weights.unsqueeze(-1)).sum(2)


def indexer_logits_rows(
    q: Tensor, k: Tensor, weights: Tensor, starts: Tensor, ends: Tensor, fp8: bool = False, hadamard: bool = False
) -> Tensor:
    """The same scores in row layout. Differentiable in q, k and weights.

    Args:
        q: [M, J, d] index queries, rotated.
        k: [N, d] index keys.
        weights: [M, J] float32, scales folded in.
        starts, ends: [M] int32; query m sees the keys starts[m] <= s < ends[m].
        fp8: score with q and k rounded to FP8, one power-of-two scale for each vector. The gradient passes straight
            through the rounding: it is that of the unrounded scores.
        hadamard: with `fp8`, rotate both by a Hadamard matrix before rounding.

    Returns:
        [M, N] float32 (float64 for float64). Columns outside a row's range are unspecified. An element depends on its
        query and its key alone, bit for bit.
    """
    _check_rows(q, k, weights, starts, ends)
    return _indexer_logits_rows(q, k, weights, starts, ends, fp8, hadamard and fp8)


def indexer_logits_fp8(
    q8: Tensor, k8: Tensor, k_scale: Tensor, weights: Tensor, starts: Tensor, ends: Tensor
) -> Tensor:
    """Scores of queries and keys that are FP8 already, as an index cache keeps them. No gradient.

    Args:
        q8: [M, J, d] float8_e4m3fn.
        k8: [N, d] float8_e4m3fn.
        k_scale: [N] float32 > 0.
        weights: [M, J] float32, multiplied by the scales of q8.
        starts, ends: [M] int32, as for `indexer_logits_rows`.

    Returns:
        [M, N] float32, k_scale[s] * sum_j w[m, j] * ReLU(q8[m, j] . k8[s]).
    """
    _check_rows(q8, k8, weights, starts, ends)
    return _indexer_logits_fp8(q8, k8, k_scale, weights, starts, ends)


def indexer_logits_decode(
    q: Tensor,
    k_cache: Tensor,
    weights: Tensor,
    slots: Tensor,
    lengths: Tensor,
    max_length: int,
    k_scale: Tensor | None = None,
) -> Tensor:
    """Scores of one new query per sequence over its slot of the index cache. No gradient.

    Args:
        q: [B, J, d] in the cache's dtype.
        k_cache: [S, L, d] keys by slot: float8_e4m3fn with `k_scale`, otherwise bfloat16, float16 or float32.
        weights: [B, J] float32, multiplied by q's scales if it is FP8.
        slots: [B] int32, the slot of each query.
        lengths: [B] int32, keys of it that are filled, at most max_length.
        max_length: columns of the result, at most L.
        k_scale: [S, L] float32.

    Returns:
        [B, max_length] float32; column s is the slot's key s. Columns from lengths[b] on are unspecified. In float32 an
        element has the bits that `indexer_logits_rows` gives it.
    """
    if q.dtype != k_cache.dtype or (k_scale is None) == (q.dtype == torch.float8_e4m3fn):
        scale = "no k_scale" if k_scale is None else "a k_scale"
        raise ValueError(
            f"q and k_cache must have one dtype, and k_scale comes with float8_e4m3fn alone: got {q.dtype}, "
            f"{k_cache.dtype} and {scale}"
        )
    if k_cache.stride(2) != 1 or (k_scale is not None and k_scale.stride(1) != 1):
        raise ValueError("each vector of k_cache and the scales of each slot must lie in one piece of memory")
    if max_length > k_cache.shape[1]:
        raise ValueError(f"max_length {max_length} is more than the {k_cache.shape[1]} keys of a slot")
    return _indexer_logits_decode(q, k_cache, k_scale, weights, slots, lengths, max_length)


def indexer_logits_backward(
    grad: Tensor, q: Tensor, k: Tensor, weights: Tensor, starts: Tensor, ends: Tensor, dk: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of sum(grad * indexer_logits_rows(q, k, weights, starts, ends)), in a fixed order without atomics.

    Args:
        grad: [M, N] float32 or bfloat16; columns outside a row's range are not read.
        q, k, weights, starts, ends: as for `indexer_logits_rows`.
        dk: [N, d] float32 to which the gradient of k is added, in place, so that calls over chunks of queries sum up.
            None: a new one.

    Returns:
        dq [M, J, d] in q's dtype, dk [N, d] and dw [M, J] float32 (float64 for float64).
    """
    _check_rows(q, k, weights, starts, ends)
    if dk is None:
        dk = torch.zeros(k.shape, dtype=accumulation_dtype(k.dtype), device=k.device)
    elif dk.shape != k.shape or dk.dtype != accumulation_dtype(k.dtype) or not dk.is_contiguous():
        raise ValueError(
            f"dk must be contiguous, {tuple(k.shape)} in {accumulation_dtype(k.dtype)}: got {tuple(dk.shape)} "
            f"{dk.dtype} with strides {dk.stride()}"
        )
    dq, dw = _indexer_logits_backward(grad, q, k, weights, starts, ends, dk)
    return dq, dk, dw


def _check_rows(q: Tensor, k: Tensor, weights: Tensor, starts: Tensor, ends: Tensor) -> None:
    rows = len(q)
    if q.dtype != k.dtype or q.shape[2] != k.shape[1]:
        raise ValueError(
            f"q [M, J, d] and k [N, d] must agree in d and dtype: got {tuple(q.shape)} {q.dtype} and "
            f"{tuple(k.shape)} {k.dtype}"
        )
    if weights.shape != q.shape[:2] or starts.shape != (rows,) or ends.shape != (rows,):
        raise ValueError(
            f"queries of shape {tuple(q.shape)} need weights {tuple(q.shape[:2])} and starts and ends ({rows},): got "
            f"{tuple(weights.shape)}, {tuple(starts.shape)} and {tuple(ends.shape)}"
        )


@torch.library.custom_op("polymath::indexer_logits_rows", mutates_args=())
def _indexer_logits_rows(
    q: Tensor, k: Tensor, weights: Tensor, starts: Tensor, ends: Tensor, fp8: bool, hadamard: bool
) -> Tensor:
    if not fp8:
        return _rows_body(q, k, None, weights, starts, ends)
    q8, q_scale = quantize_fp8(q, hadamard)
    k8, k_scale = quantize_fp8(k, hadamard)
    return _rows_body(q8, k8, k_scale, weights * q_scale, starts, ends)


@_indexer_logits_rows.register_fake
def _(q: Tensor, k: Tensor, weights: Tensor, starts: Tensor, ends: Tensor, fp8: bool, hadamard: bool) -> Tensor:
    return q.new_empty(len(q), len(k), dtype=accumulation_dtype(q.dtype))


def _setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:5])


def _backward(ctx: Any, grad: Tensor) -> tuple:
    dq, dk, dw = indexer_logits_backward(grad, *ctx.saved_tensors)
    _, k, weights, _, _ = ctx.saved_tensors
    return dq, dk.to(k.dtype), dw.to(weights.dtype), None, None, None, None


_indexer_logits_rows.register_autograd(_backward, setup_context=_setup_context)


@torch.library.custom_op("polymath::indexer_logits_fp8", mutates_args=())
def _indexer_logits_fp8(
    q8: Tensor, k8: Tensor, k_scale: Tensor, weights: Tensor, starts: Tensor, ends: Tensor
) -> Tensor:
    return _rows_body(q8, k8, k_scale, weights, starts, ends)


@_indexer_logits_fp8.register_fake
def _(q8: Tensor, k8: Tensor, k_scale: Tensor, weights: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
    return weights.new_empty(len(q8), len(k8))


@torch.library.custom_op("polymath::indexer_logits_decode", mutates_args=())
def _indexer_logits_decode(
    q: Tensor,
    k_cache: Tensor,
    k_scale: Tensor | None,
    weights: Tensor,
    slots: Tensor,
    lengths: Tensor,
    max_length: int,
) -> Tensor:
    if use_triton(q):
        from kernels.indexer_triton import decode

        return decode(q, k_cache, k_scale, weights, slots, lengths, max_length)
    keys, scale = k_cache[slots.long(), :max_length], None
    if k_scale is not None:
        q, keys, scale = q.float(), keys.float(), k_scale[slots.long(), :max_length]
    out = indexer_logits(q.unsqueeze(1), keys, weights.unsqueeze(1)).squeeze(1)
    if scale is not None:
        out *= scale
    columns = torch.arange(max_length, device=q.device)
    return out.masked_fill_(columns >= lengths.unsqueeze(1), -torch.inf)


@_indexer_logits_decode.register_fake
def _(
    q: Tensor,
    k_cache: Tensor,
    k_scale: Tensor | None,
    weights: Tensor,
    slots: Tensor,
    lengths: Tensor,
    max_length: int,
) -> Tensor:
    return weights.new_empty(len(q), max_length)


@torch.library.custom_op("polymath::indexer_logits_backward", mutates_args=("dk",))
def _indexer_logits_backward(
    grad: Tensor, q: Tensor, k: Tensor, weights: Tensor, starts: Tensor, ends: Tensor, dk: Tensor
) -> tuple[Tensor, Tensor]:
    if use_triton(q):
        from kernels.indexer_backward_triton import backward

        return backward(grad, q, k, weights, starts, ends, dk)
    dtype = accumulation_dtype(q.dtype)
    grad = grad.to(dtype).masked_fill(~visible_keys(starts, ends, len(k)), 0)
    qf, kf = q.to(dtype), k.to(dtype)
    z = qf @ kf.t()
    dw = torch.einsum("ms,mjs->mj", grad, z.relu())
    dz = torch.einsum("ms,mj,mjs->mjs", grad, weights.to(dtype), (z > 0).to(dtype))
    dk += torch.einsum("mjs,mjd->sd", dz, qf)
    return (dz @ kf).to(q.dtype), dw


@_indexer_logits_backward.register_fake
def _(
    grad: Tensor, q: Tensor, k: Tensor, weights: Tensor, starts: Tensor, ends: Tensor, dk: Tensor
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(q), q.new_empty(q.shape[:2], dtype=accumulation_dtype(q.dtype))


def _rows_body(q: Tensor, k: Tensor, k_scale: Tensor | None, weights: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
    if not use_triton(q):
        return _rows_reference(q, k, k_scale, weights, starts, ends)
    if is_hopper(q):
        import kernels.indexer_gluon as indexer_gluon

        if indexer_gluon.takes(q):
            return indexer_gluon.rows(q, k, k_scale, weights, starts, ends)
    from kernels.indexer_triton import rows

    return rows(q, k, k_scale, weights, starts, ends)


def _rows_reference(
    q: Tensor, k: Tensor, k_scale: Tensor | None, weights: Tensor, starts: Tensor, ends: Tensor
) -> Tensor:
    """-inf outside the ranges."""
    if k_scale is not None:
        q, k = q.float(), k.float()
    out = indexer_logits(q[None], k[None], weights[None])[0]
    if k_scale is not None:
        out *= k_scale
    return out.masked_fill_(~visible_keys(starts, ends, len(k)), -torch.inf)
