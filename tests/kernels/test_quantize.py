"""FP8 vectors and the FP8 latent cache: error bounds, exact layout, and the Triton body against the reference."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.quantize import (
    dequantize_latent,
    hadamard_transform,
    latent_views,
    quantize_fp8,
    quantize_latent,
)


def same_but_for_the_interpreter(values, want):
    """Triton's interpreter rounds halves up and loses the carry into the exponent when it casts to FP8."""
    return (values.float() != want.float()).float().mean() < 0.1


@pytest.mark.parametrize("ue8m0", [True, False])
@pytest.mark.parametrize("hadamard", [True, False])
def test_dequantised_vector_is_within_half_a_step(ue8m0, hadamard):
    torch.manual_seed(0)
    x = torch.randn(5, 3, 64) * torch.logspace(-3, 3, 15).view(5, 3, 1)
    values, scale = quantize_fp8(x, hadamard, ue8m0)
    assert values.dtype == torch.float8_e4m3fn and values.shape == x.shape and scale.shape == (5, 3)
    true = hadamard_transform(x.double()) if hadamard else x.double()
    # e4m3 has 3 mantissa bits; below 2^-6 its step is 2^-9.
    bound = torch.maximum(true.abs() / 16, scale.double().unsqueeze(-1) * 2**-10) * 1.001
    assert ((values.double() * scale.double().unsqueeze(-1) - true).abs() <= bound).all()
    if ue8m0:
        assert (torch.frexp(scale).mantissa == 0.5).all()


@given(st.floats(2.0**-23, 2.0**100, width=32))
@settings(max_examples=60, deadline=None)
def test_power_of_two_scale_is_the_next_one_up(amax):
    _, scale = quantize_fp8(torch.tensor([[amax, 0.0]]))
    exact = max(torch.tensor(amax).item(), 1e-4) / 448
    assert exact * (1 - 1e-6) <= scale.item() < 2 * exact * (1 + 1e-6)


def test_zero_vector():
    values, scale = quantize_fp8(torch.zeros(2, 16))
    assert (values.float() == 0).all() and (scale > 0).all()


def test_hadamard_keeps_products_and_is_its_own_inverse():
    torch.manual_seed(0)
    a, b = torch.randn(2, 7, 128, dtype=torch.float64)
    torch.testing.assert_close(hadamard_transform(a) @ hadamard_transform(b).t(), a @ b.t())
    torch.testing.assert_close(hadamard_transform(hadamard_transform(a)), a)


def test_hadamard_spreads_an_outlier():
    x = torch.zeros(1, 128)
    x[0, 3] = 100.0
    x += 0.01 * torch.randn(1, 128, generator=torch.Generator().manual_seed(0))
    error = {}
    for hadamard in (False, True):
        values, scale = quantize_fp8(x, hadamard)
        back = values.float() * scale.unsqueeze(-1)
        error[hadamard] = (hadamard_transform(back) if hadamard else back)[0, 4:].sub(x[0, 4:]).norm().item()
    assert error[False] <= x[0, 4:].norm() and error[True] > 0


def test_hadamard_of_other_sizes_is_refused():
    with pytest.raises(ValueError, match="power of two"):
        quantize_fp8(torch.ones(2, 96), hadamard=True)


@pytest.mark.parametrize("value_dim", [128, 512])
def test_latent_layout_to_the_byte(value_dim):
    torch.manual_seed(0)
    kv = torch.randn(6, value_dim + 64, dtype=torch.bfloat16)
    packed = quantize_latent(kv, value_dim)
    blocks = value_dim // 128
    assert packed.dtype == torch.uint8 and packed.shape == (6, value_dim + 4 * blocks + 128)
    values, scale, rope = latent_views(packed, value_dim)
    for n in range(6):
        for b in range(blocks):
            want, want_scale = quantize_fp8(kv[n, 128 * b : 128 * (b + 1)])
            raw = packed[n].numpy().tobytes()
            assert raw[128 * b : 128 * (b + 1)] == want.view(torch.uint8).numpy().tobytes()
            at = value_dim + 4 * b
            assert raw[at : at + 4] == want_scale.numpy().tobytes()
        assert raw[value_dim + 4 * blocks :] == kv[n, value_dim:].view(torch.uint8).numpy().tobytes()
    assert values.shape == (6, blocks, 128) and scale.shape == (6, blocks)
    assert torch.equal(rope, kv[:, value_dim:])
    back = dequantize_latent(packed, value_dim)
    assert torch.equal(back[:, value_dim:], kv[:, value_dim:])
    torch.testing.assert_close(back, kv, rtol=0.07, atol=0.02)


def test_latent_of_other_sizes_is_refused():
    with pytest.raises(ValueError, match="no multiple"):
        quantize_latent(torch.ones(2, 96 + 16), 96)


# The interpreter cannot multiply bfloat16.
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("ue8m0", [True, False])
@pytest.mark.parametrize("hadamard", [True, False])
def test_triton_body(dtype, ue8m0, hadamard):
    from kernels.quantize_triton import quantize_into

    torch.manual_seed(0)
    dim = 32 if hadamard else 24
    x = torch.randn(7, 5, dim + 8).to(dtype)[..., :dim]
    want, want_scale = quantize_fp8(x, hadamard, ue8m0)
    values, scale = torch.empty_like(want), torch.empty_like(want_scale)
    quantize_into(x, values, scale, hadamard, ue8m0)
    torch.testing.assert_close(scale, want_scale, rtol=1e-6, atol=0)
    assert same_but_for_the_interpreter(values, want)


def test_triton_body_of_a_transposed_tensor():
    from kernels.quantize_triton import quantize_into

    x = torch.exp2(torch.arange(64) % 7).view(16, 4).t().unsqueeze(1)
    want, want_scale = quantize_fp8(x)
    values, scale = torch.empty_like(want), torch.empty_like(want_scale)
    quantize_into(x, values, scale, False, True)
    assert torch.equal(scale, want_scale) and torch.equal(values.float(), want.float())


def test_triton_body_into_a_packed_row():
    from kernels.quantize_triton import quantize_into

    torch.manual_seed(0)
    kv = torch.randn(5, 256 + 16)
    packed = torch.zeros(5, 256 + 8 + 32, dtype=torch.uint8)
    values, scale, rope = latent_views(packed, 256)
    quantize_into(kv[:, :256].unflatten(1, (2, 128)), values, scale, False, True)
    rope.copy_(kv[:, 256:])
    want = latent_views(quantize_latent(kv, 256), 256)
    assert same_but_for_the_interpreter(values, want[0])
    assert torch.equal(scale, want[1]) and torch.equal(rope, want[2])


def test_compiled_without_a_graph_break():
    x = torch.randn(4, 32)
    compiled = torch.compile(lambda t: quantize_fp8(t, hadamard=True), fullgraph=True, backend="aot_eager")
    for got, want in zip(compiled(x), quantize_fp8(x, hadamard=True), strict=True):
        assert torch.equal(got.float(), want.float())
