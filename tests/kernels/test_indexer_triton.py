"""The indexer's kernels in row layout and in decoding: Triton bodies in the interpreter against float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import indexer
from kernels.indexer import (
    indexer_logits,
    indexer_logits_backward,
    indexer_logits_decode,
    indexer_logits_fp8,
    indexer_logits_rows,
)
from kernels.quantize import hadamard_transform, quantize_fp8


def scores64(q, k, weights):
    """sum_j w ReLU(q . k), by the formula."""
    return torch.einsum("mj,mjs->ms", weights.double(), (q.double() @ k.double().t()).relu())


def visible(starts, ends, keys):
    column = torch.arange(keys)
    return (column >= starts[:, None]) & (column < ends[:, None])


def problem(rows, keys, heads, dim, dtype=torch.float32, seed=0):
    torch.manual_seed(seed)
    q, k, weights = torch.randn(rows, heads, dim).to(dtype), torch.randn(keys, dim).to(dtype), torch.randn(rows, heads)
    bounds = torch.randint(0, keys + 1, (2, rows), dtype=torch.int32).sort(0).values
    starts, ends = bounds[0].clone(), bounds[1].clone()
    ends[rows // 2] = starts[rows // 2]
    return q, k, weights, starts, ends


# The interpreter cannot multiply bfloat16: float16 stands for both.
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("heads", "dim"), [(1, 16), (4, 32), (20, 24)])
def test_rows_against_float64(heads, dim, dtype):
    from kernels.indexer_triton import rows

    q, k, weights, starts, ends = problem(9, 150, heads, dim, dtype)
    got = rows(q, k, None, weights, starts, ends)
    seen = visible(starts, ends, 150)
    want = scores64(q, k, weights)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double()[seen], want[seen], rtol=1e-5, atol=1e-4)


def test_tiles_outside_every_range_are_skipped():
    from kernels.indexer_triton import rows

    q, k, weights, starts, ends = problem(70, 100, 4, 16)
    starts.fill_(40)
    ends.fill_(60)
    scores = rows(q, k, None, weights, starts, ends)
    torch.testing.assert_close(scores[:, 40:60].double(), scores64(q, k, weights)[:, 40:60], rtol=1e-5, atol=1e-4)


def test_slices_of_rows_and_keys_agree_with_the_whole():
    from kernels.indexer_triton import decode, rows

    q, k, weights, _, _ = problem(67, 90, 5, 32)
    starts, ends = torch.zeros(67, dtype=torch.int32), torch.full((67,), 90, dtype=torch.int32)
    whole = rows(q, k, None, weights, starts, ends)
    part = rows(q[66:], k[7:], None, weights[66:], starts[:1], ends[:1] - 7)
    torch.testing.assert_close(whole[66:, 7:], part, rtol=1e-5, atol=1e-5)
    one = decode(q[66:], k[None], None, weights[66:], torch.zeros(1, dtype=torch.int32), ends[:1], 90)
    torch.testing.assert_close(whole[66:], one, rtol=1e-5, atol=1e-5)


def test_fp8_rows():
    from kernels.indexer_triton import rows

    q, k, weights, starts, ends = problem(9, 70, 6, 32)
    q8, q_scale = quantize_fp8(q)
    k8, k_scale = quantize_fp8(k)
    got = rows(q8, k8, k_scale, weights * q_scale, starts, ends)
    seen = visible(starts, ends, 70)
    want = scores64(q8.double() * q_scale.double().unsqueeze(-1), k8.double() * k_scale.double().unsqueeze(-1), weights)
    torch.testing.assert_close(got.double()[seen], want[seen], rtol=1e-5, atol=1e-4)
    reference = indexer_logits_fp8(q8, k8, k_scale, weights * q_scale, starts, ends)
    torch.testing.assert_close(reference.double()[seen], want[seen], rtol=1e-5, atol=1e-4)
    assert (reference[~seen] == -torch.inf).all()


@pytest.mark.parametrize("fp8", [False, True])
def test_decode(fp8):
    from kernels.indexer_triton import decode

    torch.manual_seed(0)
    q, cache, weights = torch.randn(3, 4, 32), torch.randn(5, 80, 32), torch.randn(3, 4)
    slots, lengths = torch.tensor([4, 0, 2], dtype=torch.int32), torch.tensor([70, 0, 33], dtype=torch.int32)
    scale = None
    if fp8:
        (q, q_scale), (cache, scale) = quantize_fp8(q), quantize_fp8(cache)
        weights = weights * q_scale
    got = decode(q, cache, scale, weights, slots, lengths, 72)
    reference = indexer_logits_decode(q, cache, weights, slots, lengths, 72, scale)
    for b in range(3):
        n = int(lengths[b])
        want = scores64(q[b : b + 1], cache[slots[b], :n], weights[b : b + 1])[0]
        if scale is not None:
            want *= scale[slots[b], :n].double()
        torch.testing.assert_close(got[b, :n].double(), want, rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(reference[b, :n].double(), want, rtol=1e-5, atol=1e-4)
        assert (reference[b, n:] == -torch.inf).all()


@pytest.mark.parametrize("sliced", [True, False])
@pytest.mark.parametrize(("heads", "dim"), [(1, 16), (3, 24)])
def test_backward_against_autograd_in_float64(heads, dim, sliced, monkeypatch):
    from kernels import indexer_backward_triton

    if not sliced:
        whole = {"SLICE": 16 if dim == 16 else 32}
        monkeypatch.setattr(indexer_backward_triton, "config", lambda kernel, key, default: default | whole)
    q, k, weights, starts, ends = problem(37, 90, heads, dim)
    # Neighbours that see the same keys, so that some tiles need no mask.
    starts[:36], ends[:36] = 3, 87
    seen = visible(starts, ends, 90)
    grad = torch.randn(37, 90).masked_fill(~seen, torch.nan)
    dk = torch.ones(90, dim)
    dq, dw = indexer_backward_triton.backward(grad, q, k, weights, starts, ends, dk)
    q64, k64, w64 = (x.double().requires_grad_() for x in (q, k, weights))
    (scores64(q64, k64, w64) * grad.nan_to_num(0).double()).sum().backward()
    for got, want in ((dq, q64.grad), (dk - 1, k64.grad), (dw, w64.grad)):
        assert (got.double() - want).norm() <= 1e-5 * want.norm()


def test_backward_of_an_expanded_gradient():
    from kernels.indexer_backward_triton import backward

    q, k, weights, starts, ends = problem(5, 30, 2, 16)
    ones = torch.ones(5, 30)
    results = []
    for grad in (torch.ones(()).expand(5, 30), ones):
        dk = torch.zeros(30, 16)
        results.append((*backward(grad, q, k, weights, starts, ends, dk), dk))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)
    with pytest.raises(ValueError, match="dk must be"):
        indexer_logits_backward(ones, q, k, weights, starts, ends, torch.zeros(16, 30).t())


def test_backward_of_parts_of_the_rows_adds_up():
    from kernels.indexer_backward_triton import backward

    q, k, weights, starts, ends = problem(64, 40, 2, 16)
    grad = torch.randn(64, 40)
    whole, parts = torch.zeros(2, 40, 16).unbind()
    dq, dw = backward(grad, q, k, weights, starts, ends, whole)
    rows = slice(32, 64)
    dq_part, dw_part = backward(grad[rows], q[rows], k, weights[rows], starts[rows], ends[rows], parts)
    torch.testing.assert_close(dq[rows], dq_part)
    torch.testing.assert_close(dw[rows], dw_part)
    backward(grad[:32], q[:32], k, weights[:32], starts[:32], ends[:32], parts)
    torch.testing.assert_close(parts, whole)


def test_gradcheck_through_the_door():
    torch.manual_seed(1)
    q, k, weights = (torch.randn(*shape, dtype=torch.float64) for shape in ((4, 3, 8), (6, 8), (4, 3)))
    starts, ends = torch.tensor([0, 0, 2, 5]).int(), torch.tensor([1, 6, 5, 5]).int()
    seen = visible(starts, ends, 6)

    def loss(*inputs):
        return indexer_logits_rows(*inputs, starts, ends).masked_fill(~seen, 0)

    inputs = [x.requires_grad_() for x in (q, k, weights)]
    assert torch.autograd.gradcheck(loss, inputs)


@pytest.mark.parametrize("hadamard", [False, True])
def test_fp8_door_scores_in_fp8_and_differentiates_unrounded(hadamard):
    q, k, weights, starts, ends = problem(6, 40, 4, 32)
    seen = visible(starts, ends, 40)
    inputs = [x.requires_grad_() for x in (q, k, weights)]
    scores = indexer_logits_rows(*inputs, starts, ends, fp8=True, hadamard=hadamard)
    rounded = []
    for x in (q, k):
        values, scale = quantize_fp8(x.detach(), hadamard)
        back = values.double() * scale.double().unsqueeze(-1)
        rounded.append(hadamard_transform(back) if hadamard else back)
    want = scores64(*rounded, weights.detach())
    torch.testing.assert_close(scores.double()[seen], want[seen], rtol=1e-5, atol=1e-4)
    grad = torch.randn(6, 40)
    got = torch.autograd.grad(scores, inputs, grad)
    dq, dk, dw = indexer_logits_backward(grad, q.detach(), k.detach(), weights.detach(), starts, ends)
    for a, b in zip(got, (dq, dk, dw), strict=True):
        assert torch.equal(a, b)


@given(st.integers(1, 9), st.integers(1, 40), st.integers(1, 6), st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_reference_in_row_layout_is_the_block_form_under_its_mask(rows, keys, heads, seed):
    q, k, weights, starts, ends = problem(rows, keys, heads, 8, torch.float64, seed)
    got = indexer_logits_rows(q, k, weights.double(), starts, ends)
    seen = visible(starts, ends, keys)
    assert torch.equal(got[seen], indexer_logits(q[None], k[None], weights.double()[None])[0][seen])
    assert (got[~seen] == -torch.inf).all()


def test_compiled_without_a_graph_break():
    q, k, weights, starts, ends = problem(5, 20, 3, 16)
    seen = visible(starts, ends, 20)

    def loss(q, k, weights):
        return indexer_logits_rows(q, k, weights, starts, ends).masked_fill(~seen, 0).square().sum()

    results = []
    for function in (loss, torch.compile(loss, fullgraph=True, backend="aot_eager")):
        inputs = [x.clone().requires_grad_() for x in (q, k, weights)]
        value = function(*inputs)
        results.append((value, *torch.autograd.grad(value, inputs)))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": torch.zeros(4, 9)}, "agree in d"),
        ({"weights": torch.zeros(3, 1)}, "need weights"),
        ({"starts": torch.zeros(2).int()}, "need weights"),
    ],
)
def test_wrong_shapes_are_named(change, message):
    q, k, weights, starts, ends = problem(3, 4, 2, 8)
    arguments = {"q": q, "k": k, "weights": weights, "starts": starts, "ends": ends, **change}
    with pytest.raises(ValueError, match=message):
        indexer_logits_rows(**arguments)


def test_decode_refuses_a_scale_without_fp8():
    cache, ints = torch.zeros(2, 4, 8), torch.zeros(1).int()
    with pytest.raises(ValueError, match="k_scale"):
        indexer_logits_decode(torch.zeros(1, 2, 8), cache, torch.zeros(1, 2), ints, ints, 4, torch.ones(2, 4))
    with pytest.raises(ValueError, match="max_length"):
        indexer_logits_decode(torch.zeros(1, 2, 8), cache, torch.zeros(1, 2), ints, ints, 5)


def test_faster_bodies_are_not_needed_on_a_cpu():
    assert not indexer.use_triton(torch.zeros(1))
