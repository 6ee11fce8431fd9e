from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.dense_mla import dense_mla_attention


def by_sequence(
    q: Tensor, k_nope: Tensor, k_rope: Tensor, v: Tensor, groups: list[tuple[int, ...]], scale: float
) -> tuple[Tensor, Tensor]:
    """One sequence and one head at a time."""
    outs, lses, row, key = [], [], 0, 0
    for n, length, *rest in groups:
        first = rest[0] if rest else 0
        for _ in range(n):
            mine, theirs = slice(row, row + length - first), slice(key, key + length)
            keys = torch.cat([k_nope[theirs], k_rope[theirs].unsqueeze(1).expand(-1, q.shape[1], -1)], -1)
            mask = torch.ones(length, length, dtype=torch.bool).tril()[first:]
            outs.append(
                F.scaled_dot_product_attention(
                    *(x.transpose(0, 1) for x in (q[mine], keys, v[theirs])), attn_mask=mask, scale=scale
                ).transpose(0, 1)
            )
            scores = torch.einsum("qhd,khd->qhk", q[mine], keys) * scale
            lses.append(scores.masked_fill(~mask.unsqueeze(1), -torch.inf).exp().sum(-1).log())
            row, key = mine.stop, theirs.stop
    return torch.cat(outs), torch.cat(lses)


@pytest.mark.parametrize("groups", [[(1, 1)], [(2, 9), (1, 5)], [(3, 8, 5), (1, 7, 7), (2, 6)]])
def test_against_each_sequence_alone(groups: list[tuple[int, ...]]) -> None:
    torch.manual_seed(0)
    keys = sum(n * length for n, length, *_ in groups)
    queries = sum(n * (length - (rest[0] if rest else 0)) for n, length, *rest in groups)
    shapes = (queries, 3, 12), (keys, 3, 8), (keys, 4), (keys, 3, 6)
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    out, lse = dense_mla_attention(*inputs, groups, 0.3)
    wanted, wanted_lse = by_sequence(*inputs, groups, 0.3)
    torch.testing.assert_close(out, wanted)
    torch.testing.assert_close(lse, wanted_lse)
    assert not lse.requires_grad
    weights = torch.randn_like(out)
    ours, theirs = (torch.autograd.grad((x * weights).sum(), inputs) for x in (out, wanted))
    torch.testing.assert_close(ours, theirs)


def test_rows_that_do_not_fit_the_groups() -> None:
    with pytest.raises(ValueError, match="groups hold 6 queries and 6 keys"):
        dense_mla_attention(torch.randn(5, 2, 6), *(torch.randn(6, *s) for s in ((2, 4), (2,), (2, 4))), [(2, 3)], 1.0)
