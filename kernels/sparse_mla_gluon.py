"""Sparse MLA attention for Hopper, hand-pipelined: three warpgroups per 64 heads of one query.

The keys of a query go in pairs of tiles of 64. Two warpgroups consume: the first scores tile 0 of a pair, the second
tile 1, and each owns half of the value columns (64 x 256 float32, 128 registers a thread). They hand each other their
probabilities through shared memory, half a step apart, so that one's softmax runs beside the other's products. The
third warpgroup gathers: 72 KB a tile, of which each half is refilled as soon as its last reader is done.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from kernels.gluon_latent_rows import gather_q, produce, produce_fp8
from kernels.gluon_names import barrier
from kernels.quantize import latent_views

HEADS = 64
KEYS = 64
VALUE = 512
ROPE = 64


@gluon.jit
def _zero(pair):
    """0 that the compiler takes for a variable. Of fixed tiles it would compute the descriptors of all 80 products of a
    step before the loop, and spill them; of a variable one it derives them where they are used."""
    return gl.inline_asm_elementwise("shr.u32 $0, $1, 30;", "=r,r", [pair], dtype=gl.int32, is_pure=True, pack=1)


@gluon.jit
def _scaled(score, bias, scale_log2):
    """Scores in powers of two; -inf where a slot holds no key."""
    return score * scale_log2 + bias.load(gl.SliceLayout(0, score.type.layout))[None, :]


@gluon.jit
def _finish(acc, total, peak, out, lse, live, filled, staging, WRITE_LSE: gl.constexpr, VALUE: gl.constexpr):
    """Writes 64 x 256 values; half precision passes through shared memory to leave in whole lines."""
    some = gl.where(total == 0, 1.0, total)
    if WRITE_LSE:
        head = gl.arange(0, 64, layout=total.type.layout)
        LN2: gl.constexpr = 0.6931471805599453
        natural = gl.where(total == 0, -float("inf"), (peak + gl.log2(some)) * LN2)
        gl.store(lse + head, natural, mask=head < live)
    acc = acc * gl.convert_layout(1.0 / some, gl.SliceLayout(1, acc.type.layout))[:, None]
    if out.dtype.element_ty == staging.dtype:
        layout: gl.constexpr = gl.BlockedLayout([1, 8], [1, 32], [4, 1], [1, 0])
        staging.store(acc.to(staging.dtype))
        barrier()
        _store(out, staging.load(layout), filled, VALUE)
    else:
        _store(out, acc, filled, VALUE)


@gluon.jit
def _store(out, tile, live, VALUE: gl.constexpr):
    head = gl.arange(0, 64, layout=gl.SliceLayout(1, tile.type.layout))
    column = gl.arange(0, 256, layout=gl.SliceLayout(0, tile.type.layout))
    gl.store(out + head[:, None] * VALUE + column[None, :], tile, mask=(head < live)[:, None])


@gluon.jit
def _consume_first(out, lse, live, filled, pairs, scale_log2, shared, KEYS: gl.constexpr, VALUE: gl.constexpr):
    """Tile 0 of every pair; the left value columns of both tiles."""
    buffers, bias, full, free, q_full, ready, peaks, totals = shared
    q_left, q_right, q_rope, left, right, rope = buffers
    score_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, KEYS, 16])
    acc_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 256, 16])
    rows: gl.constexpr = gl.SliceLayout(1, score_layout)
    acc_rows: gl.constexpr = gl.SliceLayout(1, acc_layout)
    operand: gl.constexpr = gl.DotOperandLayout(0, acc_layout, 2)
    peak = gl.full([64], -1e30, gl.float32, layout=rows)
    total = gl.full([64], 0.0, gl.float32, layout=rows)
    acc = gl.zeros([64, 256], gl.float32, layout=acc_layout)
    none = gl.zeros([64, KEYS], gl.float32, layout=score_layout)
    mbarrier.wait(q_full, 0)
    for pair in range(pairs):
        phase = pair & 1
        zero = _zero(pair)
        mbarrier.wait(full.index(0), phase)
        fence_async_shared()
        score = warpgroup_mma(q_left.index(zero), left.index(zero).permute([1, 0]), none, use_acc=False, is_async=True)
        mbarrier.wait(full.index(2), phase)
        fence_async_shared()
        score = warpgroup_mma(q_right.index(zero), right.index(zero).permute([1, 0]), score, is_async=True)
        score = warpgroup_mma(q_rope.index(zero), rope.index(zero).permute([1, 0]), score, is_async=True)
        score = warpgroup_mma_wait(0, deps=[score])
        score = _scaled(score, bias.index(0), scale_log2)
        mine = gl.maximum(peak, gl.max(score, 1))
        peaks.index(0).store(mine)
        mbarrier.arrive(ready.index(0), count=1)
        p = gl.exp2(score - mine[:, None])
        decay = gl.exp2(peak - mine)
        total = total * decay + gl.sum(p, 1)
        acc = acc * gl.convert_layout(decay, acc_rows)[:, None]
        p_operand = gl.convert_layout(p.to(left.dtype), operand)
        acc = warpgroup_mma(p_operand, left.index(zero), acc, is_async=True)

        mbarrier.wait(ready.index(1), phase)
        peak = peaks.index(1).load(rows)
        decay = gl.exp2(mine - peak)
        # The rope columns of a tile are spent once it is scored: the probabilities take their place.
        rope.index(zero).store((p * decay[:, None]).to(left.dtype))
        fence_async_shared()
        mbarrier.arrive(ready.index(2), count=1)
        acc, p_operand = warpgroup_mma_wait(0, deps=[acc, p_operand])
        barrier()
        mbarrier.arrive(free.index(0), count=1)
        total = total * decay
        acc = acc * gl.convert_layout(decay, acc_rows)[:, None]
        acc = warpgroup_mma(rope.index(zero + 1), left.index(zero + 1), acc, is_async=True)
        acc = warpgroup_mma_wait(0, deps=[acc])
        barrier()
        mbarrier.arrive(free.index(3), count=1)
    totals.index(0).store(total)
    mbarrier.arrive(ready.index(3), count=1)
    mbarrier.wait(ready.index(4), 0)
    other = totals.index(1).load(rows)
    _finish(acc, total + other, peak, out, lse, live, filled, q_left.index(0), True, VALUE)


@gluon.jit
def _consume_second(out, lse, live, filled, pairs, scale_log2, shared, KEYS: gl.constexpr, VALUE: gl.constexpr):
    """Tile 1 of every pair; the right value columns of both tiles."""
    buffers, bias, full, free, q_full, ready, peaks, totals = shared
    q_left, q_right, q_rope, left, right, rope = buffers
    score_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, KEYS, 16])
    acc_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 256, 16])
    rows: gl.constexpr = gl.SliceLayout(1, score_layout)
    acc_rows: gl.constexpr = gl.SliceLayout(1, acc_layout)
    operand: gl.constexpr = gl.DotOperandLayout(0, acc_layout, 2)
    peak = gl.full([64], -1e30, gl.float32, layout=rows)
    total = gl.full([64], 0.0, gl.float32, layout=rows)
    acc = gl.zeros([64, 256], gl.float32, layout=acc_layout)
    none = gl.zeros([64, KEYS], gl.float32, layout=score_layout)
    mbarrier.wait(q_full, 0)
    for pair in range(pairs):
        phase = pair & 1
        zero = _zero(pair)
        mbarrier.wait(full.index(1), phase)
        fence_async_shared()
        score = warpgroup_mma(
            q_right.index(zero), right.index(zero + 1).permute([1, 0]), none, use_acc=False, is_async=True
        )
        mbarrier.wait(full.index(3), phase)
        fence_async_shared()
        score = warpgroup_mma(q_left.index(zero), left.index(zero + 1).permute([1, 0]), score, is_async=True)
        score = warpgroup_mma(q_rope.index(zero), rope.index(zero + 1).permute([1, 0]), score, is_async=True)
        score = warpgroup_mma_wait(0, deps=[score])
        score = _scaled(score, bias.index(1), scale_log2)
        mine = gl.max(score, 1)
        mbarrier.wait(ready.index(0), phase)
        mine = gl.maximum(mine, peaks.index(0).load(rows))
        p = gl.exp2(score - mine[:, None])
        decay = gl.exp2(peak - mine)
        peak = mine
        p_low = p.to(left.dtype)
        peaks.index(1).store(peak)
        rope.index(zero + 1).store(p_low)
        fence_async_shared()
        mbarrier.arrive(ready.index(1), count=1)
        total = total * decay + gl.sum(p, 1)
        acc = acc * gl.convert_layout(decay, acc_rows)[:, None]
        p_operand = gl.convert_layout(p_low, operand)
        acc = warpgroup_mma(p_operand, right.index(zero + 1), acc, is_async=True)
        mbarrier.wait(ready.index(2), phase)
        acc = warpgroup_mma(rope.index(zero), right.index(zero), acc, is_async=True)
        acc, p_operand = warpgroup_mma_wait(1, deps=[acc, p_operand])
        barrier()
        mbarrier.arrive(free.index(1), count=1)
        acc = warpgroup_mma_wait(0, deps=[acc])
        barrier()
        mbarrier.arrive(free.index(2), count=1)
    totals.index(1).store(total)
    mbarrier.arrive(ready.index(4), count=1)
    mbarrier.wait(ready.index(3), 0)
    other = totals.index(0).load(rows)
    _finish(acc, other + total, peak, out + 256, lse, live, filled, q_right.index(0), False, VALUE)


@gluon.jit
def _attend(
    q, nope, scales, rope_rows, indices, starts, ends, out, lse, scale_log2, heads, keys, split,
    HEADS: gl.constexpr, KEYS: gl.constexpr, VALUE: gl.constexpr, ROPE: gl.constexpr,
    NOPE_STRIDE: gl.constexpr, SCALES_STRIDE: gl.constexpr, ROPE_STRIDE: gl.constexpr,
):  # fmt: skip
    """Arguments as those of `kernels.sparse_mla_triton.attend`."""
    RANGE: gl.constexpr = indices is None
    FP8: gl.constexpr = scales is not None
    dtype: gl.constexpr = q.dtype.element_ty
    blocks = gl.cdiv(heads, HEADS)
    row = (gl.program_id(0) // blocks).to(gl.int64)
    head = gl.program_id(0) % blocks * HEADS
    live = gl.minimum(heads - head, HEADS)
    first = gl.program_id(1) * split

    half: gl.constexpr = gl.NVMMASharedLayout.get_default_for([64, 256], dtype)
    narrow: gl.constexpr = gl.NVMMASharedLayout.get_default_for([64, 64], dtype)
    vector: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0])
    q_left = gl.allocate_shared_memory(dtype, [1, HEADS, 256], half)
    q_right = gl.allocate_shared_memory(dtype, [1, HEADS, 256], half)
    q_rope = gl.allocate_shared_memory(dtype, [1, HEADS, ROPE], narrow)
    left = gl.allocate_shared_memory(dtype, [2, KEYS, 256], half)
    right = gl.allocate_shared_memory(dtype, [2, KEYS, 256], half)
    rope = gl.allocate_shared_memory(dtype, [2, KEYS, ROPE], narrow)
    peaks = gl.allocate_shared_memory(gl.float32, [2, HEADS], vector)
    bias = gl.allocate_shared_memory(gl.float32, [2, KEYS], vector)
    totals = gl.allocate_shared_memory(gl.float32, [2, HEADS], vector)
    full = gl.allocate_shared_memory(gl.int64, [4, 1], mbarrier.MBarrierLayout())
    free = gl.allocate_shared_memory(gl.int64, [4, 1], mbarrier.MBarrierLayout())
    ready = gl.allocate_shared_memory(gl.int64, [5, 1], mbarrier.MBarrierLayout())
    q_full = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    mbarrier.init(q_full, count=128)
    for i in gl.static_range(4):
        # Each thread for what it copies, and one for all of them for the bias; once for all where FP8 rows are widened.
        mbarrier.init(full.index(i), count=1 if FP8 else (128 if i < 2 else 129))
        mbarrier.init(free.index(i), count=1)
    for i in gl.static_range(5):
        mbarrier.init(ready.index(i), count=1)
    fence_async_shared()

    # The queries are on their way while the number of keys is found.
    buffers = (q_left, q_right, q_rope, left, right, rope)
    gather_q(q + (row * heads + head) * (VALUE + ROPE), live, buffers, q_full, VALUE + ROPE)
    if RANGE:
        source = gl.load(starts + row) + first
        count = gl.minimum(split, gl.load(ends + row) - source)
    else:
        # The padding at the end of a row costs nothing: one look at all slots finds the last one in use.
        source = indices + row * keys + first
        slots = gl.arange(0, 2048, layout=gl.BlockedLayout([4], [32], [4], [0]))
        size = gl.minimum(split, keys - first)
        count = 0
        for tile in range(0, size, 2048):
            picked = gl.load(source + tile + slots, mask=tile + slots < size, other=-1)
            count = gl.maximum(count, gl.max(gl.where(picked >= 0, tile + slots + 1, 0), 0))
    pairs = gl.cdiv(gl.maximum(count, 0), 2 * KEYS)

    at = (row * gl.num_programs(1) + gl.program_id(1)) * heads + head
    out += at * VALUE
    lse += at
    # Of an empty split, one among many of a short row, only lse is read.
    filled = gl.where((count > 0) | (gl.num_programs(1) == 1), live, 0)
    shared = (buffers, bias, full, free, q_full, ready, peaks, totals)
    gl.warp_specialize(
        [
            (
                produce_fp8 if FP8 else produce,
                (
                    (nope, scales, rope_rows), source, pairs, count, shared,
                    KEYS, NOPE_STRIDE, SCALES_STRIDE, ROPE_STRIDE, RANGE,
                ),
            ),
            (_consume_first, (out, lse, live, filled, pairs, scale_log2, shared, KEYS, VALUE)),
            (_consume_second, (out, lse, live, filled, pairs, scale_log2, shared, KEYS, VALUE)),
        ],
        [4, 4],
        [200, 200],
    )  # fmt: skip


def takes(q: Tensor, cache: Tensor, value_dim: int) -> bool:
    """Whether the kernel is made for this shape: 512 + 64 columns in half precision; FP8 rows for bfloat16 queries."""
    dtypes = (torch.bfloat16,) if cache.dtype == torch.uint8 else (torch.bfloat16, torch.float16)
    return q.dtype in dtypes and (value_dim, q.shape[2] - value_dim) == (VALUE, ROPE)


def launch(
    q: Tensor,
    cache: Tensor,
    out: Tensor,
    lse: Tensor,
    scale: float,
    indices: Tensor | None,
    bounds: tuple[Tensor, Tensor] | None,
    split: int,
    splits: int,
) -> None:
    """As `kernels.sparse_mla_triton.launch`, for what `takes` accepts."""
    rows, heads, _ = q.shape
    scales = None
    nope, rope = cache[:, :VALUE], cache[:, VALUE:]
    if cache.dtype == torch.uint8:
        _, scales, rope = latent_views(cache, VALUE)
        nope = nope.view(torch.int32)
    starts, ends = bounds or (None, None)
    _attend[(rows * -(-heads // HEADS), splits)](
        q, nope, scales, rope, indices, starts, ends, out, lse, scale * math.log2(math.e), heads,
        0 if indices is None else indices.shape[1], split, HEADS=HEADS, KEYS=KEYS, VALUE=VALUE, ROPE=ROPE,
        NOPE_STRIDE=nope.stride(0), SCALES_STRIDE=0 if scales is None else scales.stride(0),
        ROPE_STRIDE=rope.stride(0), num_warps=4, maxnreg=168,
    )  # fmt: skip
