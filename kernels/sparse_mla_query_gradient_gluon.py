"""The query gradient of the sparse MLA backward on Hopper: gathered rows times score gradients."""

from __future__ import annotations

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

from kernels.gluon_launch import SWIZZLED, SWIZZLED_64, descriptor, processors


def query_gradient(ds: Tensor, kv: Tensor, indices: Tensor, dq: Tensor) -> None:
    """dq[t] = dS[t] K over the selected rows."""
    queries, _, slots = ds.shape
    units = 2 * queries
    _query_gradient_kernel[(min(units, processors(ds.device.index)),)](
        descriptor(ds, [128, 64]), kv, kv.new_zeros(kv.shape[1]), indices, dq, units,
        SLOTS=slots, STAGES=4, LAYOUT=SWIZZLED, ROPE_LAYOUT=SWIZZLED_64, num_warps=4, maxnreg=168,
    )  # fmt: skip


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
