"""Which body of an operator a tensor gets."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor


def use_triton(tensor: Tensor) -> bool:
    """Whether a Triton body takes this tensor: on CUDA in any precision but float64, which is the oracle's."""
    return tensor.is_cuda and tensor.dtype != torch.float64


def is_hopper(tensor: Tensor) -> bool:
    """Whether hand-pipelined Hopper bodies (wgmma, compute capability 9.0) run where this tensor lies."""
    return tensor.is_cuda and _capability(tensor.device.index) == (9, 0)


@cache
def _capability(index: int) -> tuple[int, int]:
    return torch.cuda.get_device_capability(index)
