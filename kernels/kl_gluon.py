"""The head-summed target on Hopper, where a head has 128 + 64 dimensions: the shape of DeepSeek-V3.2.

One program makes a tile of 128 queries x 256 keys. Two warpgroups own 64 queries each and keep their part of the sum in
registers; they take turns, so that one's exponentials run under the other's matrix products. A third warp loads.
"""

import torch
import triton
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor
from triton.language.core import _aggregate as aggregate

NOPE, ROPE = 128, 64
# Queries of one warpgroup and of a program, keys of one matrix product and of a program.
ROWS, PROGRAM_ROWS, KEYS, PROGRAM_KEYS = 64, 128, 128, 256
# Buffers: heads of queries, and pieces of KEYS keys. What 227 KB of shared memory holds.
QUERY_SLOTS, KEY_SLOTS = 2, 3
LOG2_E = gl.constexpr(1.4426950408889634)


@aggregate
class _Shared:
    """Tiles in shared memory, and for each the barriers that say that it is full or free again. The decorator needs
    annotations that are types: this file has no `from __future__ import annotations`."""

    q_nope: gl.shared_memory_descriptor
    q_rope: gl.shared_memory_descriptor
    k_nope: gl.shared_memory_descriptor
    k_rope: gl.shared_memory_descriptor
    q_full: gl.shared_memory_descriptor
    q_free: gl.shared_memory_descriptor
    k_full: gl.shared_memory_descriptor
    k_free: gl.shared_memory_descriptor
    rope_full: gl.shared_memory_descriptor
    turn: gl.shared_memory_descriptor

    @gluon.constexpr_function
    def __init__(self, q_nope, q_rope, k_nope, k_rope, q_full, q_free, k_full, k_free, rope_full, turn):
        self.q_nope, self.q_rope, self.k_nope, self.k_rope = q_nope, q_rope, k_nope, k_rope
        self.q_full, self.q_free, self.k_full, self.k_free = q_full, q_free, k_full, k_free
        self.rope_full, self.turn = rope_full, turn


@gluon.jit
def _load(
    shared, q_nope_of, q_rope_of, k_nope_of, k_rope_of, row, key, heads, q_head, k_head,
    NOPE: gl.constexpr, ROWS: gl.constexpr, KEYS: gl.constexpr, QUERY_SLOTS: gl.constexpr, KEY_SLOTS: gl.constexpr,
):  # fmt: skip
    full = shared.rope_full.index(0)
    mbarrier.expect(full, 2 * k_rope_of.block_type.nbytes)
    for half in gl.static_range(2):
        tma.async_copy_global_to_shared(k_rope_of, [key + half * KEYS, 0], full, shared.k_rope.index(half))
    for head in range(heads):
        slot = head % QUERY_SLOTS
        mbarrier.wait(shared.q_free.index(slot), (head // QUERY_SLOTS & 1) ^ 1)
        full = shared.q_full.index(slot)
        mbarrier.expect(full, 2 * (q_nope_of.block_type.nbytes + q_rope_of.block_type.nbytes))
        for group in gl.static_range(2):
            at, column, part = row + group * ROWS, head * q_head, 2 * slot + group
            tma.async_copy_global_to_shared(q_nope_of, [at, column], full, shared.q_nope.index(part))
            tma.async_copy_global_to_shared(q_rope_of, [at, column + NOPE], full, shared.q_rope.index(part))
        for half in gl.static_range(2):
            piece = 2 * head + half
            slot = piece % KEY_SLOTS
            mbarrier.wait(shared.k_free.index(slot), (piece // KEY_SLOTS & 1) ^ 1)
            full = shared.k_full.index(slot)
            mbarrier.expect(full, k_nope_of.block_type.nbytes)
            tma.async_copy_global_to_shared(
                k_nope_of, [key + half * KEYS, head * k_head], full, shared.k_nope.index(slot)
            )


@gluon.jit
def _probabilities(
    shared, head, lse_log2, scale_log2, zero,
    half: gl.constexpr, group: gl.constexpr, QUERY_SLOTS: gl.constexpr, KEY_SLOTS: gl.constexpr,
):  # fmt: skip
    """One head's probabilities of 64 queries x 128 keys."""
    part = 2 * (head % QUERY_SLOTS) + group
    piece = 2 * head + half
    slot = piece % KEY_SLOTS
    mbarrier.wait(shared.k_full.index(slot), piece // KEY_SLOTS & 1)
    mbarrier.wait(shared.turn.index(group), (piece & 1) ^ (1 - group))
    k_nope, k_rope = shared.k_nope.index(slot).permute((1, 0)), shared.k_rope.index(half).permute((1, 0))
    scores = warpgroup_mma(shared.q_nope.index(part), k_nope, zero, use_acc=False, is_async=True)
    scores = warpgroup_mma(shared.q_rope.index(part), k_rope, scores, is_async=True)
    # The other group's products follow on the heels of the last of this group's.
    scores = warpgroup_mma_wait(1, deps=[scores])
    mbarrier.arrive(shared.turn.index(1 - group), count=1)
    scores = warpgroup_mma_wait(0, deps=[scores])
    mbarrier.arrive(shared.k_free.index(slot), count=1)
    if half == 1:
        mbarrier.arrive(shared.q_free.index(head % QUERY_SLOTS), count=1)
    return gl.exp2(scores * scale_log2 - gl.expand_dims(lse_log2, 1))


@gluon.jit
def _compute(
    shared, lse_ptr, starts_ptr, ends_ptr, out_ptr, rows, keys, row, key, heads, lse_row, out_row, scale_log2,
    inverse_heads, group: gl.constexpr,
    ROWS: gl.constexpr, KEYS: gl.constexpr, QUERY_SLOTS: gl.constexpr, KEY_SLOTS: gl.constexpr,
):  # fmt: skip
    layout: gl.constexpr = gl.NVMMADistributedLayout(version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, KEYS, 16])
    m = row + group * ROWS + gl.arange(0, ROWS, gl.SliceLayout(1, layout))
    lse_ptrs = lse_ptr + m.to(gl.int64) * lse_row
    zero = gl.zeros([ROWS, KEYS], gl.float32, layout)
    low = zero
    high = zero
    mbarrier.wait(shared.rope_full.index(0), 0)
    for head in range(heads):
        lse_log2 = gl.load(lse_ptrs + head, mask=m < rows, other=0.0) * LOG2_E
        mbarrier.wait(shared.q_full.index(head % QUERY_SLOTS), head // QUERY_SLOTS & 1)
        low += _probabilities(shared, head, lse_log2, scale_log2, zero, 0, group, QUERY_SLOTS, KEY_SLOTS)
        high += _probabilities(shared, head, lse_log2, scale_log2, zero, 1, group, QUERY_SLOTS, KEY_SLOTS)
    if heads > 0:
        # A hidden key's exponential may be infinite; it is dropped here and never multiplied.
        starts = gl.load(starts_ptr + m, mask=m < rows, other=0)
        ends = gl.load(ends_ptr + m, mask=m < rows, other=0)
        for half in gl.static_range(2):
            n = gl.expand_dims(key + half * KEYS + gl.arange(0, KEYS, gl.SliceLayout(0, layout)), 0)
            seen = (n >= gl.expand_dims(starts, 1)) & (n < gl.expand_dims(ends, 1))
            total = gl.where(seen, (low if half == 0 else high) * inverse_heads, 0.0)
            at = out_ptr + gl.expand_dims(m.to(gl.int64), 1) * out_row + n
            gl.store(at, total, mask=gl.expand_dims(m < rows, 1) & (n < keys))


@gluon.jit
def _barriers(COUNT: gl.constexpr, ARRIVALS: gl.constexpr):
    barriers = gl.allocate_shared_memory(gl.int64, [COUNT, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(COUNT):
        mbarrier.init(barriers.index(i), count=ARRIVALS)
    return barriers


@gluon.jit
def _tiles(descriptor, COUNT: gl.constexpr):
    block: gl.constexpr = descriptor.block_type.shape
    return gl.allocate_shared_memory(descriptor.dtype, [COUNT, block[0], block[1]], descriptor.layout)


@gluon.jit
def _target_kernel(
    q_nope_of, q_rope_of, k_nope_of, k_rope_of, lse_ptr, starts_ptr, ends_ptr, out_ptr,
    rows, keys, heads, q_head, k_head, lse_row, out_row, scale_log2, inverse_heads,
    NOPE: gl.constexpr, ROWS: gl.constexpr, KEYS: gl.constexpr, QUERY_SLOTS: gl.constexpr, KEY_SLOTS: gl.constexpr,
):  # fmt: skip
    row = gl.program_id(0) * (2 * ROWS)
    key = gl.program_id(1) * (2 * KEYS)
    m = row + gl.arange(0, 2 * ROWS, gl.BlockedLayout([1], [32], [gl.num_warps()], [0]))
    starts = gl.load(starts_ptr + m, mask=m < rows, other=0)
    ends = gl.load(ends_ptr + m, mask=m < rows, other=0)
    sees = (starts < key + 2 * KEYS) & (ends > key) & (starts < ends)
    # A tile that no row sees has no work: every part below runs no head.
    heads = gl.where(gl.max(sees.to(gl.int32), 0) == 1, heads, 0)
    shared = _Shared(
        _tiles(q_nope_of, 2 * QUERY_SLOTS), _tiles(q_rope_of, 2 * QUERY_SLOTS), _tiles(k_nope_of, KEY_SLOTS),
        _tiles(k_rope_of, 2), _barriers(QUERY_SLOTS, 1), _barriers(QUERY_SLOTS, 2), _barriers(KEY_SLOTS, 1),
        _barriers(KEY_SLOTS, 2), _barriers(1, 1), _barriers(2, 1),
    )  # fmt: skip
    gl.warp_specialize(
        [
            (_compute, (
                shared, lse_ptr, starts_ptr, ends_ptr, out_ptr, rows, keys, row, key, heads, lse_row, out_row,
                scale_log2, inverse_heads, 0, ROWS, KEYS, QUERY_SLOTS, KEY_SLOTS,
            )),
            (_compute, (
                shared, lse_ptr, starts_ptr, ends_ptr, out_ptr, rows, keys, row, key, heads, lse_row, out_row,
                scale_log2, inverse_heads, 1, ROWS, KEYS, QUERY_SLOTS, KEY_SLOTS,
            )),
            (_load, (
                shared, q_nope_of, q_rope_of, k_nope_of, k_rope_of, row, key, heads, q_head, k_head,
                NOPE, ROWS, KEYS, QUERY_SLOTS, KEY_SLOTS,
            )),
        ],
        [4, 1],
        [240, 24],
    )  # fmt: skip


def takes(q: Tensor, k_nope: Tensor, k_rope: Tensor) -> bool:
    """Whether the tensors have the shape, dtype and alignment that this body is made for."""
    tensors = q, k_nope, k_rope
    steps = [step for x in tensors for step in x.stride()[:-1]]
    return (
        (q.shape[-1], k_nope.shape[-1], k_rope.shape[-1]) == (NOPE + ROPE, NOPE, ROPE)
        and q.dtype in (torch.bfloat16, torch.float16)
        and all(x.numel() > 0 and x.stride(-1) == 1 and x.data_ptr() % 16 == 0 for x in tensors)
        and all(step % 8 == 0 for step in steps)
    )


def head_summed_target(
    q: Tensor, k_nope: Tensor, k_rope: Tensor, lse: Tensor, starts: Tensor, ends: Tensor, scale: float, out: Tensor
) -> None:
    """As `kernels.kl_triton.head_summed_target`, for what it `takes`."""
    (rows, heads, _), keys = q.shape, len(k_nope)
    _target_kernel[(triton.cdiv(rows, PROGRAM_ROWS), triton.cdiv(keys, PROGRAM_KEYS))](
        _descriptor(_flat(q), [ROWS, NOPE]), _descriptor(_flat(q), [ROWS, ROPE]),
        _descriptor(_flat(k_nope), [KEYS, NOPE]), _descriptor(k_rope, [KEYS, ROPE]),
        lse, starts, ends, out,
        rows, keys, heads, q.stride(1), k_nope.stride(1), lse.stride(0), out.stride(0), scale * LOG2_E.value, 1 / heads,
        NOPE=NOPE, ROWS=ROWS, KEYS=KEYS, QUERY_SLOTS=QUERY_SLOTS, KEY_SLOTS=KEY_SLOTS,
        num_warps=4, maxnreg=168,
    )  # fmt: skip


def _flat(x: Tensor) -> Tensor:
    """[rows, heads, d] as [rows, columns], where head h begins at column h * x.stride(1)."""
    rows, heads, dim = x.shape
    return x.as_strided((rows, (heads - 1) * x.stride(1) + dim), (x.stride(0), 1))


def _descriptor(x: Tensor, block: list[int]) -> TensorDescriptor:
    dtype = gl.bfloat16 if x.dtype == torch.bfloat16 else gl.float16
    return TensorDescriptor.from_tensor(x, block, gl.NVMMASharedLayout.get_default_for(block, dtype))
