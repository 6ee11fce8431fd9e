"""What the launches of hand-pipelined kernels share: layouts of shared memory, TMA descriptors, the size of the GPU."""

from __future__ import annotations

import torch
from torch import Tensor
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

SWIZZLED = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=2)
SWIZZLED_64 = gl.NVMMASharedLayout(swizzle_byte_width=64, element_bitwidth=16, rank=2)


def descriptor(rows: Tensor, block: list[int], layout: gl.NVMMASharedLayout = SWIZZLED) -> TensorDescriptor:
    """Of all leading dimensions as one, [rows, columns], in tiles of `block`."""
    return TensorDescriptor.from_tensor(rows.view(-1, rows.shape[-1]), block, layout)


def processors(device: int) -> int:
    """Streaming multiprocessors of a GPU."""
    return torch.cuda.get_device_properties(device).multi_processor_count
