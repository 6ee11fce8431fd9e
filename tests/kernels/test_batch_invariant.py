"""The fixed-tile product against float64, and a row against the same row in other company."""

import pytest
import torch

from kernels.batch_invariant import batch_invariant
from kernels.batch_invariant_triton import fixed_bmm


@pytest.mark.parametrize("shape", [(1, 1, 5, 3), (2, 70, 33, 65), (3, 64, 100, 16)])
def test_product(shape: tuple[int, int, int, int]) -> None:
    batch, rows, depth, columns = shape
    a = torch.randn(batch, depth, rows).transpose(1, 2)
    b = torch.randn(batch, depth, columns)
    out = fixed_bmm(a, b)
    torch.testing.assert_close(out, (a.double() @ b.double()).float(), atol=1e-5, rtol=1e-5)
    others = torch.randn(batch, rows + 9, depth)
    others[:, rows // 2] = a[:, rows // 2]
    assert torch.equal(fixed_bmm(others, b)[:, rows // 2], out[:, rows // 2])


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
def test_without_a_gpu_it_says_so() -> None:
    with pytest.raises(RuntimeError, match="no"), batch_invariant():
        pass
