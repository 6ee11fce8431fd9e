"""Hopper body of the indexer's scores in row layout, for BF16 and FP8.

A program of one warp group keeps a few hundred keys in shared memory and streams the query heads past them, 128
(query, head) columns at a time. The product [64 keys, 128 columns] lies in registers, where it is rectified, weighted
and summed over the heads; meanwhile the tensor cores work for the two or three other programs of the multiprocessor.
Each thread sums a fixed set of a query's heads in a fixed order, so that no bit of a score depends on its neighbours.
"""

from __future__ import annotations

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

from kernels.tuning import config

# Keys and (query, head) columns of one product: with 128 columns a wgmma reads less of shared memory in a cycle than
# the memory gives, and its 64 accumulators leave registers for three warp groups.
BLOCK, COLUMNS = 64, 128


def takes(q: Tensor) -> bool:
    """Whether this body is made for q [M, J, d] on a Hopper GPU."""
    return q.dtype in (torch.bfloat16, torch.float8_e4m3fn) and q.shape[2] == 128 and q.shape[1] in (16, 32, 64, 128)


def rows(q: Tensor, k: Tensor, k_scale: Tensor | None, weights: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
    """Body of `indexer_logits_rows` and, with k_scale, of `indexer_logits_fp8`."""
    (count, heads, dim), keys = q.shape, len(k)
    out = torch.empty(count, keys, dtype=torch.float32, device=q.device)
    if not count or not keys:
        return out
    kind, element = ("bf16", gl.bfloat16) if k_scale is None else ("fp8", gl.float8e4nv)
    # 66 KiB of shared memory for three programs per multiprocessor in FP8, 97 KiB for two in BF16.
    default = {"queries": 128, "blocks": 4 if kind == "fp8" else 2, "stages": 2}
    tile = config("indexer_rows_gluon", f"{kind},heads={heads},dim={dim}", default)
    q_rows = q.reshape(count * heads, dim).contiguous()
    w_flat = weights.float().reshape(-1).contiguous()
    q_layout = gl.NVMMASharedLayout.get_default_for([COLUMNS, dim], element)
    k_layout = gl.NVMMASharedLayout.get_default_for([BLOCK, dim], element)
    w_layout = gl.NVMMASharedLayout(swizzle_byte_width=0, element_bitwidth=32, rank=1)
    grid = (triton.cdiv(keys, BLOCK * tile["blocks"]), triton.cdiv(count, tile["queries"]))
    _rows_kernel[grid](
        TensorDescriptor.from_tensor(q_rows, [COLUMNS, dim], q_layout),
        TensorDescriptor.from_tensor(k.contiguous(), [BLOCK, dim], k_layout),
        TensorDescriptor.from_tensor(w_flat, [COLUMNS], w_layout),
        None if k_scale is None else k_scale.contiguous(),
        starts.contiguous(),
        ends.contiguous(),
        out,
        count,
        keys,
        HEADS=heads,
        QUERIES=tile["queries"],
        BLOCKS=tile["blocks"],
        STAGES=tile["stages"],
        num_warps=4,
    )
    return out


@gluon.jit(do_not_specialize=["count"])
def _rows_kernel(
    q_desc,
    k_desc,
    w_desc,
    k_scale_ptr,
    starts_ptr,
    ends_ptr,
    out_ptr,
    count,
    keys,
    HEADS: gl.constexpr,
    QUERIES: gl.constexpr,
    BLOCKS: gl.constexpr,
    STAGES: gl.constexpr,
):
    BLOCK: gl.constexpr = k_desc.block_type.shape[0]
    COLUMNS: gl.constexpr = q_desc.block_type.shape[0]
    DIM: gl.constexpr = q_desc.block_type.shape[1]
    STEP: gl.constexpr = COLUMNS // HEADS  # queries of a product
    K: gl.constexpr = 256 // q_desc.dtype.primitive_bitwidth
    product: gl.constexpr = gl.NVMMADistributedLayout([3, 0], warps_per_cta=[4, 1], instr_shape=[16, COLUMNS, K])
    by_thread: gl.constexpr = gl.BlockedLayout([1], [32], [4], [0])

    first = gl.program_id(1) * QUERIES
    tile = gl.program_id(0) * (BLOCK * BLOCKS)
    row = first + gl.arange(0, QUERIES, by_thread)
    start = gl.load(starts_ptr + row, mask=row < count, other=2147483647)
    end = gl.load(ends_ptr + row, mask=row < count, other=0)
    live = start < end
    low = gl.min(gl.where(live, start, 2147483647), 0)
    high = gl.max(gl.where(live, end, 0), 0)
    if (tile < high) & (tile + BLOCK * BLOCKS > low):
        k_smem = gl.allocate_shared_memory(k_desc.dtype, [BLOCKS, BLOCK, DIM], k_desc.layout)
        q_smem = gl.allocate_shared_memory(q_desc.dtype, [STAGES, COLUMNS, DIM], q_desc.layout)
        w_smem = gl.allocate_shared_memory(gl.float32, [STAGES, COLUMNS], w_desc.layout)
        ready = gl.allocate_shared_memory(gl.int64, [STAGES + 1, 1], mbarrier.MBarrierLayout())
        for i in gl.static_range(STAGES + 1):
            mbarrier.init(ready.index(i), count=1)
        keys_ready = ready.index(STAGES)
        mbarrier.expect(keys_ready, BLOCKS * k_desc.block_type.nbytes)
        for b in gl.static_range(BLOCKS):
            tma.async_copy_global_to_shared(k_desc, [tile + b * BLOCK, 0], keys_ready, k_smem.index(b))
        steps = gl.cdiv(gl.minimum(QUERIES, count - first), STEP)
        for i in gl.static_range(STAGES):
            if i < steps:
                _fetch(q_desc, w_desc, q_smem, w_smem, ready, i, first * HEADS, STAGES)

        key = tile + gl.arange(0, BLOCK, gl.SliceLayout(1, product))
        k_scale: gl.tuple = ()
        if k_scale_ptr is not None:
            for b in gl.static_range(BLOCKS):
                in_block = key + b * BLOCK
                k_scale = k_scale + (gl.load(k_scale_ptr + in_block, mask=in_block < keys, other=0.0),)  # noqa: RUF005
        zero = gl.zeros([BLOCK, COLUMNS], gl.float32, product)
        out_step = out_ptr + first.to(gl.int64) * keys
        mbarrier.wait(keys_ready, 0)
        for step in range(steps):
            slot = step % STAGES
            mbarrier.wait(ready.index(slot), (step // STAGES) & 1)
            w = w_smem.index(slot).load(gl.SliceLayout(0, product))
            queries = q_smem.index(slot).permute((1, 0))
            for b in gl.static_range(BLOCKS):
                z = warpgroup_mma(k_smem.index(b), queries, zero, use_acc=False, is_async=True)
                z = warpgroup_mma_wait(0, deps=(z,))
                if k_scale_ptr is not None:
                    scale = k_scale[b]
                else:
                    scale = None
                _store_scores(z, w, scale, out_step, tile + b * BLOCK, first + step * STEP, count, keys, HEADS)
            out_step += STEP * keys.to(gl.int64)
            if step + STAGES < steps:
                _fetch(q_desc, w_desc, q_smem, w_smem, ready, step + STAGES, first * HEADS, STAGES)


@gluon.jit
def _store_scores(z, w, scale, out_ptr, key, query, count, keys, HEADS: gl.constexpr):
    """Write the scores of the products z [keys, queries x heads] from row `query` of the result, at out_ptr, and column
    `key` on."""
    BLOCK: gl.constexpr = z.shape[0]
    STEP: gl.constexpr = z.shape[1] // HEADS
    z = gl.maximum(z, 0.0) * w[None, :]
    scores = gl.sum(gl.reshape(z, [BLOCK, STEP, HEADS]), 2)
    keys_of: gl.constexpr = gl.SliceLayout(1, scores.type.layout)
    if scale is not None:
        scores *= gl.convert_layout(scale, keys_of)[:, None]
    row = gl.arange(0, STEP, gl.SliceLayout(0, scores.type.layout))
    column = key + gl.arange(0, BLOCK, keys_of)
    inside = (column < keys)[:, None] & (query + row < count)[None, :]
    gl.store(out_ptr + (row.to(gl.int64) * keys)[None, :] + column[:, None], scores, mask=inside)


@gluon.jit
def _fetch(q_desc, w_desc, q_smem, w_smem, ready, step, column, STAGES: gl.constexpr):
    """Start to copy the queries of a step and their weights into its slot; `column` is that of step 0."""
    slot = step % STAGES
    bar = ready.index(slot)
    column += step * q_desc.block_type.shape[0]
    mbarrier.expect(bar, q_desc.block_type.nbytes + w_desc.block_type.nbytes)
    tma.async_copy_global_to_shared(q_desc, [column, 0], bar, q_smem.index(slot))
    tma.async_copy_global_to_shared(w_desc, [column], bar, w_smem.index(slot))
