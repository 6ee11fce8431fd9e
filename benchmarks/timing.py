"""Time and memory of a call, and what the device can do at best.

Contenders take turns, so that clocks and temperature are the same for all. Before each call the L2 cache is emptied,
as a layer of a model finds it, and the GPU is kept busy while the call is queued: what is timed is the work on the GPU
and not Python's launches, which CUDA graphs remove in production on both sides.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

L2_BYTES = 256 * 2**20
CYCLES_PER_MS = 1_800_000  # of the GPU's clock
QUEUE_MS = 0.5, 20.0  # least and most time for which the GPU is kept busy while a call is queued
GEMM_SIZE = 8192
COPY_BYTES = 4 * 2**30
SHOWN = 8  # kernels of a profile


@dataclass(frozen=True)
class Ceilings:
    """Best rates of the device: a copy counts what is read and what is written; matrix products are square."""

    copy_tbs: float
    bf16_tflops: float
    fp8_tflops: float | None


def first_call(call: Callable[[], Any]) -> tuple[Any, float, int | None]:
    """The result; the seconds that it took, compilation included; and the most bytes that the call held on the device
    beyond its inputs and its result (None on a CPU)."""
    synchronize()
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    result = call()
    synchronize()
    seconds = time.perf_counter() - start
    scratch = torch.cuda.max_memory_allocated() - torch.cuda.memory_allocated() if cuda else None
    return result, seconds, scratch


def take_turns(calls: Mapping[str, Callable[[], Any]], seconds: float = 1.0, most: int = 50) -> dict[str, float]:
    """Median milliseconds of each call. Every one has run before and is compiled. At least 3 rounds, or 2 that take
    twice `seconds`; at most `most`; no round begins after `seconds`."""
    flush = torch.empty(L2_BYTES if torch.cuda.is_available() else 0, dtype=torch.int8, device=device())
    times: dict[str, list[float]] = {name: [] for name in calls}
    queue_ms = dict.fromkeys(calls, QUEUE_MS[0])
    begin = time.perf_counter()
    for done in range(most):
        spent = time.perf_counter() - begin
        if (done >= 3 and spent > seconds) or (done >= 2 and spent > 2 * seconds):
            break
        for name, call in calls.items():
            ms, host_ms = _timed(call, flush, queue_ms[name])
            times[name].append(ms)
            queue_ms[name] = min(max(2 * host_ms, QUEUE_MS[0]), QUEUE_MS[1])
    return {name: statistics.median(values) for name, values in times.items()}


def _timed(call: Callable[[], Any], flush: torch.Tensor, queue_ms: float) -> tuple[float, float]:
    """Milliseconds of the call on the device, and those that Python took to launch it."""
    if torch.cuda.is_available():
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        flush.zero_()
        torch.cuda._sleep(int(queue_ms * CYCLES_PER_MS))
        begin.record()
    start = time.perf_counter()
    call()
    host_ms = (time.perf_counter() - start) * 1e3
    if not torch.cuda.is_available():
        return host_ms, host_ms
    end.record()
    end.synchronize()
    return begin.elapsed_time(end), host_ms


def kernel_times(call: Callable[[], Any]) -> dict[str, float]:
    """Milliseconds of the kernels that a call launches, by name, longest first; {} on a CPU."""
    if not torch.cuda.is_available():
        return {}
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        call()
        synchronize()
    times = {event.key[:80]: event.self_device_time_total / 1e3 for event in profile.key_averages()}
    return dict(sorted(((name, ms) for name, ms in times.items() if ms > 0), key=lambda item: -item[1])[:SHOWN])


def measure_ceilings() -> Ceilings:
    """A copy of 2 GiB to 2 GiB, and matrix products of 8192^3 on random data (zeros would clock higher)."""
    cuda = torch.cuda.is_available()
    size, count = (GEMM_SIZE, COPY_BYTES // 4) if cuda else (128, 2**20)
    source, target = (torch.empty(count // 2, dtype=torch.float32, device=device()).normal_() for _ in range(2))
    a, b = (torch.randn(size, size, dtype=torch.bfloat16, device=device()) for _ in range(2))
    calls: dict[str, Callable[[], Any]] = {"copy": lambda: target.copy_(source), "bf16": lambda: a @ b}
    if cuda and torch.cuda.get_device_capability() >= (8, 9):
        one = torch.ones((), device=device())
        a8, b8 = a.to(torch.float8_e4m3fn), b.t().contiguous().to(torch.float8_e4m3fn).t()
        calls["fp8"] = lambda: torch._scaled_mm(a8, b8, one, one, out_dtype=torch.bfloat16, use_fast_accum=True)
    for call in calls.values():
        call()
    ms = take_turns(calls, seconds=0.5)
    product = 2 * size**3 / 1e9
    return Ceilings(
        copy_tbs=2 * source.nbytes / ms["copy"] / 1e9,
        bf16_tflops=product / ms["bf16"],
        fp8_tflops=product / ms["fp8"] if "fp8" in ms else None,
    )


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def free_memory() -> None:
    """Gives back what the last case held, so that the next finds the whole device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
