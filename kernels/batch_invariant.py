"""Arithmetic in which a row's result does not depend on its companions.

A matrix product out of a library picks its tiles, and so the order of its sums, by the number of rows: one token
decoded alone and the same token in a packed batch differ in their last bits. Inside `batch_invariant()` products run
with one tile shape for every number of rows, and operators without a fixed order of sums take their deterministic
form. The operators of this package are batch invariant anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode


def _mm(a: Tensor, b: Tensor) -> Tensor:
    return _bmm(a.unsqueeze(0), b.unsqueeze(0))[0]


def _bmm(a: Tensor, b: Tensor) -> Tensor:
    from kernels.batch_invariant_triton import fixed_bmm

    return fixed_bmm(a, b)


_PRODUCTS: dict[Any, Callable[..., Tensor]] = {
    torch.ops.aten.mm.default: _mm,
    torch.ops.aten.addmm.default: lambda bias, a, b: _mm(a, b) + bias,
    torch.ops.aten.bmm.default: _bmm,
}
# In inference mode these come here whole.
_COMPOSITE = {torch.ops.aten.linear.default, torch.ops.aten.matmul.default}


@contextmanager
def batch_invariant() -> Iterator[None]:
    """Products on CUDA tensors are batch invariant inside. Raises `RuntimeError` where there is no CUDA device."""
    if not torch.cuda.is_available():
        raise RuntimeError("batch-invariant arithmetic is made for CUDA devices, and there is none here")
    was, warned = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        with _FixedTiles():
            yield
    finally:
        torch.use_deterministic_algorithms(was, warn_only=warned)


def is_active() -> bool:
    """Whether the caller is inside `batch_invariant()`."""
    return isinstance(_get_current_dispatch_mode(), _FixedTiles)


class _FixedTiles(TorchDispatchMode):
    """Sends matrix products to the kernel with fixed tiles, below autograd."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        body = _PRODUCTS.get(func)
        if body is not None and not kwargs and args[-1].is_cuda and args[-1].dtype != torch.float64:
            return body(*args)
        if func in _COMPOSITE:
            with self:
                return func.decompose(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))
