"""Rows of a latent cache on their way to shared memory on Hopper: copied as they are, or widened from FP8 in place.

What the third warpgroup of `kernels.sparse_mla_gluon` runs; that file says how the tiles go round.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import async_copy, fence_async_shared, mbarrier

from kernels.gluon_names import barrier


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
def gather_q(q, live, buffers, q_full, DIM: gl.constexpr):
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
def produce(
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
def produce_fp8(
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
