"""Exact deterministic top-k in one read of the scores.

One program takes one row at a time and streams it once. It holds a *floor*: no score at or below it can be among the
k largest. Groups of four neighbouring scores with one above the floor go, in order, to a small buffer that stays in the
L2 cache. At the row's end, or when the buffer is full, the k-th largest score in it is found by bisection; a full
buffer is cut down to the k best so far and the floor rises to the k-th of them (a later score that only equals it
loses the tie). The first floor is guessed from a sample, a little too low, so that one selection at the end is what
most rows need; a guess that was too high is noticed, and that row is streamed again without one.

What is computed is counts of integers and a unique answer: neither the sample, the order of adding, the tile sizes nor
the other rows can change a bit of it. Plateaus and sorted rows cost a few more selections, never an overflow.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels import tuning

SITE: tl.constexpr = tl.constexpr(16)
"""Neighbouring scores in a sample's site: 64 bytes, what memory hands out at once."""


@triton.jit
def _ordered(bits):
    """int32 in the order of the float32 whose bits these are, and back: its own inverse."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def _value(key):
    """The float32 with this key. Key -1 belongs to -0.0, which compares like 0.0 (key 0)."""
    return _ordered(key).to(tl.float32, bitcast=True)


@triton.jit
def _key(value):
    return _ordered((value + 0.0).to(tl.int32, bitcast=True))


@triton.jit
def _count(buffer, size, threshold, TILE: tl.constexpr):
    """How many of the first `size` scores of the buffer are >= threshold (> -inf)."""
    offsets = tl.arange(0, TILE)
    total = tl.zeros((TILE,), tl.int32)
    for i in range(0, size, TILE):
        score = tl.load(buffer + i + offsets, mask=i + offsets < size, other=-float("inf"))
        total += (score >= threshold).to(tl.int32)
    return tl.sum(total, 0)


@triton.jit
def _largest(buffer, size, TILE: tl.constexpr):
    offsets = tl.arange(0, TILE)
    largest = tl.full((TILE,), -float("inf"), tl.float32)
    for i in range(0, size, TILE):
        largest = tl.maximum(largest, tl.load(buffer + i + offsets, mask=i + offsets < size, other=-float("inf")))
    return tl.max(largest, 0)


@triton.jit
def _kth(buffer, size, low, rank, slack, TILE: tl.constexpr):
    """The `rank`-th largest (from 1) of the buffer's scores, at least `rank` of which are >= low.

    Returns:
        a threshold and how many of the scores that equal it belong to the `rank` largest. Bisection stops at any
        threshold that `rank` to `rank + slack` scores reach; then every equal belongs (the number given is `rank`).
    """
    lo = _key(low)
    hi = _key(_largest(buffer, size, TILE))
    above = 0
    while lo < hi:
        middle = (lo | hi) - ((lo ^ hi) >> 1)  # rounded up, without overflow
        reached = _count(buffer, size, _value(middle), TILE)
        if reached < rank:
            hi = middle - 1
            above = reached
        else:
            lo = middle
            if reached <= rank + slack:
                hi = middle
                above = 0
    return _value(lo), rank - above


@triton.jit
def _below(value):
    """The next smaller float32 of another key: `score <= it` is `score < value`. NaN, above nothing, for -inf."""
    key = _key(value)
    return _value(tl.where(key == 0, -2, key - 1))


@triton.jit
def _guess(row, start, end, k, buffer, SAMPLE: tl.constexpr, TILE: tl.constexpr):
    """A score that a little more than the k largest of a row most likely reach; overwrites the buffer."""
    SITES: tl.constexpr = SAMPLE // SITE
    offsets = tl.arange(0, TILE)
    length = end - start
    for i in range(0, SAMPLE, TILE):
        site = (i + offsets) // SITE
        column = start + (site.to(tl.int64) * length // SITES).to(tl.int32)
        column = column // SITE * SITE + offsets % SITE
        tl.store(buffer + i + offsets, tl.load(row + tl.minimum(tl.maximum(column, start), end - 1)))
    tl.debug_barrier()
    expected = k * (SAMPLE / length)
    rank = tl.minimum((expected + 4.0 * tl.sqrt(expected) + 4.0).to(tl.int32), SAMPLE)
    guess, _ = _kth(buffer, SAMPLE, tl.full((), -float("inf"), tl.float32), rank, rank // 8, TILE)
    tl.debug_barrier()
    return guess


@triton.jit
def _stream(row, begin, start, end, floor, buffer, groups, kept, PARTS: tl.constexpr, LANES: tl.constexpr):
    """Appends the groups of one tile that have a score above the floor; returns how many there are then.

    Thread i holds one group of each part. The parts' counts are scanned together, in the bytes of one integer.
    """
    part = tl.arange(0, PARTS)[None, :]
    group = begin + 4 * (LANES * part + tl.arange(0, LANES)[:, None])
    column = group[:, :, None] + tl.arange(0, 4)[None, None, :]
    if (begin >= start) & (begin + 4 * LANES * PARTS <= end):
        score = tl.load(row + column, eviction_policy="evict_first")
        keep = ~(tl.max(score, 2) <= floor)
    else:
        score = tl.load(row + column, mask=(column >= start) & (column < end), other=-float("inf"))
        keep = ~(tl.max(score, 2) <= floor) & (group + 4 > start) & (group < end)
    byte = (8 * part).to(tl.int64)
    counts = tl.sum(keep.to(tl.int64) << byte, 1)
    before = ((tl.cumsum(counts, 0) - counts)[:, None] >> byte) & 255
    totals = ((tl.sum(counts, 0) >> byte) & 255).to(tl.int32)
    place = kept + tl.cumsum(totals, 1) - totals + before.to(tl.int32)
    tl.store(buffer + 4 * place[:, :, None] + tl.arange(0, 4)[None, None, :], score, mask=keep[:, :, None])
    tl.store(groups + place, group, mask=keep)
    return kept + tl.sum(tl.sum(totals, 1), 0)


@triton.jit
def _chosen(buffer, groups, i, kept, start, end, kth, equals, above, seen, TILE: tl.constexpr):
    """Which scores of one tile of the buffer are among the k largest, and each score's place among those.

    `above` and `seen` count the scores above and equal to the k-th in the tiles before.
    """
    slot = i + tl.arange(0, TILE)
    four = tl.arange(0, 4)[None, :]
    group = tl.load(groups + slot, mask=slot < kept, other=-4)
    score = tl.load(buffer + 4 * slot[:, None] + four, mask=slot[:, None] < kept, other=-float("inf"))
    column = group[:, None] + four
    larger = score > kth
    equal = (score == kth) & (column >= start) & (column < end)
    both = larger.to(tl.int32) + (equal.to(tl.int32) << 16)
    of_group = tl.sum(both, 1)
    before = (tl.cumsum(of_group, 0) - of_group)[:, None] + tl.cumsum(both, 1) - both
    equal_before = seen + (before >> 16)
    chosen = larger | (equal & (equal_before < equals))
    place = above + (before & 0xFFFF) + tl.minimum(equal_before, equals)
    total = tl.sum(of_group, 0)
    return score, group, chosen, place, above + (total & 0xFFFF), seen + (total >> 16)


@triton.jit
def _topk_kernel(
    scores, stride, starts, ends, out, buffers, buffer_groups, rows, k,
    STEP: tl.constexpr, SAMPLE: tl.constexpr, CAPACITY: tl.constexpr, PARTS: tl.constexpr, LANES: tl.constexpr,
    TILE: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """Programs take rows in turn. Row m begins at scores[m * stride * STEP]; each buffer holds CAPACITY groups."""
    BLOCK: tl.constexpr = 4 * LANES * PARTS
    buffer = buffers + tl.program_id(0).to(tl.int64) * (4 * CAPACITY)
    groups = buffer_groups + tl.program_id(0).to(tl.int64) * CAPACITY
    for m in range(tl.program_id(0), rows, tl.num_programs(0)):
        start, end = tl.load(starts + m), tl.load(ends + m)
        row = scores + tl.cast(m, tl.int64) * stride * STEP
        target = out + tl.cast(m, tl.int64) * k
        if end - start <= k:
            places = tl.arange(0, K)
            tl.store(target + places, tl.where(places < end - start, start + places, -1), mask=places < k)
        else:
            lowest = tl.full((), -float("inf"), tl.float32)
            low = lowest
            if end - start > tl.maximum(4 * k, SAMPLE):
                low = _guess(row, start, end, k, buffer, SAMPLE, TILE)
            floor = _below(low)
            first = start // 32 * 32
            begin = first
            kept = 0
            while begin < end:
                while (begin < end) & (kept <= CAPACITY - BLOCK // 4):
                    kept = _stream(
                        row, tl.multiple_of(begin, 32), start, end, floor, buffer, groups, kept, PARTS, LANES
                    )
                    begin += BLOCK
                tl.debug_barrier()
                if (begin >= end) & (_count(buffer, 4 * kept, low, TILE) < k):
                    # The guess was too high: once more from the row's beginning, with everything above the floor.
                    low = lowest
                    floor = _below(low)
                    begin = first
                    kept = 0
                else:
                    kth, equals = _kth(buffer, 4 * kept, low, k, 0, TILE)
                    above = 0
                    seen = 0
                    shrunk = 0
                    for i in range(0, kept, TILE // 4):
                        score, group, chosen, place, above, seen = _chosen(
                            buffer, groups, i, kept, start, end, kth, equals, above, seen, TILE // 4
                        )
                        if begin >= end:
                            tl.store(target + place, group[:, None] + tl.arange(0, 4)[None, :], mask=chosen)
                        else:
                            keep = tl.max(chosen.to(tl.int32), 1)
                            slot = shrunk + tl.cumsum(keep, 0) - keep
                            tl.debug_barrier()
                            tl.store(
                                buffer + 4 * slot[:, None] + tl.arange(0, 4)[None, :], score, mask=(keep > 0)[:, None]
                            )
                            tl.store(groups + slot, group, mask=keep > 0)
                            shrunk += tl.sum(keep, 0)
                    kept = shrunk
                    low = kth
                    floor = kth
                tl.debug_barrier()


@torch.library.custom_op("polymath::topk_rows", mutates_args=())
def topk_rows(scores: Tensor, k: int, starts: Tensor, ends: Tensor) -> Tensor:
    """The body of `kernels.topk.topk_rows` on CUDA; see there."""
    rows, columns = scores.shape
    tiles = tuning.config(
        "topk",
        f"k={triton.next_power_of_2(k)}",
        {"programs": 4, "sample": 4096, "parts": 8, "tile": 1024, "registers": 128},
    )
    capacity = triton.next_power_of_2(k) * 2 + 256 * tiles["parts"]
    programs = min(rows, tiles["programs"] * _processors(scores.device))
    out = scores.new_full((rows, k), -1, dtype=torch.int32)
    buffers = scores.new_empty(programs, 4 * capacity)
    groups = scores.new_empty(programs, capacity, dtype=torch.int32)
    # Reads of 16 bytes need rows that all begin at a multiple of 16 bytes.
    step = 4 if scores.stride(0) % 4 == 0 and scores.data_ptr() % 16 == 0 else 1
    if programs:
        _topk_kernel[(programs,)](
            scores, scores.stride(0) // step, starts, ends, out, buffers, groups, rows, k,
            STEP=step, SAMPLE=tiles["sample"], CAPACITY=capacity, PARTS=tiles["parts"], LANES=128, TILE=tiles["tile"],
            K=triton.next_power_of_2(k), num_warps=4, maxnreg=tiles["registers"],
        )  # fmt: skip
    return out


@topk_rows.register_fake
def _(scores: Tensor, k: int, starts: Tensor, ends: Tensor) -> Tensor:
    return scores.new_empty((len(scores), k), dtype=torch.int32)


def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1
