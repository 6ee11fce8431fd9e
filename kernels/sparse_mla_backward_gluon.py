"""The products of the sparse MLA backward on Hopper: loads in warps of their own, two warp groups that take turns."""

from __future__ import annotations

import torch
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    async_copy,
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from kernels.gluon_names import barrier

_SWIZZLED = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=2)
_SWIZZLED_64 = gl.NVMMASharedLayout(swizzle_byte_width=64, element_bitwidth=16, rank=2)
_STAGES = 11


@gluon.jit
def _scores_kernel(
    q, grad_out, kv, zeros, indices, lse, delta, p_out, ds_out, scale, units,
    SLOTS: gl.constexpr, GROUPS: gl.constexpr, STAGES: gl.constexpr, LAYOUT: gl.constexpr,
):  # fmt: skip
    # A unit is 64 heads of a query. One warp group holds their Q in registers and makes P, the other holds dO and makes
    # dS from its own product and the first one's P; the latent rows stream past both, 128 keys by 64 columns at a time.
    ring = gl.allocate_shared_memory(gl.bfloat16, [STAGES, 128, 64], LAYOUT)
    p_buf = gl.allocate_shared_memory(gl.bfloat16, [2, 64, 128], LAYOUT)
    rope_buf = gl.allocate_shared_memory(gl.bfloat16, [64, 64], LAYOUT)
    full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    p_full = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    p_empty = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(STAGES):
        mbarrier.init(full.index(i), count=128)
        mbarrier.init(empty.index(i), count=2)
    for i in gl.static_range(2):
        mbarrier.init(p_full.index(i), count=1)
        mbarrier.init(p_empty.index(i), count=1)
    fence_async_shared()
    rings = (ring, full, empty, p_buf, p_full, p_empty)
    gl.warp_specialize(
        [
            (_probabilities, (rings, rope_buf, lse, p_out, scale, units, SLOTS, STAGES)),
            (_score_gradients, (rings, delta, ds_out, scale, units, SLOTS, STAGES)),
            (_load_scores, (ring, full, empty, q, grad_out, kv, zeros, indices, units, SLOTS, GROUPS, STAGES)),
        ],
        [4, 4],
        [224, 56],
    )  # fmt: skip


@gluon.jit
def _load_scores(
    ring, full, empty, q, grad_out, kv, zeros, indices, units,
    SLOTS: gl.constexpr, GROUPS: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    layout: gl.constexpr = gl.BlockedLayout([1, 8], [4, 8], [4, 1], [1, 0])
    row = gl.arange(0, 128, gl.SliceLayout(1, layout))
    column = gl.arange(0, 64, gl.SliceLayout(0, layout))
    # A thread's columns of an accumulator are 8j + 2i + {0, 1}; loaded in this order they are eight slots in a row.
    slot = (row & -32) | ((row & 6) << 2) | ((row & 24) >> 2) | (row & 1)
    stage = 0
    phase = 1
    for unit in range(gl.program_id(0), units, gl.num_programs(0)):
        # Q above dO: both warp groups take their operands from the same ring.
        head = gl.cast(unit, gl.int64) * 64 + row % 64
        at = gl.where(row < 64, q + head * 576, grad_out + head * 512)[:, None] + column[None, :]
        for c in gl.static_range(9):
            if c == 8:
                at = gl.where(row < 64, q + head * 576, zeros - 512)[:, None] + column[None, :]
            mbarrier.wait(empty.index(stage), phase)
            async_copy.async_copy_global_to_shared(ring.index(stage), at + c * 64)
            async_copy.mbarrier_arrive(full.index(stage), increment_count=False)
            stage, phase = _next(stage, phase, STAGES)
        keys = indices + gl.cast(unit // GROUPS, gl.int64) * SLOTS + slot
        for tile in range(SLOTS // 128):
            key = gl.load(keys + tile * 128)
            at = gl.where(key >= 0, kv + key.to(gl.int64) * 576, zeros)[:, None] + column[None, :]
            for c in gl.static_range(9):
                mbarrier.wait(empty.index(stage), phase)
                async_copy.async_copy_global_to_shared(ring.index(stage), at + c * 64)
                async_copy.mbarrier_arrive(full.index(stage), increment_count=False)
                stage, phase = _next(stage, phase, STAGES)


@gluon.jit
def _next(stage, phase, STAGES: gl.constexpr):
    wraps = stage == STAGES - 1
    return gl.where(wraps, 0, stage + 1), gl.where(wraps, phase ^ 1, phase)


@gluon.jit
def _take(ring, full, empty, stage, phase, ROW: gl.constexpr, operand: gl.constexpr):
    """64 rows of a stage as the left operand of a product, in registers."""
    mbarrier.wait(full.index(stage), phase)
    rows = ring.index(stage).slice(ROW, 64).load(operand)
    mbarrier.arrive(empty.index(stage), count=1)
    return rows


@gluon.jit
def _pass(full, empty, stage, phase):
    mbarrier.wait(full.index(stage), phase)
    mbarrier.arrive(empty.index(stage), count=1)


@gluon.jit
def _times_keys(a, total, ring, full, empty, stage, phase, last, USE: gl.constexpr):
    """Starts total += a K^T for the stage's columns and gives back the stage before, whose product has ended."""
    mbarrier.wait(full.index(stage), phase)
    fence_async_shared()
    total = warpgroup_mma(a, ring.index(stage).permute((1, 0)), total, use_acc=USE, is_async=True)
    if USE:
        total = warpgroup_mma_wait(1, deps=(total,))
        mbarrier.arrive(empty.index(last), count=1)
    return total


@gluon.jit
def _store_scores(out, x, unit, tile, SLOTS: gl.constexpr):
    """Stores an accumulator [64, 128], whose columns stand in the order of `_load_scores`, 16 bytes at a time."""
    layout: gl.constexpr = gl.DistributedLinearLayout(
        reg_bases=[[0, 1], [0, 2], [0, 4], [8, 0], [0, 32], [0, 64]],
        lane_bases=[[0, 8], [0, 16], [1, 0], [2, 0], [4, 0]],
        warp_bases=[[16, 0], [32, 0]],
        block_bases=[],
        shape=[64, 128],
    )
    x = x.to(gl.bfloat16).reshape(64, 4, 4, 4, 2).permute(0, 1, 3, 2, 4).reshape(64, 128)
    x = gl.convert_layout(x, layout, assert_trivial=True)
    head = gl.cast(unit, gl.int64) * 64 + gl.arange(0, 64, gl.SliceLayout(1, layout))
    slot = tile * 128 + gl.arange(0, 128, gl.SliceLayout(0, layout))
    gl.store(out + head[:, None] * SLOTS + slot[None, :], x)


@gluon.jit
def _probabilities(rings, rope_buf, lse, p_out, scale, units, SLOTS: gl.constexpr, STAGES: gl.constexpr):
    ring, full, empty, p_buf, p_full, p_empty = rings
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 128, 16])
    operand: gl.constexpr = gl.DotOperandLayout(0, layout, 2)
    head = gl.arange(0, 64, gl.SliceLayout(1, layout))
    LOG2E: gl.constexpr = 1.4426950408889634
    stage = 0
    phase = 0
    done = 0
    for unit in range(gl.program_id(0), units, gl.num_programs(0)):
        log_sum = gl.load(lse + unit * 64 + head) * LOG2E
        log_sum = gl.where(log_sum == -float("inf"), float("inf"), log_sum)
        q = gl.tuple(())
        for _ in gl.static_range(8):
            q += (_take(ring, full, empty, stage, phase, 0, operand),)
            stage, phase = _next(stage, phase, STAGES)
        # No registers are left for the rope columns of Q.
        rope_buf.store(_take(ring, full, empty, stage, phase, 0, operand))
        fence_async_shared()
        barrier()
        stage, phase = _next(stage, phase, STAGES)
        for tile in range(SLOTS // 128):
            s = gl.zeros([64, 128], gl.float32, layout)
            last = stage
            for c in gl.static_range(9):
                s = _times_keys(q[c] if c < 8 else rope_buf, s, ring, full, empty, stage, phase, last, c > 0)
                last = stage
                stage, phase = _next(stage, phase, STAGES)
            s = warpgroup_mma_wait(0, deps=(s,))
            mbarrier.arrive(empty.index(last), count=1)
            # A probability is at most 1, and so is what a slot without a key gets here.
            p = gl.exp2(gl.minimum(s * (scale * LOG2E) - log_sum[:, None], 0.0)).to(gl.bfloat16)
            mbarrier.wait(p_empty.index(done % 2), ((done // 2) & 1) ^ 1)
            p_buf.index(done % 2).store(p)
            mbarrier.arrive(p_full.index(done % 2), count=1)
            _store_scores(p_out, p, unit, tile, SLOTS)
            done += 1


@gluon.jit
def _score_gradients(rings, delta, ds_out, scale, units, SLOTS: gl.constexpr, STAGES: gl.constexpr):
    ring, full, empty, p_buf, p_full, p_empty = rings
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 128, 16])
    operand: gl.constexpr = gl.DotOperandLayout(0, layout, 2)
    head = gl.arange(0, 64, gl.SliceLayout(1, layout))
    stage = 0
    phase = 0
    done = 0
    for unit in range(gl.program_id(0), units, gl.num_programs(0)):
        mean = gl.load(delta + unit * 64 + head)
        do = gl.tuple(())
        for _ in gl.static_range(8):
            do += (_take(ring, full, empty, stage, phase, 64, operand),)
            stage, phase = _next(stage, phase, STAGES)
        _pass(full, empty, stage, phase)
        stage, phase = _next(stage, phase, STAGES)
        for tile in range(SLOTS // 128):
            dp = gl.zeros([64, 128], gl.float32, layout)
            last = stage
            for c in gl.static_range(8):
                dp = _times_keys(do[c], dp, ring, full, empty, stage, phase, last, c > 0)
                last = stage
                stage, phase = _next(stage, phase, STAGES)
            dp = warpgroup_mma_wait(0, deps=(dp,))
            mbarrier.arrive(empty.index(last), count=1)
            # The rope columns are no value: they pass by.
            _pass(full, empty, stage, phase)
            stage, phase = _next(stage, phase, STAGES)
            mbarrier.wait(p_full.index(done % 2), (done // 2) & 1)
            p = p_buf.index(done % 2).load(layout)
            mbarrier.arrive(p_empty.index(done % 2), count=1)
            _store_scores(ds_out, p.to(gl.float32) * (dp - mean[:, None]) * scale, unit, tile, SLOTS)
            done += 1


@gluon.jit
def _partials_kernel(
    p, ds, p_desc, ds_desc, q_desc, q_rope_desc, do_desc, out_desc, out_rope_desc, units,
    SLOTS: gl.constexpr, LAYOUT: gl.constexpr, ROPE_LAYOUT: gl.constexpr,
):  # fmt: skip
    # Half of the columns of one query's Q and dO stay in shared memory; P and dS stream past, 64 slots at a time for
    # one of two warp groups, which hold them in registers. Three stores of a warp group are under way at a time.
    q_buf = gl.allocate_shared_memory(gl.bfloat16, [4, 128, 64], LAYOUT)
    do_buf = gl.allocate_shared_memory(gl.bfloat16, [4, 128, 64], LAYOUT)
    rope_buf = gl.allocate_shared_memory(gl.bfloat16, [128, 32], ROPE_LAYOUT)
    p_buf = gl.allocate_shared_memory(gl.bfloat16, [128, 64], LAYOUT)
    ds_buf = gl.allocate_shared_memory(gl.bfloat16, [128, 64], LAYOUT)
    first_out = gl.allocate_shared_memory(gl.bfloat16, [3, 64, 64], LAYOUT)
    second_out = gl.allocate_shared_memory(gl.bfloat16, [3, 64, 64], LAYOUT)
    full = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    held_full = gl.allocate_shared_memory(gl.int64, [5, 1], mbarrier.MBarrierLayout())
    held_empty = gl.allocate_shared_memory(gl.int64, [5, 1], mbarrier.MBarrierLayout())
    mbarrier.init(full.index(0), count=1)
    mbarrier.init(full.index(1), count=1)
    mbarrier.init(empty, count=1)
    for i in gl.static_range(5):
        mbarrier.init(held_full.index(i), count=1)
        mbarrier.init(held_empty.index(i), count=2)
    fence_async_shared()
    held = (q_buf, do_buf, rope_buf, held_full, held_empty)
    pairs = (p_buf, ds_buf, full, empty)
    gl.warp_specialize(
        [
            (_pair_rows, (held, pairs, first_out, out_desc, out_rope_desc, units, 0, SLOTS, ROPE_LAYOUT)),
            (_pair_rows, (held, pairs, second_out, out_desc, out_rope_desc, units, 1, SLOTS, ROPE_LAYOUT)),
            (_load_pair_rows, (held, pairs, p, ds, p_desc, ds_desc, q_desc, q_rope_desc, do_desc, units, SLOTS)),
        ],
        [4, 1],
        [224, 48],
    )  # fmt: skip


@gluon.jit
def _load_pair_rows(
    held, pairs, p, ds, p_desc, ds_desc, q_desc, q_rope_desc, do_desc, units, SLOTS: gl.constexpr
):  # fmt: skip
    q_buf, do_buf, rope_buf, held_full, held_empty = held
    p_buf, ds_buf, full, empty = pairs
    line = gl.cast(gl.arange(0, 128, gl.BlockedLayout([1], [32], [1], [0])), gl.int64) * SLOTS
    step = 0
    for unit in range(gl.program_id(0), units, gl.num_programs(0)):
        turn = unit // gl.num_programs(0)
        row = unit // 2 * 128
        half = unit % 2
        for pair in range(SLOTS // 128):
            for group in gl.static_range(2):
                mbarrier.wait(empty, (step & 1) ^ 1)
                mbarrier.expect(full.index(group), 2 * 128 * 64 * 2)
                at = pair * 128 + group * 64
                if pair < SLOTS // 128 - 2:
                    _prefetch(ds + gl.cast(row, gl.int64) * SLOTS + at + 256 + line)
                    _prefetch(p + gl.cast(row, gl.int64) * SLOTS + at + 256 + line)
                tma.async_copy_global_to_shared(ds_desc, [row, at], full.index(group), ds_buf)
                tma.async_copy_global_to_shared(p_desc, [row, at], full.index(group), p_buf)
                if group == 0 and pair == 0:
                    mbarrier.wait(held_empty.index(4), (turn & 1) ^ 1)
                    mbarrier.expect(held_full.index(4), 128 * 32 * 2)
                    tma.async_copy_global_to_shared(q_rope_desc, [row, 512 + half * 32], held_full.index(4), rope_buf)
                    for c in gl.static_range(4):
                        at = half * 256 + c * 64
                        mbarrier.wait(held_empty.index(c), (turn & 1) ^ 1)
                        mbarrier.expect(held_full.index(c), 2 * 128 * 64 * 2)
                        tma.async_copy_global_to_shared(q_desc, [row, at], held_full.index(c), q_buf.index(c))
                        tma.async_copy_global_to_shared(do_desc, [row, at], held_full.index(c), do_buf.index(c))
                step += 1


@gluon.jit
def _prefetch(at):
    """Fetches 128 bytes into the L2 cache: shared memory has no room to wait for DRAM behind the stores."""
    gl.inline_asm_elementwise("prefetch.global.L2 [$1]; mov.u32 $0, 0;", "=r,l", [at], gl.int32, False, 1)


@gluon.jit
def _pair_rows(
    held, pairs, out_buf, out_desc, out_rope_desc, units,
    GROUP: gl.constexpr, SLOTS: gl.constexpr, ROPE_LAYOUT: gl.constexpr,
):  # fmt: skip
    q_buf, do_buf, rope_buf, held_full, held_empty = held
    p_buf, ds_buf, full, empty = pairs
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 64, 16])
    rope_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 32, 16])
    operand: gl.constexpr = gl.DotOperandLayout(0, layout, 2)
    rope_operand: gl.constexpr = gl.DotOperandLayout(0, rope_layout, 2)
    slot = 0
    step = 0
    for unit in range(gl.program_id(0), units, gl.num_programs(0)):
        turn = unit // gl.num_programs(0)
        half = unit % 2
        for pair in range(SLOTS // 128):
            mbarrier.wait(full.index(GROUP), step & 1)
            ds = ds_buf.permute((1, 0)).load(operand)
            p = p_buf.permute((1, 0)).load(operand)
            fence_async_shared()  # the next copy into these buffers must not overtake the reads
            mbarrier.arrive(empty, count=1)
            step += 1
            row = unit // 2 * SLOTS + pair * 128 + GROUP * 64
            last = pair == SLOTS // 128 - 1

            mbarrier.wait(held_full.index(4), turn & 1)
            rope = gl.zeros([64, 32], gl.float32, rope_layout)
            rope = warpgroup_mma(
                gl.convert_layout(ds, rope_operand, assert_trivial=True), rope_buf, rope, use_acc=False, is_async=True
            )
            rope = warpgroup_mma_wait(0, deps=(rope,))
            if last:
                mbarrier.arrive(held_empty.index(4), count=1)
            total = _pair_columns(ds, p, q_buf.index(0), do_buf.index(0), held_full.index(0), turn, layout)
            rope_out = out_buf.index(slot)._reinterpret(gl.bfloat16, [64, 32], ROPE_LAYOUT)
            _store_pairs(out_rope_desc, [row, 512 + half * 32], rope_out, rope)
            slot = gl.where(slot == 2, 0, slot + 1)
            for c in gl.static_range(4):
                done = warpgroup_mma_wait(0, deps=(total,))
                if last:
                    mbarrier.arrive(held_empty.index(c), count=1)
                if c < 3:
                    total = _pair_columns(
                        ds, p, q_buf.index(c + 1), do_buf.index(c + 1), held_full.index(c + 1), turn, layout
                    )
                _store_pairs(out_desc, [row, half * 256 + c * 64], out_buf.index(slot), done)
                slot = gl.where(slot == 2, 0, slot + 1)
    tma.store_wait(0)


@gluon.jit
def _store_pairs(desc, at, buf, total):
    tma.store_wait(2)
    barrier()
    buf.store(total.to(gl.bfloat16))
    fence_async_shared()
    barrier()
    tma.async_copy_shared_to_global(desc, at, buf)


@gluon.jit
def _pair_columns(ds, p, q, do, full, turn, layout: gl.constexpr):
    """Starts dS^T Q + P^T dO for 64 columns."""
    mbarrier.wait(full, turn & 1)
    total = gl.zeros([64, 64], gl.float32, layout)
    total = warpgroup_mma(ds, q, total, use_acc=False, is_async=True)
    return warpgroup_mma(p, do, total, is_async=True)


@gluon.jit
def _query_gradient_kernel(
    ds_desc, kv, zeros, indices, dq, units,
    SLOTS: gl.constexpr, STAGES: gl.constexpr, LAYOUT: gl.constexpr, ROPE_LAYOUT: gl.constexpr,
):  # fmt: skip
    # A program owns half of the columns of one query's dQ for all heads, 64 heads to a warp group.
    k_buf = gl.allocate_shared_memory(gl.bfloat16, [STAGES, 64, 256], LAYOUT)
    rope_buf = gl.allocate_shared_memory(gl.bfloat16, [STAGES, 64, 32], ROPE_LAYOUT)
    ds_buf = gl.allocate_shared_memory(gl.bfloat16, [STAGES, 128, 64], LAYOUT)
    full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(STAGES):
        mbarrier.init(full.index(i), count=129)
        mbarrier.init(empty.index(i), count=2)
    fence_async_shared()
    ring = (k_buf, rope_buf, ds_buf, full, empty)
    gl.warp_specialize(
        [
            (_gather_product, (ring, dq, units, 0, SLOTS, STAGES)),
            (_gather_product, (ring, dq, units, 1, SLOTS, STAGES)),
            (_load_rows, (ring, ds_desc, kv, zeros, indices, units, SLOTS, STAGES)),
        ],
        [4, 4],
        [216, 72],
    )  # fmt: skip


@gluon.jit
def _load_rows(ring, ds_desc, kv, zeros, indices, units, SLOTS: gl.constexpr, STAGES: gl.constexpr):
    k_buf, rope_buf, ds_buf, full, empty = ring
    layout: gl.constexpr = gl.BlockedLayout([1, 8], [1, 32], [4, 1], [1, 0])
    slot = gl.arange(0, 64, gl.SliceLayout(1, layout))
    column = gl.arange(0, 256, gl.SliceLayout(0, layout))
    rope_layout: gl.constexpr = gl.BlockedLayout([1, 8], [8, 4], [4, 1], [1, 0])
    rope_slot = gl.arange(0, 64, gl.SliceLayout(1, rope_layout))
    rope_column = gl.arange(0, 32, gl.SliceLayout(0, rope_layout))
    step = 0
    for unit in range(gl.program_id(0), units, gl.num_programs(0)):
        keys = indices + gl.cast(unit // 2, gl.int64) * SLOTS
        half = unit % 2
        for tile in range(SLOTS // 64):
            key = gl.load(keys + tile * 64 + slot)
            rope_key = gl.load(keys + tile * 64 + rope_slot)
            stage = step % STAGES
            mbarrier.wait(empty.index(stage), ((step // STAGES) & 1) ^ 1)
            mbarrier.expect(full.index(stage), 128 * 64 * 2)
            tma.async_copy_global_to_shared(
                ds_desc, [unit // 2 * 128, tile * 64], full.index(stage), ds_buf.index(stage)
            )
            at = gl.where(key >= 0, kv + key.to(gl.int64) * 576, zeros)[:, None] + (half * 256 + column)[None, :]
            async_copy.async_copy_global_to_shared(k_buf.index(stage), at)
            at = gl.where(rope_key >= 0, kv + rope_key.to(gl.int64) * 576, zeros)[:, None]
            at += (512 + half * 32 + rope_column)[None, :]
            async_copy.async_copy_global_to_shared(rope_buf.index(stage), at)
            async_copy.mbarrier_arrive(full.index(stage), increment_count=False)
            step += 1


@gluon.jit
def _gather_product(ring, dq, units, GROUP: gl.constexpr, SLOTS: gl.constexpr, STAGES: gl.constexpr):
    k_buf, rope_buf, ds_buf, full, empty = ring
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 256, 16])
    rope_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 32, 16])
    head = GROUP * 64 + gl.arange(0, 64, gl.SliceLayout(1, layout))
    column = gl.arange(0, 256, gl.SliceLayout(0, layout))
    rope_head = GROUP * 64 + gl.arange(0, 64, gl.SliceLayout(1, rope_layout))
    rope_column = gl.arange(0, 32, gl.SliceLayout(0, rope_layout))
    step = 0
    for unit in range(gl.program_id(0), units, gl.num_programs(0)):
        half = unit % 2
        total = gl.zeros([64, 256], gl.float32, layout)
        rope = gl.zeros([64, 32], gl.float32, rope_layout)
        for tile in range(SLOTS // 64):
            stage = step % STAGES
            mbarrier.wait(full.index(stage), (step // STAGES) & 1)
            fence_async_shared()
            ds = ds_buf.index(stage).slice(GROUP * 64, 64)
            total = warpgroup_mma(ds, k_buf.index(stage), total, is_async=True)
            rope = warpgroup_mma(ds, rope_buf.index(stage), rope, is_async=True)
            total, rope = warpgroup_mma_wait(2, deps=(total, rope))
            if tile > 0:
                mbarrier.arrive(empty.index((step - 1) % STAGES), count=1)
            step += 1
        total, rope = warpgroup_mma_wait(0, deps=(total, rope))
        mbarrier.arrive(empty.index((step - 1) % STAGES), count=1)
        rows = dq + gl.cast(unit // 2, gl.int64) * (128 * 576) + half * 256
        gl.store(rows + head[:, None] * 576 + column[None, :], total.to(gl.bfloat16))
        rows = dq + gl.cast(unit // 2, gl.int64) * (128 * 576) + 512 + half * 32
        gl.store(rows + rope_head[:, None] * 576 + rope_column[None, :], rope.to(gl.bfloat16))


def takes(q: Tensor, slots: int, value_dim: int) -> bool:
    """Whether these kernels are made for the shape: DeepSeek-V3's heads and latent, bf16, whole tiles of slots."""
    return q.dtype == torch.bfloat16 and q.shape[1:] == (128, 576) and value_dim == 512 and slots % 128 == 0


def whole_waves(queries: int, device: int) -> int:
    """The largest number of queries up to `queries` whose units keep every processor busy to the end."""
    return queries - queries % _processors(device) or queries


def _descriptor(rows: Tensor, block: list[int], layout: gl.NVMMASharedLayout = _SWIZZLED) -> TensorDescriptor:
    return TensorDescriptor.from_tensor(rows.view(-1, rows.shape[-1]), block, layout)


def scores(
    q: Tensor, kv: Tensor, indices: Tensor, lse: Tensor, grad_out: Tensor, delta: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """P and dS, [C, H, k] bf16."""
    queries, heads, _ = q.shape
    slots = indices.shape[1]
    p, ds = q.new_empty(2, queries, heads, slots).unbind()
    units = queries * heads // 64
    zeros = kv.new_zeros(kv.shape[1])
    _scores_kernel[(min(units, _processors(q.device.index)),)](
        q, grad_out, kv, zeros, indices, lse, delta, p, ds, scale, units,
        SLOTS=slots, GROUPS=heads // 64, STAGES=_STAGES, LAYOUT=_SWIZZLED, num_warps=4, maxnreg=168,
    )  # fmt: skip
    return p, ds


def partials(p: Tensor, ds: Tensor, q: Tensor, grad_out: Tensor) -> Tensor:
    """[C * k, D] bf16: what a pair adds to its key's row."""
    queries, _, slots = p.shape
    rows = q.new_empty(queries * slots, q.shape[-1])
    units = 2 * queries
    _partials_kernel[(min(units, _processors(q.device.index)),)](
        p, ds, _descriptor(p, [128, 64]), _descriptor(ds, [128, 64]), _descriptor(q, [128, 64]),
        _descriptor(q, [128, 32], _SWIZZLED_64), _descriptor(grad_out, [128, 64]), _descriptor(rows, [64, 64]),
        _descriptor(rows, [64, 32], _SWIZZLED_64), units,
        SLOTS=slots, LAYOUT=_SWIZZLED, ROPE_LAYOUT=_SWIZZLED_64, num_warps=4, maxnreg=168,
    )  # fmt: skip
    return rows


def query_gradient(ds: Tensor, kv: Tensor, indices: Tensor, dq: Tensor) -> None:
    """dq[t] = dS[t] K over the selected rows."""
    queries, _, slots = ds.shape
    units = 2 * queries
    _query_gradient_kernel[(min(units, _processors(ds.device.index)),)](
        _descriptor(ds, [128, 64]), kv, kv.new_zeros(kv.shape[1]), indices, dq, units,
        SLOTS=slots, STAGES=4, LAYOUT=_SWIZZLED, ROPE_LAYOUT=_SWIZZLED_64, num_warps=4, maxnreg=168,
    )  # fmt: skip


def _processors(device: int) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count
