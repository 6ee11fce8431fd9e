"""Decode over a flat cache in Triton's interpreter: splits, FP8 rows, ranges, and its bits beside the forward's."""

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from kernels.decode import dense_mla_decode, sparse_mla_decode
from kernels.decode_triton import decode
from kernels.sparse_mla import sparse_mla_attention
from kernels.sparse_mla_triton import sparse_mla_forward
from tests.kernels.test_sparse_mla_triton import SCALE, by_loop, draw, pick


def pack(kv: Tensor, value_dim: int) -> tuple[Tensor, Tensor]:
    """FP8 rows as the cache stores them, and the values that they stand for, byte by byte from the format."""
    rows, exact = [], []
    for row in kv:
        codes, scales, values = [], [], []
        for block in row[:value_dim].split(128):
            scale = block.abs().max().float() / 448
            codes.append((block / scale).to(torch.float8_e4m3fn))
            scales.append(scale)
            values.append(codes[-1].float() * scale)
        rope = row[value_dim:].to(torch.bfloat16)
        rows.append(
            torch.cat(
                [torch.cat(codes).view(torch.uint8), torch.stack(scales).view(torch.uint8), rope.view(torch.uint8)]
            )
        )
        exact.append(torch.cat([*values, rope.float()]))
    return torch.stack(rows), torch.stack(exact)


def close(got: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor], tolerance: float = 3e-6) -> None:
    for ours, reference in zip(got, expected, strict=True):
        torch.testing.assert_close(ours.double(), reference.double(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("heads", "split"), [(1, 16), (4, 32), (20, 16)])
def test_splits_equal_the_loop(heads: int, split: int) -> None:
    q, cache = draw(4, heads, 48), draw(90, 48, seed=1)
    indices = pick(4, 90, [70, 17, 0, 1], 75)
    got = decode(q, cache, SCALE, 32, split, 75, indices=indices)
    close(got, by_loop(q, cache, indices, 32))


def test_one_split_has_the_bits_of_the_forward() -> None:
    q, cache = draw(4, 20, 48), draw(90, 48, seed=1)
    indices = pick(4, 90, [70, 17, 0, 1], 75)
    forward = sparse_mla_forward(q, cache, indices, SCALE, 32)
    for split in (75, 512):
        for ours, reference in zip(decode(q, cache, SCALE, 32, split, 75, indices=indices), forward, strict=True):
            assert torch.equal(ours, reference)


def test_a_range_has_the_bits_of_its_indices() -> None:
    q, cache = draw(4, 4, 48), draw(90, 48, seed=1)
    starts, ends = torch.tensor([3, 20, 50, 0]).int(), torch.tensor([73, 20, 51, 33]).int()
    indices = torch.full((4, 75), -1, dtype=torch.int32)
    for row, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        indices[row, : end - start] = torch.arange(start, end)
    by_index = decode(q, cache, SCALE, 32, 16, 75, indices=indices)
    close(by_index, by_loop(q, cache, indices, 32))
    # The bound on the length sizes the grid and changes no bit.
    for longest in (70, 75, 200):
        by_range = decode(q, cache, SCALE, 32, 16, longest, bounds=(starts, ends))
        assert all(torch.equal(a, b) for a, b in zip(by_range, by_index, strict=True))


@pytest.mark.parametrize(("value", "split"), [(128, 16), (384, 64)])
def test_fp8_rows(value: int, split: int) -> None:
    q, kv = draw(3, 4, value + 16, dtype=torch.float16), draw(50, value + 16, seed=1)
    cache, exact = pack(kv, value)
    indices = pick(3, 50, [40, 0, 9], 40)
    close(decode(q, cache, SCALE, value, split, 40, indices=indices), by_loop(q, exact, indices, value), 3e-3)
    # The torch body reads the same format.
    close(sparse_mla_decode(q.double(), cache, indices, SCALE, value), by_loop(q, exact, indices, value))


def test_rows_do_not_depend_on_companions_or_poison() -> None:
    q, cache = draw(5, 4, 48), draw(60, 48, seed=1)
    cache[0] = torch.inf
    indices = pick(5, 59, [40, 0, 17], 48) + 1
    indices[indices == 0] = -1
    out, lse = decode(q, cache, SCALE, 32, 16, 48, indices=indices)
    assert not out.isnan().any()
    for rows in (slice(0, 1), slice(1, 4)):
        part, part_lse = decode(q[rows], cache, SCALE, 32, 16, 48, indices=indices[rows].contiguous())
        assert torch.equal(part, out[rows])
        assert torch.equal(part_lse, lse[rows])


def test_the_torch_bodies_agree() -> None:
    q, cache = draw(2, 3, 48).double(), draw(60, 48, seed=1).double()
    starts, ends = torch.tensor([5, 30]).int(), torch.tensor([25, 30]).int()
    indices = torch.full((2, 20), -1)
    indices[0] = torch.arange(5, 25)
    dense = dense_mla_decode(q, cache, starts, ends, 20, SCALE, 32)
    for got in (dense, sparse_mla_decode(q, cache, indices, SCALE, 32)):
        close(got, by_loop(q, cache, indices, 32))


def test_shapes_that_do_not_belong_together() -> None:
    q, cache, indices = draw(2, 3, 48), draw(60, 48, seed=1), pick(2, 60, [9], 12)
    with pytest.raises(ValueError, match="must agree in D and dtype"):
        sparse_mla_decode(q, cache[:, :40], indices, SCALE, 32)
    with pytest.raises(ValueError, match="rows of 164 bytes"):
        sparse_mla_decode(draw(2, 3, 144), torch.zeros(9, 160, dtype=torch.uint8), indices, SCALE, 128)
    with pytest.raises(ValueError, match="one row for each query"):
        sparse_mla_attention(q, cache, indices[:1], SCALE, 32)
