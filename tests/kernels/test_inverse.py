"""Inverse lists and the sums along them, against loops in plain Python."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.inverse import inverse_lists, segment_sum


def _table(seed: int, queries: int, slots: int, rows: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    picks = torch.rand(queries, rows, generator=generator).argsort(-1)[:, :slots].sort(-1).values
    lengths = torch.randint(0, slots + 1, (queries, 1), generator=generator)
    return picks.masked_fill(torch.arange(slots) >= lengths, -1).int()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 7), st.integers(0, 12))
def test_lists_hold_every_pair_of_a_key_in_order(seed: int, queries: int, slots: int, more: int) -> None:
    rows = slots + more
    indices = _table(seed, queries, slots, rows)
    order, offsets = inverse_lists(indices, rows)
    assert order.dtype == offsets.dtype == torch.int32 and len(offsets) == rows + 1
    flat = indices.flatten().tolist()
    for key in range(rows):
        assert order[offsets[key] : offsets[key + 1]].tolist() == [i for i, s in enumerate(flat) if s == key]
    assert sorted(order[offsets[-1] :].tolist()) == [i for i, s in enumerate(flat) if s < 0]


def _body(name: str):
    if name == "torch":
        return segment_sum
    from kernels.inverse_triton import segment_sum_triton

    return segment_sum_triton


@pytest.mark.parametrize("body", ["torch", "triton"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sum_adds_each_keys_rows_and_reads_no_others(body: str, dtype: torch.dtype) -> None:
    indices = _table(1, 12, 5, 9)
    partials = torch.randn(60, 24).to(dtype)
    partials[indices.flatten() < 0] = torch.nan
    start = torch.randn(9, 24)
    out = start.clone()
    _body(body)(partials, *inverse_lists(indices, 9), out)
    expected = start.double()
    for pair, key in enumerate(indices.flatten().tolist()):
        if key >= 0:
            expected[key] += partials[pair].double()
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("body", ["torch", "triton"])
def test_chunks_give_the_bits_of_one_call(body: str) -> None:
    indices = _table(2, 11, 6, 8)
    partials = torch.randn(66, 300)
    whole = torch.zeros(8, 300)
    _body(body)(partials, *inverse_lists(indices, 8), whole)
    parts = torch.zeros(8, 300)
    for i in range(0, 11, 4):
        _body(body)(partials[i * 6 : (i + 4) * 6], *inverse_lists(indices[i : i + 4], 8), parts)
    assert torch.equal(whole, parts)


def test_shapes_that_do_not_fit_are_named() -> None:
    order, offsets = inverse_lists(torch.zeros(2, 3, dtype=torch.int32), 4)
    with pytest.raises(ValueError, match="partials \\(6, 8\\), 6 pairs, 5 offsets and out \\(4, 9\\)"):
        segment_sum(torch.zeros(6, 8), order, offsets, torch.zeros(4, 9))
