"""Triton body of kernels.inverse.segment_sum."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.tuning import config


@torch.library.custom_op("polymath::segment_sum", mutates_args=("out",))
def segment_sum_triton(partials: Tensor, order: Tensor, offsets: Tensor, out: Tensor) -> None:
    rows, dim = out.shape
    tiles = config("segment_sum", f"dim={dim}", {"block": 256, "num_warps": 1})
    grid = (rows, triton.cdiv(dim, tiles["block"]))
    _segment_sum[grid](
        partials, order, offsets, out, partials.stride(0), out.stride(0), dim,
        BLOCK=tiles["block"], num_warps=tiles["num_warps"],
    )  # fmt: skip


@segment_sum_triton.register_fake
def _(partials: Tensor, order: Tensor, offsets: Tensor, out: Tensor) -> None:
    return None


@triton.jit
def _segment_sum(partials, order, offsets, out, partials_stride, out_stride, dim, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    begin = tl.load(offsets + row)
    end = tl.load(offsets + row + 1)
    if begin == end:
        return
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < dim
    partials += column
    total = tl.load(out + row * out_stride + column, mask=inside, other=0.0)
    i = begin
    while i < end:
        # Four loads are in flight together; what lies past the end adds 0, so that the sum stays one fold in order.
        in1, in2, in3 = i + 1 < end, i + 2 < end, i + 3 < end
        pair0 = tl.load(order + i).to(tl.int64)
        pair1 = tl.load(order + i + 1, mask=in1, other=0).to(tl.int64)
        pair2 = tl.load(order + i + 2, mask=in2, other=0).to(tl.int64)
        pair3 = tl.load(order + i + 3, mask=in3, other=0).to(tl.int64)
        row0 = tl.load(partials + pair0 * partials_stride, mask=inside, other=0.0)
        row1 = tl.load(partials + pair1 * partials_stride, mask=inside & in1, other=0.0)
        row2 = tl.load(partials + pair2 * partials_stride, mask=inside & in2, other=0.0)
        row3 = tl.load(partials + pair3 * partials_stride, mask=inside & in3, other=0.0)
        total += row0.to(tl.float32)
        total += row1.to(tl.float32)
        total += row2.to(tl.float32)
        total += row3.to(tl.float32)
        i += 4
    tl.store(out + row * out_stride + column, total, mask=inside)
