"""A batched matrix product whose tiles, and so the order of its sums, are the same for every shape."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS, COLUMNS, DEPTH = 64, 64, 32


@triton.jit
def _bmm_kernel(
    a, b, out, rows, columns, depth,
    a_batch, a_row, a_depth, b_batch, b_depth, b_column, out_batch, out_row,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    batch = tl.program_id(2).to(tl.int64)
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    column = (tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)).to(tl.int64)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for begin in range(0, depth, DEPTH):
        inner = (begin + tl.arange(0, DEPTH)).to(tl.int64)
        left = tl.load(
            a + batch * a_batch + row[:, None] * a_row + inner[None] * a_depth,
            mask=(row < rows)[:, None] & (inner < depth)[None], other=0.0,
        )  # fmt: skip
        right = tl.load(
            b + batch * b_batch + inner[:, None] * b_depth + column[None] * b_column,
            mask=(inner < depth)[:, None] & (column < columns)[None], other=0.0,
        )  # fmt: skip
        total = tl.dot(left, right, total, input_precision="ieee")
    inside = (row < rows)[:, None] & (column < columns)[None]
    tl.store(out + batch * out_batch + row[:, None] * out_row + column[None], total, mask=inside)


def fixed_bmm(a: Tensor, b: Tensor) -> Tensor:
    """a [B, M, K] times b [B, K, N], any strides, accumulated in float32 -> [B, M, N] in their dtype.

    Element (m, n) is a function of row m and column n alone, bit for bit.
    """
    batch, rows, depth = a.shape
    columns = b.shape[2]
    out = torch.empty(batch, rows, columns, dtype=a.dtype, device=a.device)
    if out.numel():
        grid = (triton.cdiv(rows, ROWS), triton.cdiv(columns, COLUMNS), batch)
        _bmm_kernel[grid](
            a, b, out, rows, columns, depth, *a.stride(), *b.stride(), *out.stride()[:2],
            ROWS=ROWS, COLUMNS=COLUMNS, DEPTH=DEPTH, num_warps=4, num_stages=3,
        )  # fmt: skip
    return out
