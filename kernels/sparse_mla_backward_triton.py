"""Gradients of sparse MLA attention, the same bits in every run: no atomics anywhere.

For a chunk of queries, four products and one sum, each a grid of independent programs:

1. scores: P = exp(s * scale - lse) and dS = P * (dO V^T - delta) * scale, from a tile of gathered latent rows.
2. partials: dS^T Q + P^T dO summed over all heads, one row for each pair (query, slot), in the dtype of the inputs.
   A latent row is key and value, so both gradients meet in its first `value_dim` columns.
3. query gradient: dQ = dS K over all slots of the query.
4. The rows of the pairs that share a key are added in the order of the queries (kernels/inverse.py).

P and dS go through memory (2 GB each for 4096 queries, 128 heads and 2048 keys, about 1 ms of bandwidth apiece), so
that every product is counted once and none shares registers with another. On Hopper the products of the shapes that it
takes are those of kernels/sparse_mla_backward_hopper.py.
"""

from __future__ import annotations

from types import ModuleType

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.backend import is_hopper
from kernels.inverse import inverse_lists, segment_sum
from kernels.tuning import config

_WORKSPACE_BYTES = 4 << 30  # P, dS and the partial rows of one chunk of queries; results do not depend on it


def sparse_mla_backward(
    q: Tensor, kv: Tensor, indices: Tensor, out: Tensor, lse: Tensor, grad_out: Tensor, scale: float, value_dim: int
) -> tuple[Tensor, Tensor]:
    """Gradients of `sparse_mla_attention` with respect to `q` and `kv`.

    Args:
        q: [T, H, D] bf16, fp16 or fp32.
        kv: [S, D]; a value is the first `value_dim` columns.
        indices: [T, k] int32 or int64, -1 for none.
        out, lse: the forward's results, [T, H, value_dim] and [T, H] float32 (natural log).
        grad_out: [T, H, value_dim].
        scale: softmax scale.
        value_dim: kv_lora_rank.

    Returns:
        dq [T, H, D] and dkv [S, D] in the dtype of q. A row of dq depends on that query alone; a row of dkv is the
        sum over the queries that selected it, in their order. A query without a key adds nothing.
    """
    q, kv, indices, out, grad_out = (x.contiguous() for x in (q, kv, indices.int(), out, grad_out))
    lse = lse.contiguous()
    queries, heads, dim = q.shape
    slots = indices.shape[1]
    if queries == 0 or slots == 0:
        return torch.zeros_like(q), torch.zeros_like(kv)
    tiles = _tiles(q.dtype, heads, dim, value_dim)
    dq = torch.empty_like(q)
    dkv = torch.zeros(kv.shape, dtype=torch.float32, device=kv.device)
    delta = _row_dot(grad_out, out)
    bytes_per_query = slots * (2 * heads + dim) * q.element_size()
    chunk = max(1, _WORKSPACE_BYTES // bytes_per_query)
    hopper = _hopper_body(q, slots, value_dim)
    if hopper:
        chunk = hopper.whole_waves(chunk, q.device.index)
    for i in range(0, queries, chunk):
        part = slice(i, i + chunk)
        rows = q[part], kv, indices[part], lse[part], grad_out[part], delta[part]
        if hopper:
            p, ds = hopper.scores(*rows, scale)
            hopper.query_gradient(ds, kv, indices[part], dq[part])
            partials = hopper.partials(p, ds, q[part], grad_out[part])
        else:
            p, ds = _scores(*rows, scale, tiles)
            _query_gradient(ds, kv, indices[part], value_dim, dq[part], tiles)
            partials = _partials(p, ds, q[part], grad_out[part], indices[part], tiles)
        segment_sum(partials, *inverse_lists(indices[part], len(kv)), dkv)
    return dq, dkv.to(kv.dtype)


def _hopper_body(q: Tensor, slots: int, value_dim: int) -> ModuleType | None:
    """The module with products made for Hopper, where it runs and takes the shape."""
    if not is_hopper(q):
        return None
    from kernels import sparse_mla_backward_hopper

    return sparse_mla_backward_hopper if sparse_mla_backward_hopper.takes(q, slots, value_dim) else None


def _tiles(dtype: torch.dtype, heads: int, dim: int, value_dim: int) -> dict[str, int]:
    small = dtype == torch.float32
    default = {
        "scores_heads": 32 if small else 64,
        "scores_keys": 32 if small else 64,
        "scores_dim": 32,
        "scores_warps": 4,
        "scores_stages": 2,
        "partials_keys": 16 if small else 32,
        "partials_dim": 32,
        "partials_warps": 4,
        "partials_stages": 2,
        "dq_heads": 32 if small else 64,
        "dq_keys": 32,
        "dq_splits": 8 if value_dim >= 128 else 1,
        "dq_warps": 4,
        "dq_stages": 2,
    }
    name = str(dtype).removeprefix("torch.")
    return config("sparse_mla_backward", f"{name},heads={heads},dim={dim},value_dim={value_dim}", default)


def _row_dot(a: Tensor, b: Tensor) -> Tensor:
    """[T, H] float32: sums of a * b over the last dimension."""
    queries, heads, dim = a.shape
    sums = torch.empty(queries, heads, dtype=torch.float32, device=a.device)
    rows = queries * heads
    block = 16
    _row_dot_kernel[(triton.cdiv(rows, block),)](
        a, b, sums, rows, dim, ROWS=block, BLOCK=triton.next_power_of_2(dim), num_warps=4
    )
    return sums


@triton.jit
def _row_dot_kernel(a, b, sums, rows, dim, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)
    inside = (row < rows)[:, None] & (column < dim)[None, :]
    at = row[:, None] * dim + column[None, :]
    x = tl.load(a + at, mask=inside, other=0.0).to(tl.float32)
    y = tl.load(b + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(sums + row, tl.sum(x * y, axis=1), mask=row < rows)


def _scores(
    q: Tensor, kv: Tensor, indices: Tensor, lse: Tensor, grad_out: Tensor, delta: Tensor, scale: float,
    tiles: dict[str, int],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """P and dS, both [C, H, k] in the dtype of q. Tiles of slots without any key are left unwritten."""
    queries, heads, dim = q.shape
    slots = indices.shape[1]
    p, ds = q.new_empty(2, queries, heads, slots).unbind()
    block_heads = min(tiles["scores_heads"], max(16, triton.next_power_of_2(heads)))
    block = min(tiles["scores_dim"], max(16, triton.next_power_of_2(dim)))
    slot_blocks, head_blocks = triton.cdiv(slots, tiles["scores_keys"]), triton.cdiv(heads, block_heads)
    _scores_kernel[(slot_blocks * head_blocks * queries,)](
        q, kv, indices, lse, grad_out, delta, p, ds, scale, heads,
        SLOTS=slots, DIM=dim, VALUE_DIM=grad_out.shape[-1], HEADS=block_heads, KEYS=tiles["scores_keys"],
        BLOCK=block, num_warps=tiles["scores_warps"], num_stages=tiles["scores_stages"],
    )  # fmt: skip
    return p, ds


@triton.jit
def _scores_kernel(
    q, kv, indices, lse, grad_out, delta, p_out, ds_out, scale, heads,
    SLOTS: tl.constexpr, DIM: tl.constexpr, VALUE_DIM: tl.constexpr,
    HEADS: tl.constexpr, KEYS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    slot_blocks = tl.cdiv(SLOTS, KEYS)
    head_blocks = tl.cdiv(heads, HEADS)
    # All slots of a query run together, so that its Q and dO stay in the L2 cache.
    slot_block = tl.program_id(0) % slot_blocks
    head_block = tl.program_id(0) // slot_blocks % head_blocks
    query = (tl.program_id(0) // slot_blocks // head_blocks).to(tl.int64)

    slot = slot_block * KEYS + tl.arange(0, KEYS)
    key = tl.load(indices + query * SLOTS + slot, mask=slot < SLOTS, other=-1)
    if tl.max(key) < 0:
        return
    valid = key >= 0
    head = head_block * HEADS + tl.arange(0, HEADS)
    known = head < heads
    row = query * heads + head
    column = tl.arange(0, BLOCK)
    k_at = kv + key.to(tl.int64)[:, None] * DIM + column[None, :]
    q_at = q + row[:, None] * DIM + column[None, :]
    do_at = grad_out + row[:, None] * VALUE_DIM + column[None, :]

    s = tl.zeros((HEADS, KEYS), tl.float32)
    dp = tl.zeros((HEADS, KEYS), tl.float32)
    for d in range(0, DIM, BLOCK):
        k = tl.load(k_at + d, mask=valid[:, None] & (column < DIM - d)[None, :], other=0.0)
        x = tl.load(q_at + d, mask=known[:, None] & (column < DIM - d)[None, :], other=0.0)
        # Columns past the value's are not read and add 0: one loop, so that the rope part hides its loads too.
        y = tl.load(do_at + d, mask=known[:, None] & (column < VALUE_DIM - d)[None, :], other=0.0)
        s = tl.dot(x, k.T, s, input_precision="ieee")
        dp = tl.dot(y, k.T, dp, input_precision="ieee")

    log_sum = tl.load(lse + row, mask=known, other=0.0)
    mean = tl.load(delta + row, mask=known, other=0.0)
    p = tl.exp2((s * scale - log_sum[:, None]) * 1.4426950408889634)
    p = tl.where(valid[None, :], p, 0.0)
    ds = p * (dp - mean[:, None]) * scale
    at = row[:, None] * SLOTS + slot[None, :]
    inside = known[:, None] & (slot < SLOTS)[None, :]
    tl.store(p_out + at, p.to(p_out.dtype.element_ty), mask=inside)
    tl.store(ds_out + at, ds.to(ds_out.dtype.element_ty), mask=inside)


def _partials(p: Tensor, ds: Tensor, q: Tensor, grad_out: Tensor, indices: Tensor, tiles: dict[str, int]) -> Tensor:
    """[C * k, D] in the dtype of q: what a pair adds to its key's row. Tiles without any key are left unwritten."""
    queries, heads, dim = q.shape
    slots = indices.shape[1]
    partials = q.new_empty(queries * slots, dim)
    block = min(tiles["partials_dim"], max(16, triton.next_power_of_2(dim)))
    _partials_kernel[(triton.cdiv(slots, tiles["partials_keys"]) * queries,)](
        p, ds, q, grad_out, indices, partials, heads,
        SLOTS=slots, DIM=dim, VALUE_DIM=grad_out.shape[-1], HEADS=max(16, triton.next_power_of_2(heads)),
        KEYS=tiles["partials_keys"], BLOCK=block,
        num_warps=tiles["partials_warps"], num_stages=tiles["partials_stages"],
    )  # fmt: skip
    return partials


@triton.jit
def _partials_kernel(
    p_in, ds_in, q, grad_out, indices, partials, heads,
    SLOTS: tl.constexpr, DIM: tl.constexpr, VALUE_DIM: tl.constexpr,
    HEADS: tl.constexpr, KEYS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    slot_blocks = tl.cdiv(SLOTS, KEYS)
    query = (tl.program_id(0) // slot_blocks).to(tl.int64)
    slot = tl.program_id(0) % slot_blocks * KEYS + tl.arange(0, KEYS)
    key = tl.load(indices + query * SLOTS + slot, mask=slot < SLOTS, other=-1)
    if tl.max(key) < 0:
        return
    head = tl.arange(0, HEADS)
    known = head < heads
    row = query * heads + head
    at = row[:, None] * SLOTS + slot[None, :]
    inside = known[:, None] & (slot < SLOTS)[None, :]
    p = tl.load(p_in + at, mask=inside, other=0.0).T
    ds = tl.load(ds_in + at, mask=inside, other=0.0).T
    column = tl.arange(0, BLOCK)
    q_at = q + row[:, None] * DIM + column[None, :]
    do_at = grad_out + row[:, None] * VALUE_DIM + column[None, :]
    partials_at = partials + (query * SLOTS + slot)[:, None] * DIM + column[None, :]
    for d in range(0, DIM, BLOCK):
        x = tl.load(q_at + d, mask=known[:, None] & (column < DIM - d)[None, :], other=0.0)
        y = tl.load(do_at + d, mask=known[:, None] & (column < VALUE_DIM - d)[None, :], other=0.0)
        total = tl.dot(ds, x, input_precision="ieee")
        total = tl.dot(p, y, total, input_precision="ieee")
        written = (slot < SLOTS)[:, None] & (column < DIM - d)[None, :]
        tl.store(partials_at + d, total.to(partials.dtype.element_ty), mask=written)


def _query_gradient(ds: Tensor, kv: Tensor, indices: Tensor, value_dim: int, dq: Tensor, tiles: dict[str, int]) -> None:
    """dq[t] = dS[t] K over the selected rows; each program owns a share of the value's columns and of the rope's."""
    queries, heads, slots = ds.shape
    dim = kv.shape[1]
    splits = tiles["dq_splits"]
    block_heads = min(tiles["dq_heads"], max(16, triton.next_power_of_2(heads)))
    _query_gradient_kernel[(splits * triton.cdiv(heads, block_heads) * queries,)](
        ds, kv, indices, dq, heads, slots,
        DIM=dim, VALUE_DIM=value_dim, HEADS=block_heads, KEYS=tiles["dq_keys"], SPLITS=splits,
        VALUE_BLOCK=max(16, triton.next_power_of_2(triton.cdiv(value_dim, splits))),
        ROPE_BLOCK=max(16, triton.next_power_of_2(triton.cdiv(dim - value_dim, splits))),
        num_warps=tiles["dq_warps"], num_stages=tiles["dq_stages"],
    )  # fmt: skip


@triton.jit
def _query_gradient_kernel(
    ds_in, kv, indices, dq, heads, slots,
    DIM: tl.constexpr, VALUE_DIM: tl.constexpr,
    HEADS: tl.constexpr, KEYS: tl.constexpr, SPLITS: tl.constexpr,
    VALUE_BLOCK: tl.constexpr, ROPE_BLOCK: tl.constexpr,
):  # fmt: skip
    head_blocks = tl.cdiv(heads, HEADS)
    split = tl.program_id(0) % SPLITS
    head_block = tl.program_id(0) // SPLITS % head_blocks
    query = (tl.program_id(0) // SPLITS // head_blocks).to(tl.int64)
    head = head_block * HEADS + tl.arange(0, HEADS)
    known = head < heads
    row = query * heads + head
    slot = tl.arange(0, KEYS)
    value = split * VALUE_BLOCK + tl.arange(0, VALUE_BLOCK)
    is_value = value < VALUE_DIM
    rope = VALUE_DIM + split * ROPE_BLOCK + tl.arange(0, ROPE_BLOCK)
    is_rope = rope < DIM

    value_total = tl.zeros((HEADS, VALUE_BLOCK), tl.float32)
    rope_total = tl.zeros((HEADS, ROPE_BLOCK), tl.float32)
    # `slots` is no constant: of a loop that is one trip ptxas 12.8 makes products that read past shared memory.
    for i in range(0, slots, KEYS):
        key = tl.load(indices + query * slots + i + slot, mask=slot < slots - i, other=-1)
        valid = key >= 0
        ds = tl.load(ds_in + row[:, None] * slots + i + slot[None, :], mask=known[:, None] & valid[None, :], other=0.0)
        at = kv + key.to(tl.int64)[:, None] * DIM
        k = tl.load(at + value[None, :], mask=valid[:, None] & is_value[None, :], other=0.0)
        value_total = tl.dot(ds, k, value_total, input_precision="ieee")
        k = tl.load(at + rope[None, :], mask=valid[:, None] & is_rope[None, :], other=0.0)
        rope_total = tl.dot(ds, k, rope_total, input_precision="ieee")

    at = dq + row[:, None] * DIM
    tl.store(at + value[None, :], value_total.to(dq.dtype.element_ty), mask=known[:, None] & is_value[None, :])
    tl.store(at + rope[None, :], rope_total.to(dq.dtype.element_ty), mask=known[:, None] & is_rope[None, :])
