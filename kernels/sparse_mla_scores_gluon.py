"""Probabilities and their gradients in the sparse MLA backward on Hopper: two warp groups take turns, a third loads."""

from __future__ import annotations

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

from kernels.gluon_launch import SWIZZLED, processors
from kernels.gluon_names import barrier

_STAGES = 11


def scores(
    q: Tensor, kv: Tensor, indices: Tensor, lse: Tensor, grad_out: Tensor, delta: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """P and dS, [C, H, k] bf16."""
    queries, heads, _ = q.shape
    slots = indices.shape[1]
    p, ds = q.new_empty(2, queries, heads, slots).unbind()
    units = queries * heads // 64
    zeros = kv.new_zeros(kv.shape[1])
    _scores_kernel[(min(units, processors(q.device.index)),)](
        q, grad_out, kv, zeros, indices, lse, delta, p, ds, scale, units,
        SLOTS=slots, GROUPS=heads // 64, STAGES=_STAGES, LAYOUT=SWIZZLED, num_warps=4, maxnreg=168,
    )  # fmt: skip
    return p, ds


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
