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
    async_copy,
    fence_async_shared,
    mbarrier,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from kernels.gluon_names import barrier
from kernels.quantize import latent_views

HEADS = 64
KEYS = 64
VALUE = 512
ROPE = 64


@gluon.jit
def _gather(tile, source, rows, valid, STRIDE: gl.constexpr, FIRST: gl.constexpr, WIDTH: gl.constexpr):
    """Starts copying columns FIRST .. FIRST + WIDTH of `rows` to a tile in shared memory; zeros for invalid ones."""
    layout: gl.constexpr = rows.type.layout.parent
    column = gl.arange(0, WIDTH, layout=gl.SliceLayout(0, layout))
    pointers = source + (rows.to(gl.int64) * STRIDE)[:, None] + (FIRST + column)[None, :]
    async_copy.async_copy_global_to_shared(tile, pointers, mask=valid[:, None])


@gluon.jit
def _keys(source, slot, count, RANGE: gl.constexpr):
    """Cache rows in the given slots, -1 for none; `source` points at the row's indices, or is the range's first row."""
    if RANGE:
        key = gl.where(slot < count, source + slot, -1)
    else:
        key = gl.load(source + slot, mask=slot < count, other=-1).to(gl.int32)
    return key


@gluon.jit
def _gather_q(q, live, buffers, q_full, DIM: gl.constexpr):
    layout: gl.constexpr = gl.BlockedLayout([1, 8], [4, 8], [4, 1], [1, 0])
    row = gl.arange(0, 64, layout=gl.SliceLayout(1, layout))
    q_left, q_right, q_rope, _, _, _ = buffers
    _gather(q_left.index(0), q, row, row < live, DIM, 0, 256)
    _gather(q_right.index(0), q, row, row < live, DIM, 256, 256)
    _gather(q_rope.index(0), q, row, row < live, DIM, 512, 64)
    async_copy.mbarrier_arrive(q_full, increment_count=False)


@gluon.jit
def _rope_and_bias(tile, bias, rope, key, full, STRIDE: gl.constexpr):
    _gather(tile, rope, key, key >= 0, STRIDE, 0, 64)
    async_copy.mbarrier_arrive(full, increment_count=False)
    bias.store(gl.where(key >= 0, 0.0, -float("inf")))


@gluon.jit
def _produce(
    cache, source, pairs, count, shared,
    KEYS: gl.constexpr, NOPE_STRIDE: gl.constexpr, SCALES_STRIDE: gl.constexpr,
    ROPE_STRIDE: gl.constexpr, RANGE: gl.constexpr,
):  # fmt: skip
    """Copies the rows of a cache in q's dtype, without a register in between."""
    buffers, bias, full, free, _, _, _, _ = shared
    _, _, _, left, right, rope = buffers
    nope_rows, _, rope_rows = cache
    # Eight threads copy 128 bytes of one row.
    layout: gl.constexpr = gl.BlockedLayout([1, 8], [4, 8], [4, 1], [1, 0])
    row = gl.arange(0, KEYS, layout=gl.SliceLayout(1, layout))
    next0 = _keys(source, row, count, RANGE)
    next1 = _keys(source, KEYS + row, count, RANGE)
    for pair in range(pairs):
        phase = (pair & 1) ^ 1
        key0 = next0
        key1 = next1
        slot = 2 * (pair + 1) * KEYS + row
        next0 = _keys(source, slot, count, RANGE)
        next1 = _keys(source, slot + KEYS, count, RANGE)
        mbarrier.wait(free.index(0), phase)
        _gather(left.index(0), nope_rows, key0, key0 >= 0, NOPE_STRIDE, 0, 256)
        async_copy.mbarrier_arrive(full.index(0), increment_count=False)
        mbarrier.wait(free.index(1), phase)
        _gather(right.index(1), nope_rows, key1, key1 >= 0, NOPE_STRIDE, 256, 256)
        async_copy.mbarrier_arrive(full.index(1), increment_count=False)
        mbarrier.wait(free.index(2), phase)
        _gather(right.index(0), nope_rows, key0, key0 >= 0, NOPE_STRIDE, 256, 256)
        _rope_and_bias(rope.index(0), bias.index(0), rope_rows, key0, full.index(2), ROPE_STRIDE)
        mbarrier.arrive(full.index(2), count=1)
        mbarrier.wait(free.index(3), phase)
        _gather(left.index(1), nope_rows, key1, key1 >= 0, NOPE_STRIDE, 0, 256)
        _rope_and_bias(rope.index(1), bias.index(1), rope_rows, key1, full.index(3), ROPE_STRIDE)
        mbarrier.arrive(full.index(3), count=1)


@gluon.jit
def _fetch(tile, nope, scales, key, GROUP: gl.constexpr, NOPE_STRIDE: gl.constexpr, SCALES_STRIDE: gl.constexpr):
    """Starts copying 256 e4m3 codes of each row, four in a word, to the second half of the place that their bfloat16
    values will take; returns the scales of the two groups."""
    layout: gl.constexpr = key.type.layout.parent
    word = GROUP * 32 + gl.arange(0, 64, layout=gl.SliceLayout(0, layout))
    row = key.to(gl.int64)
    async_copy.async_copy_global_to_shared(
        _raw(tile), nope + (row * NOPE_STRIDE)[:, None] + word[None, :], mask=(key >= 0)[:, None]
    )
    scales += row * SCALES_STRIDE + GROUP
    return gl.load(scales, mask=key >= 0, other=0.0), gl.load(scales + 1, mask=key >= 0, other=0.0)


@gluon.jit
def _raw(tile):
    words: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [1, 0])
    return tile._reinterpret(gl.int32, [2, 64, 64], words).index(1)


@gluon.jit
def _widen(tile, scale0, scale1, full):
    """Codes in place to scale * codes: a bfloat16 tile [64, 256]."""
    layout: gl.constexpr = scale0.type.layout.parent
    words: gl.constexpr = gl.NVMMASharedLayout(128, 32, 2)
    codes0 = _raw(tile).slice(0, 32, dim=1).load(layout)
    codes1 = _raw(tile).slice(32, 32, dim=1).load(layout)
    # Each thread reads what it has copied itself, and writes over what others have copied.
    barrier()
    wide = tile._reinterpret(gl.int32, [64, 128], words)
    wide.slice(0, 64, dim=1).store(_times(codes0, scale0))
    wide.slice(64, 64, dim=1).store(_times(codes1, scale1))
    fence_async_shared()
    mbarrier.arrive(full, count=1)


@gluon.jit
def _times(codes, scale):
    """Words of four e4m3 codes times their row's scale, as words of two bfloat16 values."""
    low, high = gl.inline_asm_elementwise(
        """{
        .reg .b16 c0, c1, h0, h1, h2, h3;
        .reg .b32 p0, p1;
        .reg .f32 f0, f1, f2, f3;
        mov.b32 {c0, c1}, $2;
        cvt.rn.f16x2.e4m3x2 p0, c0;
        cvt.rn.f16x2.e4m3x2 p1, c1;
        mov.b32 {h0, h1}, p0;
        mov.b32 {h2, h3}, p1;
        cvt.f32.f16 f0, h0;
        cvt.f32.f16 f1, h1;
        cvt.f32.f16 f2, h2;
        cvt.f32.f16 f3, h3;
        mul.f32 f0, f0, $3;
        mul.f32 f1, f1, $3;
        mul.f32 f2, f2, $3;
        mul.f32 f3, f3, $3;
        cvt.rn.bf16x2.f32 $0, f1, f0;
        cvt.rn.bf16x2.f32 $1, f3, f2;
        }""",
        "=r,=r,r,f",
        [codes, scale[:, None]],
        dtype=(gl.int32, gl.int32),
        is_pure=True,
        pack=1,
    )
    return gl.join(low, high).reshape([64, 64])


@gluon.jit
def _produce_fp8(
    cache, source, pairs, count, shared,
    KEYS: gl.constexpr, NOPE_STRIDE: gl.constexpr, SCALES_STRIDE: gl.constexpr,
    ROPE_STRIDE: gl.constexpr, RANGE: gl.constexpr,
):  # fmt: skip
    """Copies the rows of an FP8 cache, and widens them in place once they are there."""
    buffers, bias, full, free, _, _, _, _ = shared
    _, _, _, left, right, rope = buffers
    nope_rows, scales, rope_rows = cache
    layout: gl.constexpr = gl.BlockedLayout([1, 8], [4, 8], [4, 1], [1, 0])
    words: gl.constexpr = gl.SliceLayout(1, gl.BlockedLayout([1, 4], [4, 8], [4, 1], [1, 0]))
    row = gl.arange(0, KEYS, layout=gl.SliceLayout(1, layout))
    next0 = _keys(source, row, count, RANGE)
    next1 = _keys(source, KEYS + row, count, RANGE)
    for pair in range(pairs):
        phase = (pair & 1) ^ 1
        key0 = next0
        key1 = next1
        slot = 2 * (pair + 1) * KEYS + row
        next0 = _keys(source, slot, count, RANGE)
        next1 = _keys(source, slot + KEYS, count, RANGE)
        row0 = gl.convert_layout(key0, words)
        row1 = gl.convert_layout(key1, words)
        mbarrier.wait(free.index(0), phase)
        a0, a1 = _fetch(left.index(0), nope_rows, scales, row0, 0, NOPE_STRIDE, SCALES_STRIDE)
        async_copy.commit_group()
        mbarrier.wait(free.index(1), phase)
        b0, b1 = _fetch(right.index(1), nope_rows, scales, row1, 2, NOPE_STRIDE, SCALES_STRIDE)
        async_copy.commit_group()
        mbarrier.wait(free.index(2), phase)
        c0, c1 = _fetch(right.index(0), nope_rows, scales, row0, 2, NOPE_STRIDE, SCALES_STRIDE)
        _gather(rope.index(0), rope_rows, key0, key0 >= 0, ROPE_STRIDE, 0, 64)
        bias.index(0).store(gl.where(key0 >= 0, 0.0, -float("inf")))
        async_copy.commit_group()
        mbarrier.wait(free.index(3), phase)
        d0, d1 = _fetch(left.index(1), nope_rows, scales, row1, 0, NOPE_STRIDE, SCALES_STRIDE)
        _gather(rope.index(1), rope_rows, key1, key1 >= 0, ROPE_STRIDE, 0, 64)
        bias.index(1).store(gl.where(key1 >= 0, 0.0, -float("inf")))
        async_copy.commit_group()
        async_copy.wait_group(3)
        _widen(left.index(0), a0, a1, full.index(0))
        async_copy.wait_group(2)
        _widen(right.index(1), b0, b1, full.index(1))
        async_copy.wait_group(1)
        _widen(right.index(0), c0, c1, full.index(2))
        async_copy.wait_group(0)
        _widen(left.index(1), d0, d1, full.index(3))


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
    _gather_q(q + (row * heads + head) * (VALUE + ROPE), live, buffers, q_full, VALUE + ROPE)
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
                _produce_fp8 if FP8 else _produce,
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
