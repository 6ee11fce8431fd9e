"""Log-probability and entropy of tokens from hidden states on a GPU; the [T, V] logits are never in memory.

Forward: a program multiplies a tile of rows with one fixed share of the vocabulary, tile after tile, and keeps each
row's running maximum, sum of exponentials and sum of exponentials times logits; a second kernel adds the shares up in
their order. A row's result is a function of that row and the weights alone, bit for bit.

Backward: the gradient of the logits is computed anew for a chunk of the vocabulary of at most `CHUNK_BYTES`, in the
inputs' precision, and goes into the two matrix products at once. Chunks are of the vocabulary, not of the rows: each
row of the weights' gradient then comes out of one product that sums in float32 over all tokens.

Inside the kernels logits are in units of log 2, as exp2 is what the hardware has.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from kernels import tuning

CHUNK_BYTES = 256 * 2**20
SPLITS = 64
"""Shares of the vocabulary. A constant: the order of adding must not depend on the number of rows."""

LOG2_E: tl.constexpr = tl.constexpr(1.4426950408889634)
LN_2: tl.constexpr = tl.constexpr(0.6931471805599453)


@triton.jit
def _logits(hidden, weight, row, column, width, scale, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
            PRECISION: tl.constexpr):  # fmt: skip
    """[BM, BN] float32 logits from row `row` and column `column` on; zeros where the weights end."""
    total = tl.zeros((BM, BN), tl.float32)
    for k in range(0, width, BK):
        total = tl.dot(hidden.load([row, k]), weight.load([column, k]).T, total, input_precision=PRECISION)
    return total * scale


@triton.jit
def _partials_kernel(
    hidden, weight, targets, partials, rows, vocabulary, width, scale, share,
    ENTROPY: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Programs (row tile, share of `share` column tiles); partials [4, shares, rows] gets maximum, sums and target."""
    tile = tl.program_id(0)
    split = tl.program_id(1)
    row = tile * BM + tl.arange(0, BM)
    target = tl.load(targets + row, mask=row < rows, other=-1)
    largest = tl.full((BM,), -float("inf"), tl.float32)
    total = tl.zeros((BM,), tl.float32)
    moment = tl.zeros((BM,), tl.float32)
    chosen = tl.full((BM,), -float("inf"), tl.float32)
    for i in range(split * share, tl.minimum((split + 1) * share, tl.cdiv(vocabulary, BN))):
        logits = _logits(hidden, weight, tile * BM, i * BN, width, scale, BM, BN, BK, PRECISION)
        column = i * BN + tl.arange(0, BN)[None, :]
        if (i + 1) * BN > vocabulary:
            logits = tl.where(column < vocabulary, logits, -1e38)  # finite: 0 times it is 0
        if tl.max(((target >= i * BN) & (target < (i + 1) * BN)).to(tl.int32), 0) > 0:
            chosen = tl.maximum(chosen, tl.max(tl.where(column == target[:, None], logits, -float("inf")), 1))
        before = largest
        largest = tl.maximum(largest, tl.max(logits, 1))
        p = tl.exp2(logits - largest[:, None])
        total = total * tl.exp2(before - largest) + tl.sum(p, 1)
        if ENTROPY:
            moment = moment * tl.exp2(before - largest) + tl.sum(p * logits, 1)
    at = partials + split.to(tl.int64) * rows + row
    plane = tl.num_programs(1).to(tl.int64) * rows
    tl.store(at, largest, mask=row < rows)
    tl.store(at + plane, total, mask=row < rows)
    tl.store(at + 2 * plane, chosen, mask=row < rows)
    if ENTROPY:
        tl.store(at + 3 * plane, moment, mask=row < rows)


@triton.jit
def _combine_kernel(
    partials, logprob, entropy, normaliser, rows, splits,
    ENTROPY: tl.constexpr, BM: tl.constexpr,
):  # fmt: skip
    """Adds the shares up in their order; the normaliser stays in units of log 2."""
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    inside = row < rows
    plane = splits.to(tl.int64) * rows
    largest = tl.full((BM,), -float("inf"), tl.float32)
    for split in range(splits):
        largest = tl.maximum(largest, tl.load(partials + tl.cast(split, tl.int64) * rows + row, mask=inside, other=0.0))
    total = tl.zeros((BM,), tl.float32)
    moment = tl.zeros((BM,), tl.float32)
    chosen = tl.full((BM,), -float("inf"), tl.float32)
    for split in range(splits):
        at = partials + tl.cast(split, tl.int64) * rows + row
        factor = tl.exp2(tl.load(at, mask=inside, other=0.0) - largest)
        total += factor * tl.load(at + plane, mask=inside, other=1.0)
        chosen = tl.maximum(chosen, tl.load(at + 2 * plane, mask=inside, other=0.0))
        if ENTROPY:
            moment += factor * tl.load(at + 3 * plane, mask=inside, other=0.0)
    lse = largest + tl.log2(total)
    tl.store(normaliser + row, lse, mask=inside)
    tl.store(logprob + row, (chosen - lse) * LN_2, mask=inside)
    if ENTROPY:
        tl.store(entropy + row, (lse - moment / total) * LN_2, mask=inside)


@triton.jit
def gradient_of_logit(logit, lse, entropy, grad_logprob, grad_entropy, chosen, ENTROPY: tl.constexpr):
    """d loss / d (logit / temperature): grad_logprob * (1[target] - p) - grad_entropy * p (log p + H)."""
    log_p = logit - lse
    p = tl.exp2(log_p)
    factor = -grad_logprob
    if ENTROPY:
        factor -= grad_entropy * (tl.where(p > 0.0, log_p, 0.0) * LN_2 + entropy)
    return p * factor + tl.where(chosen, grad_logprob, 0.0)


@triton.jit
def _logit_gradient_kernel(
    hidden, weight, targets, normaliser, entropy, grad_logprob, grad_entropy, out,
    first, rows, width, columns, temperature,
    ENTROPY: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """out [rows, columns] = gradient of the logits of the vocabulary's columns from `first` on."""
    row_tile, column_tile = tl.program_id(0), tl.program_id(1)
    logits = _logits(
        hidden, weight, row_tile * BM, first + column_tile * BN, width, LOG2_E / temperature, BM, BN, BK, PRECISION
    )
    row = row_tile * BM + tl.arange(0, BM)
    column = first + column_tile * BN + tl.arange(0, BN)
    inside = row < rows
    lse = tl.load(normaliser + row, mask=inside, other=float("inf"))[:, None]
    target = tl.load(targets + row, mask=inside, other=-1)[:, None]
    upstream = tl.load(grad_logprob + row, mask=inside, other=0.0)[:, None]
    spread = upstream
    upstream_entropy = upstream
    if ENTROPY:
        spread = tl.load(entropy + row, mask=inside, other=0.0)[:, None]
        upstream_entropy = tl.load(grad_entropy + row, mask=inside, other=0.0)[:, None]
    chosen = column[None, :] == target
    grad = gradient_of_logit(logits, lse, spread, upstream, upstream_entropy, chosen, ENTROPY) / temperature
    out.store([row_tile * BM, column_tile * BN], grad.to(out.dtype))


def _rows_of_16_bytes(x: Tensor) -> Tensor:
    """x, or a copy with zero columns added, whose rows all begin at a multiple of 16 bytes, as descriptors want."""
    missing = -x.shape[1] % (16 // x.element_size())
    x = (torch.nn.functional.pad(x, (0, missing)) if missing else x).contiguous()
    return x.clone() if x.data_ptr() % 16 else x


def _tiles(kernel: str, hidden: Tensor) -> dict[str, Any]:
    default = {"BM": 64, "BN": 128, "BK": 64, "num_warps": 4, "num_stages": 3}
    if hidden.dtype == torch.float32:  # products without tensor cores: small steps, or the registers overflow
        default |= {"BK": 16, "num_warps": 8, "num_stages": 2}
    return tuning.config(kernel, str(hidden.dtype).removeprefix("torch."), default)


def _descriptors(hidden: Tensor, weight: Tensor, tiles: dict[str, Any]) -> tuple[TensorDescriptor, TensorDescriptor]:
    return (
        TensorDescriptor.from_tensor(hidden, [tiles["BM"], tiles["BK"]]),
        TensorDescriptor.from_tensor(weight, [tiles["BN"], tiles["BK"]]),
    )


@torch.library.custom_op("polymath::token_logprob", mutates_args=())
def token_logprob(
    hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float, with_entropy: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probability [T] and entropy [T] (empty without `with_entropy`) in nats, log2 of the softmax's denominator."""
    rows, vocabulary = len(hidden), len(weight)
    logprob, normaliser = (hidden.new_empty(rows, dtype=torch.float32) for _ in range(2))
    entropy = torch.empty_like(logprob) if with_entropy else logprob.new_empty(0)
    if not rows:
        return logprob, entropy, normaliser
    hidden, weight = _rows_of_16_bytes(hidden), _rows_of_16_bytes(weight)
    tiles = _tiles("token_logprob", hidden)
    share = triton.cdiv(triton.cdiv(vocabulary, tiles["BN"]), SPLITS)
    splits = triton.cdiv(triton.cdiv(vocabulary, tiles["BN"]), share)
    partials = logprob.new_empty(4 if with_entropy else 3, splits, rows)
    _partials_kernel[(triton.cdiv(rows, tiles["BM"]), splits)](
        *_descriptors(hidden, weight, tiles), targets, partials, rows, vocabulary, hidden.shape[1],
        LOG2_E.value / temperature, share, ENTROPY=with_entropy, PRECISION="ieee", **tiles,
    )  # fmt: skip
    _combine_kernel[(triton.cdiv(rows, 64),)](
        partials, logprob, entropy, normaliser, rows, splits, ENTROPY=with_entropy, BM=64, num_warps=2
    )
    return logprob, entropy, normaliser


@token_logprob.register_fake
def _(
    hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float, with_entropy: bool
) -> tuple[Tensor, Tensor, Tensor]:
    per_row = hidden.new_empty(len(hidden), dtype=torch.float32)
    return per_row, per_row.new_empty(len(hidden) if with_entropy else 0), torch.empty_like(per_row)


@torch.library.custom_op("polymath::token_logprob_backward", mutates_args=())
def token_logprob_backward(
    hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float, normaliser: Tensor, entropy: Tensor,
    grad_logprob: Tensor, grad_entropy: Tensor | None, need_hidden: bool, need_weight: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Gradients of hidden states and weights; an empty tensor for one that is not needed."""
    rows, vocabulary = len(hidden), len(weight)
    grad_hidden = hidden.new_zeros(hidden.shape if need_hidden else (0,), dtype=torch.float32)
    grad_weight = torch.empty_like(weight) if need_weight else weight.new_empty(0)
    if not rows:
        return grad_hidden.to(hidden.dtype), grad_weight.zero_()
    wide_hidden, wide_weight = _rows_of_16_bytes(hidden), _rows_of_16_bytes(weight)
    tiles = _tiles("token_logprob_backward", hidden)
    chunk = max(1, CHUNK_BYTES // (rows * hidden.element_size() * tiles["BN"])) * tiles["BN"]
    chunk = min(chunk, triton.cdiv(vocabulary, tiles["BN"]) * tiles["BN"])
    gradient = hidden.new_empty(rows, chunk)
    target_gradient = TensorDescriptor.from_tensor(gradient, [tiles["BM"], tiles["BN"]])
    for first in range(0, vocabulary, chunk):
        columns = min(chunk, vocabulary - first)
        _logit_gradient_kernel[(triton.cdiv(rows, tiles["BM"]), triton.cdiv(columns, tiles["BN"]))](
            *_descriptors(wide_hidden, wide_weight, tiles), targets, normaliser, entropy,
            grad_logprob, grad_entropy, target_gradient, first, rows, wide_hidden.shape[1], columns, temperature,
            ENTROPY=grad_entropy is not None, PRECISION="ieee", **tiles,
        )  # fmt: skip
        part = gradient[:, :columns]
        if need_weight:
            torch.mm(part.t(), hidden, out=grad_weight[first : first + columns])
        if need_hidden:
            _add_product(grad_hidden, part, weight[first : first + columns])
    return grad_hidden.to(hidden.dtype), grad_weight


@token_logprob_backward.register_fake
def _(
    hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float, normaliser: Tensor, entropy: Tensor,
    grad_logprob: Tensor, grad_entropy: Tensor | None, need_hidden: bool, need_weight: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return hidden.new_empty(hidden.shape if need_hidden else 0), weight.new_empty(weight.shape if need_weight else 0)


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total += a @ b, in float32."""
    if a.is_cuda and a.dtype != torch.float32:
        torch.addmm(total, a, b, out_dtype=torch.float32, out=total)
    else:
        total.addmm_(a.float(), b.float())


def _save(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor, Tensor]) -> None:
    hidden, weight, targets, ctx.temperature, ctx.with_entropy = inputs
    ctx.save_for_backward(hidden, weight, targets, output[2], output[1])
    ctx.mark_non_differentiable(output[2])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_logprob: Tensor | None, grad_entropy: Tensor | None, _: Tensor | None) -> tuple:
    need_hidden, need_weight = ctx.needs_input_grad[:2]
    if grad_logprob is None and grad_entropy is None:
        return None, None, None, None, None
    hidden, weight, targets, normaliser, entropy = ctx.saved_tensors
    if grad_logprob is None:
        grad_logprob = torch.zeros_like(normaliser)
    grad_hidden, grad_weight = token_logprob_backward(
        hidden, weight, targets, ctx.temperature, normaliser, entropy, grad_logprob.contiguous(),
        grad_entropy.contiguous() if ctx.with_entropy and grad_entropy is not None else None, need_hidden, need_weight,
    )  # fmt: skip
    return grad_hidden if need_hidden else None, grad_weight if need_weight else None, None, None, None


token_logprob.register_autograd(_backward, setup_context=_save)
