"""Triton body of the FP8 quantisation: one program takes a few vectors."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from kernels.quantize import AMAX_FLOOR, E4M3_MAX


def quantize_into(x: Tensor, values: Tensor, scale: Tensor, hadamard: bool, ue8m0: bool) -> None:
    """x [N, blocks, d] into values [N, blocks, d] float8_e4m3fn and scale [N, blocks]; any strides but the last."""
    rows, blocks, dim = x.shape
    if not rows * blocks:
        return
    if x.stride(2) != 1:
        x = x.contiguous()
    size = max(16, triton.next_power_of_2(dim))
    tile = 32
    _quantize_kernel[(triton.cdiv(rows * blocks, tile),)](
        x,
        values,
        scale,
        rows * blocks,
        dim,
        blocks,
        x.stride(0),
        x.stride(1),
        values.stride(0),
        values.stride(1),
        scale.stride(0),
        HADAMARD=hadamard,
        NORM=dim**-0.5,
        UE8M0=ue8m0,
        AMAX_FLOOR=AMAX_FLOOR,
        E4M3_MAX=E4M3_MAX,
        ROWS=tile,
        DIM=size,
    )


@triton.jit
def _quantize_kernel(
    x_ptr,
    values_ptr,
    scale_ptr,
    count,
    dim,
    blocks,
    x_row,
    x_block,
    values_row,
    values_block,
    scale_row,
    HADAMARD: tl.constexpr,
    NORM: tl.constexpr,
    UE8M0: tl.constexpr,
    AMAX_FLOOR: tl.constexpr,
    E4M3_MAX: tl.constexpr,
    ROWS: tl.constexpr,
    DIM: tl.constexpr,
):
    vector = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    row, block = vector // blocks, vector % blocks
    col = tl.arange(0, DIM)
    live = vector < count
    mask = live[:, None] & (col < dim)[None, :]
    x = tl.load(x_ptr + (row * x_row + block * x_block)[:, None] + col[None, :], mask=mask, other=0.0)
    if HADAMARD:
        # Entry (i, j) is -1 where i & j has an odd number of ones.
        bits = col[:, None] & col[None, :]
        bits ^= bits >> 8
        bits ^= bits >> 4
        bits ^= bits >> 2
        bits ^= bits >> 1
        matrix = tl.where((bits & 1) == 0, 1.0, -1.0).to(x.dtype)
        x = tl.dot(x, matrix, input_precision="ieee") * NORM
    x = x.to(tl.float32)
    amax = tl.maximum(tl.max(tl.abs(x), 1), AMAX_FLOOR)
    scale = tl.div_rn(amax, E4M3_MAX)
    if UE8M0:
        scale = ((scale.to(tl.int32, bitcast=True) + 0x7FFFFF) & 0x7F800000).to(tl.float32, bitcast=True)
    tl.store(
        values_ptr + (row * values_row + block * values_block)[:, None] + col[None, :],
        tl.div_rn(x, scale[:, None]).to(tl.float8e4nv),
        mask=mask,
    )
    tl.store(scale_ptr + row * scale_row + block, scale, mask=live)
