"""What a row of `python -m benchmarks.kernels` is: sizes, targets, and the calls that are measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from benchmarks.rivals import Call


@dataclass(frozen=True)
class Size:
    """How large the canonical shapes are. Head counts and head sizes are always those of the 671B model."""

    queries: int = 4096
    keys: int = 131072
    short_keys: int = 32768
    k: int = 2048
    batch: int = 128
    cached: int = 32768  # tokens of a sequence in the latent cache; k of them are read
    kl_queries: int = 512
    tokens: int = 4096
    hidden: int = 7168
    vocabulary: int = 129280
    layer_lengths: tuple[int, ...] = (32768, 65536, 131072)
    checked: int = 16  # rows that are compared with float64


FULL = Size()
QUICK = Size(queries=1024, cached=8192, tokens=1024, layer_lengths=(16384,), checked=4)
TOY = Size(
    queries=8, keys=128, short_keys=64, k=32, batch=2, cached=64, kl_queries=4, tokens=8, hidden=32, vocabulary=64,
    layer_lengths=(64,), checked=2,
)  # fmt: skip


@dataclass(frozen=True)
class Goal:
    """A target: at least `value` times the rival's speed (`ratio`), TFLOPS or TB/s (`rate`) or of the ceiling
    (`share`), or at most `value` times the time to read the input once (`passes`). `same_bits`: and two runs agree bit
    for bit; `scratch`: and no more bytes than this beside inputs and result."""

    kind: Literal["ratio", "rate", "share", "passes"]
    value: float
    same_bits: bool = False
    scratch: int | None = None


@dataclass(frozen=True)
class Row:
    """One line of the table.

    work: FLOP of one call, or bytes that it must move at least. ceiling: which of the device's best rates that is
    compared with. error: of ours, and with `same_output` of the rivals, against float64; inf when it is not finite.
    noted: milliseconds of the named rival as measured on one H200 on 2026-11-22, for when it does not start.
    """

    title: str
    shape: str
    unit: Literal["TFLOPS", "TB/s"]
    work: float
    ceiling: Literal["bf16", "fp8", "copy"]
    ours: Call
    error: Callable[[Any], float]
    rivals: Mapping[str, Callable[[], Call]] = field(default_factory=dict)
    must: Goal | None = None
    aim: Goal | None = None
    noted: tuple[str, float] | None = None
    same_output: bool = True
