"""The head-summed target over selected keys on Hopper, for 17 to 128 heads of 512 + 64 dimensions (DeepSeek-V3.2).

One program has one query. A warpgroup gathers its keys, 64 at a time, into a ring of tiles. Two warpgroups keep 64
heads of the query each in registers and take turns at the tensor cores, so that one's exponentials run under the
other's products; the second hands its sums over heads to the first. With 64 heads or fewer the second multiplies
zeros: gathering the keys takes as long.
"""

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
from triton.language.core import _aggregate as aggregate

LATENT, ROPE = 512, 64
# Heads of one warpgroup, keys of one tile, tiles that fit into 227 KB of shared memory.
HEADS, KEYS, SLOTS = 64, 64, 3
LOG2_E = gl.constexpr(1.4426950408889634)


@aggregate
class _Shared:
    """The ring of tiles and its barriers; sums of the second group; whose turn it is. The decorator needs annotations
    that are types: this file has no `from __future__ import annotations`."""

    latent: gl.shared_memory_descriptor
    rope: gl.shared_memory_descriptor
    full: gl.shared_memory_descriptor
    free: gl.shared_memory_descriptor
    turn: gl.shared_memory_descriptor
    sums: gl.shared_memory_descriptor
    sums_full: gl.shared_memory_descriptor
    sums_free: gl.shared_memory_descriptor

    @gluon.constexpr_function
    def __init__(self, latent, rope, full, free, turn, sums, sums_full, sums_free):
        self.latent, self.rope, self.full, self.free, self.turn = latent, rope, full, free, turn
        self.sums, self.sums_full, self.sums_free = sums, sums_full, sums_free


@gluon.jit
def _copy(tile, rows, exists, FIRST: gl.constexpr, WIDTH: gl.constexpr):
    """Starts copying columns FIRST .. FIRST + WIDTH of the rows at the pointers `rows`; zeros where none exists."""
    column = gl.arange(0, WIDTH, gl.SliceLayout(0, rows.type.layout.parent))
    pointers = gl.expand_dims(rows, 1) + FIRST + gl.expand_dims(column, 0)
    async_copy.async_copy_global_to_shared(tile, pointers, mask=gl.expand_dims(exists, 1))


@gluon.jit
def _fill(shared, slot, rows, exists, LATENT: gl.constexpr, ROPE: gl.constexpr):
    latent = shared.latent.index(slot)
    for part in gl.static_range(2):
        _copy(latent.slice(part * (LATENT // 2), LATENT // 2, dim=1), rows, exists, part * (LATENT // 2), LATENT // 2)
    _copy(shared.rope.index(slot), rows, exists, LATENT, ROPE)
    async_copy.mbarrier_arrive(shared.full.index(slot), increment_count=False)


@gluon.jit
def _gather(
    shared, q, kv, picks, heads, q_head, kv_row, count, tiles,
    HEADS: gl.constexpr, KEYS: gl.constexpr, SLOTS: gl.constexpr, LATENT: gl.constexpr, ROPE: gl.constexpr,
):  # fmt: skip
    # Eight threads copy the 128 bytes of a row that lie in one line of shared memory.
    layout: gl.constexpr = gl.BlockedLayout([1, 8], [4, 8], [4, 1], [1, 0])
    row = gl.arange(0, KEYS, gl.SliceLayout(1, layout))
    # The query's heads go through the first two tiles of the ring into registers.
    for group in gl.static_range(2):
        head = group * HEADS + row
        _fill(shared, group, q + head * q_head, head < heads, LATENT, ROPE)
    key = gl.load(picks + row, mask=row < count, other=0)
    for tile in range(tiles):
        at = tile + 2
        exists = tile * KEYS + row < count
        rows = kv + key.to(gl.int64) * kv_row
        following = (tile + 1) * KEYS + row
        key = gl.load(picks + following, mask=following < count, other=0)
        mbarrier.wait(shared.free.index(at % SLOTS), (at // SLOTS & 1) ^ 1)
        _fill(shared, at % SLOTS, rows, exists, LATENT, ROPE)


@gluon.jit
def _score(
    shared, lse, out, heads, count, tiles, scale_log2, inverse_heads, group: gl.constexpr,
    HEADS: gl.constexpr, KEYS: gl.constexpr, SLOTS: gl.constexpr,
):  # fmt: skip
    layout: gl.constexpr = gl.NVMMADistributedLayout(version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, KEYS, 16])
    operand: gl.constexpr = gl.DotOperandLayout(0, layout, 2)
    head = group * HEADS + gl.arange(0, HEADS, gl.SliceLayout(1, layout))
    # A head that does not exist has lse = inf and adds 0.
    lse_log2 = gl.expand_dims(gl.load(lse + head, mask=head < heads, other=float("inf")) * LOG2_E, 1)
    zero = gl.zeros([HEADS, KEYS], gl.float32, layout)
    for part in gl.static_range(2):
        mbarrier.wait(shared.full.index(part), 0)
    q_latent = shared.latent.index(group).load(operand)
    q_rope = shared.rope.index(group).load(operand)
    fence_async_shared()
    # Both groups' tiles are free once; each of them waits for two arrivals.
    mbarrier.arrive(shared.free.index(group), count=2)
    for tile in range(tiles):
        at = tile + 2
        slot = at % SLOTS
        mbarrier.wait(shared.full.index(slot), at // SLOTS & 1)
        fence_async_shared()
        mbarrier.wait(shared.turn.index(group), (tile & 1) ^ (1 - group))
        scores = warpgroup_mma(q_latent, shared.latent.index(slot).permute((1, 0)), zero, use_acc=False, is_async=True)
        scores = warpgroup_mma(q_rope, shared.rope.index(slot).permute((1, 0)), scores, is_async=True)
        # The other group's products follow on the heels of the last of this group's.
        scores, q_latent = warpgroup_mma_wait(1, deps=[scores, q_latent])
        mbarrier.arrive(shared.turn.index(1 - group), count=1)
        scores, q_rope = warpgroup_mma_wait(0, deps=[scores, q_rope])
        mbarrier.arrive(shared.free.index(slot), count=1)
        total = gl.sum(gl.exp2(scores * scale_log2 - lse_log2), 0)
        if group == 1:
            mbarrier.wait(shared.sums_free.index(tile % 2), (tile // 2 & 1) ^ 1)
            shared.sums.index(tile % 2).store(total)
            mbarrier.arrive(shared.sums_full.index(tile % 2), count=1)
        else:
            mbarrier.wait(shared.sums_full.index(tile % 2), tile // 2 & 1)
            total += shared.sums.index(tile % 2).load(total.type.layout)
            mbarrier.arrive(shared.sums_free.index(tile % 2), count=1)
            slots = tile * KEYS + gl.arange(0, KEYS, total.type.layout)
            gl.store(out + slots, total * inverse_heads, mask=slots < count)


@gluon.jit
def _barriers(COUNT: gl.constexpr, ARRIVALS: gl.constexpr):
    barriers = gl.allocate_shared_memory(gl.int64, [COUNT, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(COUNT):
        mbarrier.init(barriers.index(i), count=ARRIVALS)
    return barriers


@gluon.jit
def _target_kernel(
    q, kv, lse, indices, counts, out,
    heads, q_row, q_head, kv_row, lse_row, indices_row, out_row, scale_log2, inverse_heads,
    HEADS: gl.constexpr, KEYS: gl.constexpr, SLOTS: gl.constexpr, LATENT: gl.constexpr, ROPE: gl.constexpr,
):  # fmt: skip
    dtype: gl.constexpr = q.dtype.element_ty
    m = gl.program_id(0).to(gl.int64)
    count = gl.load(counts + m)
    tiles = gl.cdiv(count, KEYS)
    q += m * q_row
    picks = indices + m * indices_row
    lse += m * lse_row
    out += m * out_row
    wide: gl.constexpr = gl.NVMMASharedLayout.get_default_for([KEYS, LATENT], dtype)
    narrow: gl.constexpr = gl.NVMMASharedLayout.get_default_for([KEYS, ROPE], dtype)
    vector: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0])
    shared = _Shared(
        gl.allocate_shared_memory(dtype, [SLOTS, KEYS, LATENT], wide),
        gl.allocate_shared_memory(dtype, [SLOTS, KEYS, ROPE], narrow),
        _barriers(SLOTS, 128), _barriers(SLOTS, 2), _barriers(2, 1),
        gl.allocate_shared_memory(gl.float32, [2, KEYS], vector),
        _barriers(2, 1), _barriers(2, 1),
    )  # fmt: skip
    fence_async_shared()
    gl.warp_specialize(
        [
            (_gather, (
                shared, q, kv, picks, heads, q_head, kv_row, count, tiles, HEADS, KEYS, SLOTS, LATENT, ROPE,
            )),
            (_score, (shared, lse, out, heads, count, tiles, scale_log2, inverse_heads, 0, HEADS, KEYS, SLOTS)),
            (_score, (shared, lse, out, heads, count, tiles, scale_log2, inverse_heads, 1, HEADS, KEYS, SLOTS)),
        ],
        [4, 4],
        [216, 216],
    )  # fmt: skip


def takes(q: Tensor, kv: Tensor) -> bool:
    """Whether the tensors have the shape, dtype and alignment that this body is made for."""
    return (
        16 < q.shape[1] <= 2 * HEADS
        and q.shape[2] == LATENT + ROPE
        and q.dtype in (torch.bfloat16, torch.float16)
        and all(x.stride(-1) == 1 and x.data_ptr() % 16 == 0 for x in (q, kv))
        and all(step % 8 == 0 for step in (*q.stride()[:-1], kv.stride(0)))
    )


def selected_target(q: Tensor, kv: Tensor, lse: Tensor, indices: Tensor, counts: Tensor, scale: float) -> Tensor:
    """As `kernels.kl_sparse_triton.selected_target`, for what it `takes`."""
    (rows, heads, _), slots = q.shape, indices.shape[1]
    out = torch.empty(rows, slots, dtype=torch.float32, device=q.device)
    _target_kernel[(rows,)](
        q, kv, lse, indices, counts, out,
        heads, q.stride(0), q.stride(1), kv.stride(0), lse.stride(0), indices.stride(0), slots,
        scale * LOG2_E.value, 1 / heads,
        HEADS=HEADS, KEYS=KEYS, SLOTS=SLOTS, LATENT=LATENT, ROPE=ROPE, num_warps=4, maxnreg=168,
    )  # fmt: skip
    return out
