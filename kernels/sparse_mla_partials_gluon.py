"""What each (query, key) pair of the sparse MLA backward adds to its key, on Hopper: TMA both ways, two warp groups."""

from __future__ import annotations

from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from kernels.gluon_launch import SWIZZLED, SWIZZLED_64, descriptor, processors
from kernels.gluon_names import barrier


def partials(p: Tensor, ds: Tensor, q: Tensor, grad_out: Tensor) -> Tensor:
    """[C * k, D] bf16: what a pair adds to its key's row."""
    queries, _, slots = p.shape
    rows = q.new_empty(queries * slots, q.shape[-1])
    units = 2 * queries
    _partials_kernel[(min(units, processors(q.device.index)),)](
        p, ds, descriptor(p, [128, 64]), descriptor(ds, [128, 64]), descriptor(q, [128, 64]),
        descriptor(q, [128, 32], SWIZZLED_64), descriptor(grad_out, [128, 64]), descriptor(rows, [64, 64]),
        descriptor(rows, [64, 32], SWIZZLED_64), units,
        SLOTS=slots, LAYOUT=SWIZZLED, ROPE_LAYOUT=SWIZZLED_64, num_warps=4, maxnreg=168,
    )  # fmt: skip
    return rows


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
