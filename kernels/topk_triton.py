"""Exact deterministic top-k in one read of the scores.

One program takes one row at a time and streams it once. It holds a *floor*: no score below it can be among the k
largest. Groups of four neighbouring scores, one of which reaches the floor, are staged in order of position; from time
to time the scores among them that reach the floor move on to a list, which stays in the cache. At the row's end, or
when the list is full, the k-th largest score in it is searched for between known bounds; a full list is cut down to the
k best so far and the floor rises above the k-th of them (a later score that only equals it loses the tie). The first
floor is guessed from a sample, a little too low, so that one selection at the end is what most rows need; a guess that
was too high is noticed, and that row is streamed again without one.

What is computed is counts of integers and a unique answer: neither the sample, the order of adding, the tile sizes nor
the other rows can change a bit of it. Plateaus and sorted rows cost a few more selections, never an overflow.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels import tuning

DEFAULT = {
    "programs": 4, "warps": 4, "registers": 128, "sample": 4096, "parts": 8, "stage": 1024, "unstage": 2, "tile": 1024
}  # fmt: skip
"""Programs of a processor, warps of a program, registers of a thread, scores in the sample, reads of 16 bytes that a
thread has in flight (2 to 8; at most 4 with more than 4 warps), groups staged before they are unstaged, groups that a
thread unstages at once (2 or 4), tile of the list (2 to 8 entries of a thread)."""

SITE: tl.constexpr = tl.constexpr(16)
"""Neighbouring scores in a site of the sample: 64 bytes, what memory hands out at once."""


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
    """The place of a float32 among all of them."""
    return _ordered((value + 0.0).to(tl.int32, bitcast=True))


@triton.jit
def _entry(score, column):
    """What the buffer holds: the score's bits below, its column above."""
    bits = score.to(tl.int32, bitcast=True).to(tl.uint32, bitcast=True)
    return (column.to(tl.int64) << 32) | bits.to(tl.int64)


@triton.jit
def _score(entry):
    return entry.to(tl.int32).to(tl.float32, bitcast=True)


@triton.jit
def _count(buffer, kept, threshold, TILE: tl.constexpr):
    """How many of the buffer's first `kept` scores reach the threshold, which is above -inf."""
    total = tl.zeros((TILE,), tl.float32)  # an addition in float32 is one instruction less, and exact here
    for i in range(0, kept, TILE):
        total += tl.where(_score(tl.load(buffer + i + tl.arange(0, TILE))) >= threshold, 1.0, 0.0)
    return tl.sum(total, 0).to(tl.int32)


@triton.jit
def _kth(buffer, kept, low, rank, slack, TILE: tl.constexpr):
    """The `rank`-th largest (from 1) of the buffer's `kept` scores, none of which is below `low`.

    Returns:
        the threshold, how many scores reach it and how many are above it. The search stops early at any threshold that
        `rank` to `rank + slack` scores reach, and then the last number means nothing.
    """
    largest = tl.full((TILE,), -float("inf"), tl.float32)
    total = tl.zeros((TILE,), tl.float32)
    for i in range(0, kept, TILE):
        score = _score(tl.load(buffer + i + tl.arange(0, TILE)))
        largest = tl.maximum(largest, score)
        total += tl.where(score > low, 1.0, 0.0)
    above_low = tl.sum(total, 0).to(tl.int32)
    # All along, `reached` >= rank scores reach lo and `above` < rank scores are above hi.
    lo = _key(low)
    hi = tl.where(above_low < rank, lo, _key(tl.max(largest, 0)))
    above = tl.where(above_low < rank, above_low, 0)
    reached = kept
    turn = 0
    while lo < hi:
        # Where the count would be right if the scores lay evenly; halving now and then bounds the number of turns.
        share = tl.where(turn % 4 == 3, 0.5, (reached - rank - 0.5 * slack) / (reached - above))
        distance = (hi - lo).to(tl.uint32, bitcast=True)
        step = tl.minimum(tl.maximum((distance.to(tl.float32) * share).to(tl.uint32), 1), distance)
        middle = lo + step.to(tl.int32, bitcast=True)
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
    return _value(lo), reached, above


@triton.jit
def _guess(row, start, end, k, buffer, SAMPLE: tl.constexpr, TILE: tl.constexpr):
    """A score that a little more than the k largest of a row most likely reach; overwrites the buffer."""
    offsets = tl.arange(0, TILE)
    length = end - start
    smallest = tl.full((TILE,), float("inf"), tl.float32)
    for i in range(0, SAMPLE, TILE):
        column = start + (((i + offsets) // SITE).to(tl.int64) * length // (SAMPLE // SITE)).to(tl.int32)
        column = column // SITE * SITE + offsets % SITE
        score = tl.load(row + tl.minimum(tl.maximum(column, start), end - 1))
        smallest = tl.minimum(smallest, score)
        tl.store(buffer + i + offsets, _entry(score, column))
    tl.debug_barrier()
    expected = k * (SAMPLE / length)
    deviation = tl.sqrt(expected) + 1.0
    rank = tl.minimum((expected + 3.0 * deviation).to(tl.int32), SAMPLE)
    guess, _, _ = _kth(buffer, SAMPLE, tl.min(smallest, 0), rank, (2.0 * deviation).to(tl.int32), TILE)
    tl.debug_barrier()
    return guess


@triton.jit
def _places(counts, BITS: tl.constexpr):
    """Exclusive running sums of counts [LANES, PARTS], part by part, and the sum of all.

    Each thread holds one count of each part. All parts are scanned at once, side by side in an integer of 64 bits, of
    which a part's sum needs at most BITS.
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
def _stage(row, begin, start, end, low, staged, groups, count, PARTS: tl.constexpr, LANES: tl.constexpr):
    """Stages the groups of one tile that have a score >= low; returns how many are staged then."""
    group = 4 * (LANES * tl.arange(0, PARTS)[None, :] + tl.arange(0, LANES)[:, None])
    four = tl.arange(0, 4)[None, None, :]
    column = group[:, :, None] + four
    group += begin
    if (begin >= start) & (begin + 4 * LANES * PARTS <= end):
        score = tl.load(row + begin + column, eviction_policy="evict_first")
    else:
        # NaN reaches nothing.
        inside = (column >= start - begin) & (column < end - begin)
        score = tl.load(row + begin + column, mask=inside, other=float("nan"))
    keep = tl.max(score, 2) >= low
    before, added = _places(keep, 64 // PARTS)
    place = count + before
    tl.store(staged + 4 * place[:, :, None] + four, score, mask=keep[:, :, None])
    tl.store(groups + place, group, mask=keep)
    return count + added


@triton.jit
def _unstage(staged, groups, count, low, buffer, kept, PARTS: tl.constexpr, LANES: tl.constexpr):
    """Appends the staged scores that reach `low` to the buffer; returns how many entries there are then."""
    slot = LANES * tl.arange(0, PARTS)[None, :] + tl.arange(0, LANES)[:, None]
    four = tl.arange(0, 4)[None, None, :]
    at = 4 * slot[:, :, None] + four
    for i in range(0, count, LANES * PARTS):
        score = tl.load(staged + 4 * i + at, mask=(slot < count - i)[:, :, None], other=float("nan"))
        column = tl.load(groups + i + slot, mask=slot < count - i, other=0)[:, :, None] + four
        keep = (score >= low).to(tl.int32)
        before, added = _places(tl.sum(keep, 2), 64 // PARTS)
        place = kept + before[:, :, None] + tl.cumsum(keep, 2) - keep
        tl.store(buffer + place, _entry(score, column), mask=keep > 0)
        kept += added
    return kept


@triton.jit
def _tie_column(buffer, kept, kth, equals, TILE: tl.constexpr):
    """The column of the `equals`-th score, from the left, that equals kth."""
    seen = 0
    last = -1
    i = 0
    while (i < kept) & (seen < equals):
        entry = tl.load(buffer + i + tl.arange(0, TILE))
        equal = (_score(entry) == kth).to(tl.int32)
        is_last = (equal > 0) & (seen + tl.cumsum(equal, 0) == equals)
        last = tl.max(tl.where(is_last, (entry >> 32).to(tl.int32), last), 0)
        seen += tl.sum(equal, 0)
        i += TILE
    return last


@triton.jit
def _select(buffer, kept, kth, tie, target, write, TILE: tl.constexpr, LANES: tl.constexpr):
    """Writes the columns of the chosen, or else cuts the buffer down to them; returns how many they are.

    Chosen are the scores above kth and those that equal it up to the column `tie`.
    """
    slot = LANES * tl.arange(0, TILE // LANES)[None, :] + tl.arange(0, LANES)[:, None]
    done = 0
    for i in range(0, kept, TILE):
        entry = tl.load(buffer + i + slot)
        score = _score(entry)
        column = (entry >> 32).to(tl.int32)
        chosen = (score > kth) | ((score == kth) & (column <= tie))
        before, added = _places(chosen, 64 // (TILE // LANES))
        if write:
            tl.store(target + done + before, column, mask=chosen)
        else:
            tl.debug_barrier()
            tl.store(buffer + done + before, entry, mask=chosen)
        done += added
    return done


@triton.jit
def _topk_kernel(
    scores, stride, starts, ends, out, buffers, stages, stage_groups, rows, k,
    STEP: tl.constexpr, SAMPLE: tl.constexpr, CAPACITY: tl.constexpr, STAGE: tl.constexpr, K: tl.constexpr,
    PARTS: tl.constexpr, UNSTAGE: tl.constexpr, TILE: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Programs take rows in turn; row m begins at scores[m * stride * STEP].

    A program's buffer holds CAPACITY entries, its stage STAGE groups and its tiles 4 * LANES * PARTS scores.
    """
    BLOCK: tl.constexpr = 4 * LANES * PARTS
    FULL: tl.constexpr = CAPACITY - 4 * STAGE - TILE
    program = tl.program_id(0).to(tl.int64)
    buffer = buffers + program * CAPACITY
    staged = stages + program * (4 * STAGE)
    groups = stage_groups + program * STAGE
    for m in range(tl.program_id(0), rows, tl.num_programs(0)):
        start, end = tl.load(starts + m), tl.load(ends + m)
        row = scores + tl.cast(m, tl.int64) * stride * STEP
        target = out + tl.cast(m, tl.int64) * k
        if end - start <= k:
            places = tl.arange(0, K)
            tl.store(target + places, tl.where(places < end - start, start + places, -1), mask=places < k)
        else:
            lowest = tl.full((), -float("inf"), tl.float32)
            bound = lowest
            if end - start > tl.maximum(4 * k, SAMPLE):
                bound = _guess(row, start, end, k, buffer, SAMPLE, TILE)
            low = bound
            first = start // 32 * 32
            begin = first
            kept = 0
            while begin < end:
                count = 0
                while (begin < end) & (count <= STAGE - LANES * PARTS):
                    count = _stage(row, tl.multiple_of(begin, 32), start, end, low, staged, groups, count, PARTS, LANES)
                    begin += BLOCK
                tl.debug_barrier()
                kept = _unstage(staged, groups, count, low, buffer, kept, UNSTAGE, LANES)
                if (begin >= end) & (kept < k) & (low != lowest):
                    # The guess was too high: once more from the row's beginning, without a floor.
                    bound = lowest
                    low = lowest
                    begin = first
                    kept = 0
                elif (begin >= end) | (kept > FULL):
                    # The last tile is filled up with what no search counts and no column bound admits.
                    nothing = tl.full((TILE,), -float("inf"), tl.float32)
                    tl.store(
                        buffer + kept + tl.arange(0, TILE), _entry(nothing, tl.full((TILE,), 0x7FFFFFFF, tl.int32))
                    )
                    tl.debug_barrier()
                    kth, reached, above = _kth(buffer, kept, bound, k, 0, TILE)
                    tie = 0x7FFFFFFE
                    if reached > k:
                        tie = _tie_column(buffer, kept, kth, k - above, TILE)
                    kept = _select(buffer, kept, kth, tie, target, begin >= end, TILE, LANES)
                    bound = kth
                    low = _value(_key(kth) + 1)
                tl.debug_barrier()


@torch.library.custom_op("polymath::topk_rows", mutates_args=())
def topk_rows(scores: Tensor, k: int, starts: Tensor, ends: Tensor) -> Tensor:
    """The body of `kernels.topk.topk_rows` on CUDA; see there."""
    rows = len(scores)
    tiles = tuning.config("topk", f"k={triton.next_power_of_2(k)}", DEFAULT)
    lanes = 32 * tiles["warps"]
    stage = lanes * tiles["parts"] + tiles["stage"]
    capacity = max(2 * triton.next_power_of_2(k) + 4 * stage, tiles["sample"]) + tiles["tile"]
    programs = min(rows, tiles["programs"] * _processors(scores.device))
    out = scores.new_full((rows, k), -1, dtype=torch.int32)
    buffers = scores.new_empty(programs, capacity, dtype=torch.int64)
    staged = scores.new_empty(programs, 4 * stage)
    groups = scores.new_empty(programs, stage, dtype=torch.int32)
    # Reads of 16 bytes need rows that all begin at a multiple of 16 bytes.
    step = 4 if scores.stride(0) % 4 == 0 and scores.data_ptr() % 16 == 0 else 1
    if programs:
        _topk_kernel[(programs,)](
            scores, scores.stride(0) // step, starts, ends, out, buffers, staged, groups, rows, k,
            STEP=step, SAMPLE=tiles["sample"], CAPACITY=capacity, STAGE=stage, K=triton.next_power_of_2(k),
            PARTS=tiles["parts"], UNSTAGE=tiles["unstage"], TILE=tiles["tile"], LANES=lanes,
            num_warps=tiles["warps"], maxnreg=tiles["registers"],
        )  # fmt: skip
    return out


@topk_rows.register_fake
def _(scores: Tensor, k: int, starts: Tensor, ends: Tensor) -> Tensor:
    return scores.new_empty((len(scores), k), dtype=torch.int32)


def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1
