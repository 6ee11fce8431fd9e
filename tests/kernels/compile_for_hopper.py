"""Compiles what a step of the 671B attention shape launches on a Hopper GPU, on a machine without one.

It launches nothing. A program of its own: the tests' process has Triton in its interpreter. Prints Triton's version and
the names of the kernels that it compiled.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from types import SimpleNamespace
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

import kernels

COMPILED: set[str] = set()


class NoGpu:
    """A driver that answers what the compiler asks, for an H200."""

    utils = SimpleNamespace(
        get_device_properties=lambda device: {"max_shared_mem": 232448, "multiprocessor_count": 132, "warpSize": 32},
        load_binary=lambda *arguments: (None, None, 0, 0, 1024),
    )
    launcher_cls = None

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int = 0) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")


def compile_only() -> None:
    """Makes every launch a compilation, and every tensor one that the GPU bodies take."""
    driver.set_active(NoGpu())
    torch.cuda.get_device_properties = lambda *_: SimpleNamespace(  # type: ignore[assignment]
        multi_processor_count=132, shared_memory_per_block_optin=232448, L2_cache_size=60 * 2**20
    )
    run = JITFunction.run

    def compile_it(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        COMPILED.add(f"{self.fn.__module__.removeprefix('kernels.')}.{self.fn.__name__.strip('_')}")
        return run(self, *args, grid=grid, warmup=True, **kwargs)

    JITFunction.run = compile_it  # type: ignore[method-assign]
    for module in pkgutil.iter_modules(kernels.__path__):
        if not module.name.endswith(("_triton", "_gluon", "checks", "gluon_names", "dense_mla")):
            loaded = importlib.import_module(f"kernels.{module.name}")
            for question in ("use_triton", "is_hopper"):
                if hasattr(loaded, question):
                    setattr(loaded, question, lambda tensor: tensor.dtype != torch.float64)


def launch_all() -> None:
    """Each operator once, at 128 heads of 512 + 64, 64 index heads of 128, k 256."""
    queries, keys, heads, k = 64, 1024, 128, 256
    half = {"dtype": torch.bfloat16}
    starts, ends = torch.zeros(queries, dtype=torch.int32), torch.full((queries,), keys, dtype=torch.int32)
    q, kv = torch.zeros(queries, heads, 576, **half, requires_grad=True), torch.zeros(keys, 576, **half)
    kv.requires_grad_()
    indices = torch.arange(k, dtype=torch.int32).repeat(queries, 1)
    out, lse = kernels.sparse_mla_attention(q, kv, indices, 0.1, 512)
    out.sum().backward()
    with torch.no_grad():
        for cache in (kv, torch.zeros(keys, 656, dtype=torch.uint8)):
            kernels.sparse_mla_decode(q, cache, indices, 0.1, 512)
            kernels.dense_mla_decode(q, cache, starts, ends, keys, 0.1, 512)
    index_q = torch.zeros(queries, 64, 128, **half, requires_grad=True)
    index_k, weights = torch.zeros(keys, 128, **half), torch.zeros(queries, 64)
    index = index_q, index_k, weights
    scores = kernels.indexer_logits_rows(*index, starts, ends)
    kernels.indexer_logits_rows(*index, starts, ends, fp8=True, hadamard=True)
    kernels.topk_rows(scores.detach(), k, starts, ends)
    kernels.sparse_indexer_kl_rows(*index, q, kv, lse, indices, 0.1).backward()
    expanded = torch.zeros(queries, heads, 192, **half), torch.zeros(keys, heads, 128, **half)
    kernels.indexer_kl_rows(*index, *expanded, torch.zeros(keys, 64, **half), lse, starts, ends, 0.1).backward()
    weight = torch.zeros(1024, 256, **half)
    hidden = torch.zeros(queries, 256, **half, requires_grad=True)
    kernels.token_logprob(hidden, weight, torch.zeros(queries, dtype=torch.long))[0].sum().backward()


if __name__ == "__main__":
    compile_only()
    launch_all()
    print(triton.__version__, *sorted(COMPILED))
    sys.exit(0)
