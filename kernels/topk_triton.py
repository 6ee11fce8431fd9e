"""Exact deterministic top-k in one read of the scores.

One program takes one row at a time and streams it once. It holds a *floor*: no score at or below it can be among the
k largest. Groups of four neighbouring scores with one above the floor go, in order, to a small buffer that stays in the
L2 cache. At the row's end, or when the buffer is full, the k-th largest score in it is searched for between known
bounds; a full buffer is cut down to the k best so far and the floor rises to the k-th of them (a later score that only
equals it loses the tie). The first floor is guessed from a sample, a little too low, so that one selection at the end
is what most rows need; a guess that was too high is noticed, and that row is streamed again without one.

What is computed is counts of integers and a unique answer: neither the sample, the order of adding, the tile sizes nor
the other rows can change a bit of it. Plateaus and sorted rows cost a few more selections, never an overflow.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels import tuning

DEFAULT = {"programs": 4, "sample": 4096, "parts": 8, "tile": 512, "registers": 128}
"""Programs of a processor, scores in the sample, reads of 16 bytes that a thread has in flight (at most 8), tile of the
buffer in groups (at most 512), registers of a thread."""

SITE: tl.constexpr = tl.constexpr(16)
"""Neighbouring scores in a site of the sample: 64 bytes, what memory hands out at once."""


@triton.jit
def _ordered(bits):
    """int32 in the order of the float32 whose bits these are, and back: its own inverse."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def _value(key):
    """The float32 with this key. Key -1 belongs to -0.0, which compares like 0.0 (key 0)."""
    return _ordered(key.to(tl.int32)).to(tl.float32, bitcast=True)


@triton.jit
def _key(value):
    """The place of a float32 among all of them, as int64 so that differences fit."""
    return _ordered((value + 0.0).to(tl.int32, bitcast=True)).to(tl.int64)


@triton.jit
def _below(value):
    """The next smaller float32: `score <= it` means `score < value`. NaN, above nothing, for -inf."""
    key = _key(value)
    return _value(tl.where(key == 0, -2, key - 1))


@triton.jit
def _count(buffer, kept, threshold, TILE: tl.constexpr):
    """How many scores of the buffer's first `kept` groups reach the threshold; the last tile is padded with NaN."""
    at = 4 * tl.arange(0, TILE)[:, None] + tl.arange(0, 4)[None, :]
    total = tl.zeros((TILE,), tl.float32)  # an addition in float32 is one instruction less, and exact here
    for i in range(0, kept, TILE):
        total += tl.sum(tl.where(tl.load(buffer + 4 * i + at) >= threshold, 1.0, 0.0), 1)
    return tl.sum(total, 0).to(tl.int32)


@triton.jit
def _kth(buffer, kept, low, rank, slack, TILE: tl.constexpr):
    """The `rank`-th largest (from 1) of the scores in the buffer's first `kept` groups.

    Returns:
        the threshold, how many scores reach it, how many are above it, and how many reach `low`; where the last is
        fewer than `rank`, the threshold is `low`. The search stops early at any threshold that `rank` to
        `rank + slack` scores reach, and then the number above it means nothing.
    """
    at = 4 * tl.arange(0, TILE)[:, None] + tl.arange(0, 4)[None, :]
    largest = tl.full((TILE,), -float("inf"), tl.float32)
    total_at_low = tl.zeros((TILE,), tl.float32)
    total_above_low = tl.zeros((TILE,), tl.float32)
    for i in range(0, kept, TILE):
        score = tl.load(buffer + 4 * i + at)
        largest = tl.maximum(largest, tl.max(tl.where(score > low, score, low), 1))
        total_at_low += tl.sum(tl.where(score >= low, 1.0, 0.0), 1)
        total_above_low += tl.sum(tl.where(score > low, 1.0, 0.0), 1)
    at_low = tl.sum(total_at_low, 0).to(tl.int32)
    above_low = tl.sum(total_above_low, 0).to(tl.int32)
    # All along, `reached` >= rank scores reach lo and `above` < rank scores are above hi.
    lo = _key(low)
    hi = tl.where(above_low < rank, lo, _key(tl.max(largest, 0)))
    above = tl.where(above_low < rank, above_low, 0)
    reached = at_low
    turn = 0
    while lo < hi:
        # Where the count would be right if the scores lay evenly; halving now and then bounds the number of turns.
        share = tl.where(turn % 4 == 3, 0.5, (reached - rank - 0.5 * slack) / (reached - above))
        middle = lo + ((hi - lo).to(tl.float32) * share).to(tl.int64)
        middle = tl.minimum(tl.maximum(middle, lo + 1), hi)
        count = _count(buffer, kept, _value(middle), TILE)
        if count < rank:
            hi = middle - 1
            above = count
        else:
            lo = middle
            reached = count
            if count <= rank + slack:
                hi = middle
        turn += 1
    return _value(lo), reached, above, at_low


@triton.jit
def _guess(row, start, end, k, buffer, SAMPLE: tl.constexpr, TILE: tl.constexpr):
    """A score that a little more than the k largest of a row most likely reach; overwrites the buffer."""
    offsets = tl.arange(0, 4 * TILE)
    length = end - start
    smallest = tl.full((4 * TILE,), float("inf"), tl.float32)
    for i in range(0, SAMPLE, 4 * TILE):
        site = (i + offsets) // SITE
        column = start + (site.to(tl.int64) * length // (SAMPLE // SITE)).to(tl.int32)
        column = column // SITE * SITE + offsets % SITE
        score = tl.load(row + tl.minimum(tl.maximum(column, start), end - 1))
        smallest = tl.minimum(smallest, score)
        tl.store(buffer + i + offsets, score)
    tl.debug_barrier()
    expected = k * (SAMPLE / length)
    deviation = tl.sqrt(expected) + 1.0
    rank = tl.minimum((expected + 3.0 * deviation).to(tl.int32), SAMPLE)
    guess, _, _, _ = _kth(buffer, SAMPLE // 4, tl.min(smallest, 0), rank, (2.0 * deviation).to(tl.int32), TILE)
    tl.debug_barrier()
    return guess


@triton.jit
def _places(counts, BITS: tl.constexpr):
    """Exclusive running sums of counts [LANES, PARTS], part by part, and the sum of all.

    Each thread holds one count of each part. All parts are scanned at once, side by side in the bits of one integer, of
    which the sum of a part takes at most BITS.
    """
    part = tl.arange(0, counts.shape[1])[None, :]
    shift = (BITS * part).to(tl.int64)
    packed = tl.sum(counts.to(tl.int64) << shift, 1)
    before = (((tl.cumsum(packed, 0) - packed)[:, None] >> shift) & ((1 << BITS) - 1)).to(tl.int32)
    totals = tl.sum(packed, 0)
    everything = 0
    for i in tl.static_range(counts.shape[1]):
        total = ((totals >> (BITS * i)) & ((1 << BITS) - 1)).to(tl.int32)
        before += tl.where(part > i, total, 0)
        everything += total
    return before, everything


@triton.jit
def _stream(row, begin, start, end, floor, buffer, groups, kept, PARTS: tl.constexpr, LANES: tl.constexpr):
    """Appends the groups of one tile that have a score above the floor; returns how many there are then."""
    group = 4 * (LANES * tl.arange(0, PARTS)[None, :] + tl.arange(0, LANES)[:, None])
    four = tl.arange(0, 4)[None, None, :]
    column = group[:, :, None] + four
    group += begin
    if (begin >= start) & (begin + 4 * LANES * PARTS <= end):
        score = tl.load(row + begin + column, eviction_policy="evict_first")
        keep = ~(tl.max(score, 2) <= floor)
    else:
        # NaN is neither above, below nor equal to any threshold.
        inside = (column >= start - begin) & (column < end - begin)
        score = tl.load(row + begin + column, mask=inside, other=float("nan"))
        keep = ~(tl.max(score, 2) <= floor) & (group + 4 > start) & (group < end)
    before, added = _places(keep, 8)
    place = kept + before
    tl.store(buffer + 4 * place[:, :, None] + four, score, mask=keep[:, :, None])
    tl.store(groups + place, group, mask=keep)
    return kept + added


@triton.jit
def _tie_column(buffer, groups, kept, kth, equals, TILE: tl.constexpr):
    """The column of the `equals`-th score, from the left, that equals kth."""
    four = tl.arange(0, 4)[None, :]
    seen = 0
    last = -1
    i = 0
    while (i < kept) & (seen < equals):
        slot = i + tl.arange(0, TILE)
        equal = (tl.load(buffer + 4 * slot[:, None] + four) == kth).to(tl.int32)
        of_group = tl.sum(equal, 1)
        upto = seen + (tl.cumsum(of_group, 0) - of_group)[:, None] + tl.cumsum(equal, 1)
        column = tl.load(groups + slot)[:, None] + four
        last = tl.max(tl.max(tl.where((equal > 0) & (upto == equals), column, -1), 1), 0)
        seen += tl.sum(of_group, 0)
        i += TILE
    return last


@triton.jit
def _write_or_shrink(
    buffer, groups, kept, kth, tie, target, write, TILE: tl.constexpr, LANES: tl.constexpr
):  # fmt: skip
    """Writes the columns chosen, or else cuts the buffer down to the groups that hold one; returns how many those are.

    Chosen are the scores above kth and those that equal it up to the column `tie`.
    """
    four = tl.arange(0, 4)[None, None, :]
    done = 0
    for i in range(0, kept, TILE):
        slot = i + LANES * tl.arange(0, TILE // LANES)[None, :] + tl.arange(0, LANES)[:, None]
        group = tl.load(groups + slot)
        score = tl.load(buffer + 4 * slot[:, :, None] + four)
        column = group[:, :, None] + four
        chosen = ((score > kth) | ((score == kth) & (column <= tie))).to(tl.int32)
        of_group = tl.sum(chosen, 2)
        before, added = _places(tl.where(write, of_group, tl.minimum(of_group, 1)), 16)
        place = done + before
        if write:
            tl.store(target + place[:, :, None] + tl.cumsum(chosen, 2) - chosen, column, mask=chosen > 0)
        else:
            tl.debug_barrier()
            tl.store(buffer + 4 * place[:, :, None] + four, score, mask=(of_group > 0)[:, :, None])
            tl.store(groups + place, group, mask=of_group > 0)
        done += added
    return done


@triton.jit
def _topk_kernel(
    scores, stride, starts, ends, out, buffers, buffer_groups, rows, k,
    STEP: tl.constexpr, SAMPLE: tl.constexpr, CAPACITY: tl.constexpr, PARTS: tl.constexpr, LANES: tl.constexpr,
    TILE: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """Programs take rows in turn. Row m begins at scores[m * stride * STEP]; each buffer holds CAPACITY groups."""
    BLOCK: tl.constexpr = 4 * LANES * PARTS
    FULL: tl.constexpr = CAPACITY - TILE - LANES * PARTS
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
                while (begin < end) & (kept <= FULL):
                    kept = _stream(
                        row, tl.multiple_of(begin, 32), start, end, floor, buffer, groups, kept, PARTS, LANES
                    )
                    begin += BLOCK
                pad = tl.arange(0, 4 * TILE)
                tl.store(buffer + 4 * kept + pad, tl.full((4 * TILE,), float("nan"), tl.float32))
                tl.debug_barrier()
                kth, reached, above, at_low = _kth(buffer, kept, low, k, 0, TILE)
                if (at_low < k) & (low != lowest):
                    # The guess was too high: once more from the row's beginning, without a floor.
                    low = lowest
                    floor = _below(low)
                    begin = first
                    kept = 0
                else:
                    tie = 0x7FFFFFFF
                    if reached > k:
                        tie = _tie_column(buffer, groups, kept, kth, k - above, TILE)
                    kept = _write_or_shrink(buffer, groups, kept, kth, tie, target, begin >= end, TILE, LANES)
                    low = kth
                    floor = kth
                tl.debug_barrier()


@torch.library.custom_op("polymath::topk_rows", mutates_args=())
def topk_rows(scores: Tensor, k: int, starts: Tensor, ends: Tensor) -> Tensor:
    """The body of `kernels.topk.topk_rows` on CUDA; see there."""
    rows = len(scores)
    tiles = tuning.config("topk", f"k={triton.next_power_of_2(k)}", DEFAULT)
    capacity = 2 * triton.next_power_of_2(k) + 2 * 128 * tiles["parts"] + tiles["tile"]
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
