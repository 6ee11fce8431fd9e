"""The price of determinism: our sparse MLA backward beside the same one with atomic adds.

    python -m benchmarks.atomic_backward

Every public Hopper kernel adds the gradients of the latent rows with fp32 atomics, so that two runs differ in their
last bits. Here the atomic form shares every other step with ours (`kernels/sparse_mla_backward_triton.py`): only the
partial rows, the sort and the segment sum are replaced by atomic adds into one fp32 tensor. One line for each form:
milliseconds (median), TFLOPS of the five products, and whether repeats gave the same bits.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels import sparse_mla_backward_triton as ours

QUERIES, HEADS, SLOTS, KEYS, DIM, VALUE_DIM = 4096, 128, 2048, 131072, 576, 512
CHUNK = 1024
FLOP = 2 * QUERIES * HEADS * SLOTS * (3 * DIM + 2 * VALUE_DIM)


@triton.jit
def _atomic_kernel(
    p_in, ds_in, q, grad_out, indices, dkv,
    HEADS: tl.constexpr, SLOTS: tl.constexpr, DIM: tl.constexpr, VALUE_DIM: tl.constexpr,
    KEYS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    query = (tl.program_id(0) // (SLOTS // KEYS)).to(tl.int64)
    slot = tl.program_id(0) % (SLOTS // KEYS) * KEYS + tl.arange(0, KEYS)
    key = tl.load(indices + query * SLOTS + slot)
    row = query * HEADS + tl.arange(0, HEADS)
    at = row[:, None] * SLOTS + slot[None, :]
    p = tl.load(p_in + at).T
    ds = tl.load(ds_in + at).T
    column = tl.arange(0, BLOCK)
    for d in range(0, DIM, BLOCK):
        x = tl.load(q + row[:, None] * DIM + d + column[None, :])
        is_value = (column < VALUE_DIM - d)[None, :]
        y = tl.load(grad_out + row[:, None] * VALUE_DIM + d + column[None, :], mask=is_value, other=0.0)
        total = tl.dot(p, y, tl.dot(ds, x))
        to = dkv + key.to(tl.int64)[:, None] * DIM + d + column[None, :]
        tl.atomic_add(to, total, mask=(key >= 0)[:, None], sem="relaxed")


def atomic_backward(
    q: Tensor, kv: Tensor, indices: Tensor, out: Tensor, lse: Tensor, grad_out: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """What `sparse_mla_backward` returns, for 128 heads and whole key tiles; the last bits of dkv vary."""
    tiles, hopper = ours._tiles(q.dtype, HEADS, DIM, VALUE_DIM), ours._hopper_body(q, SLOTS, VALUE_DIM)
    dq = torch.empty_like(q)
    dkv = torch.zeros(kv.shape, dtype=torch.float32, device=kv.device)
    delta = ours._row_dot(grad_out, out)
    for i in range(0, len(q), CHUNK):
        part = slice(i, i + CHUNK)
        rows = q[part], kv, indices[part], lse[part], grad_out[part], delta[part]
        if hopper:
            p, ds = hopper.scores(*rows, scale)
            hopper.query_gradient(ds, kv, indices[part], dq[part])
        else:
            p, ds = ours._scores(*rows, scale, tiles)
            ours._query_gradient(ds, kv, indices[part], VALUE_DIM, dq[part], tiles)
        _atomic_kernel[(len(p) * SLOTS // 64,)](
            p, ds, q[part], grad_out[part], indices[part], dkv,
            HEADS=HEADS, SLOTS=SLOTS, DIM=DIM, VALUE_DIM=VALUE_DIM, KEYS=64, BLOCK=64, num_warps=4, num_stages=2,
        )  # fmt: skip
    return dq, dkv.to(kv.dtype)


def inputs(sinks: int = 4) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """q, kv, indices, out, lse, grad_out: random, keys spread over the whole context, `sinks` of them picked by all."""
    generator = torch.Generator("cuda").manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device="cuda", dtype=torch.bfloat16)

    stride = KEYS // SLOTS
    offset = torch.randint(0, stride, (QUERIES, SLOTS), generator=generator, device="cuda")
    offset[:, :sinks] = 0
    indices = (torch.arange(SLOTS, device="cuda") * stride + offset).int()
    # Random scores have this log-sum; neither time nor determinism depends on a true forward.
    lse = torch.full((QUERIES, HEADS), 9.1, device="cuda")
    q, kv = normal(QUERIES, HEADS, DIM), normal(KEYS, DIM)
    return q, kv, indices, normal(QUERIES, HEADS, VALUE_DIM), lse, normal(QUERIES, HEADS, VALUE_DIM)


def main() -> None:
    q, kv, indices, out, lse, grad_out = inputs()
    scale = 192**-0.5
    forms: dict[str, Callable[[], tuple[Tensor, Tensor]]] = {
        "deterministic": lambda: ours.sparse_mla_backward(q, kv, indices, out, lse, grad_out, scale, VALUE_DIM),
        "atomic": lambda: atomic_backward(q, kv, indices, out, lse, grad_out, scale),
    }
    print(f"{torch.cuda.get_device_name()}: {QUERIES} queries, {HEADS} heads, {SLOTS} of {KEYS} keys, bf16")
    for name, run in forms.items():
        dq, dkv = run()
        repeats = [run() for _ in range(5)]
        same = all(torch.equal(dq, a) and torch.equal(dkv, b) for a, b in repeats)
        del repeats
        ms = triton.testing.do_bench(run, rep=300, return_mode="median")
        print(f"{name:14} {ms:7.2f} ms  {FLOP / ms / 1e9:5.0f} TFLOPS  repeats {'equal' if same else 'differ'}")


if __name__ == "__main__":
    main()
