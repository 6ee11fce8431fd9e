"""The products of the sparse MLA backward on Hopper: which shapes they are made for, and the three in order."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.gluon_launch import processors
from kernels.sparse_mla_partials_gluon import partials
from kernels.sparse_mla_query_gradient_gluon import query_gradient
from kernels.sparse_mla_scores_gluon import scores

__all__ = ["partials", "query_gradient", "scores", "takes", "whole_waves"]


def takes(q: Tensor, slots: int, value_dim: int) -> bool:
    """Whether these kernels are made for the shape: DeepSeek-V3's heads and latent, bf16, whole tiles of slots."""
    return q.dtype == torch.bfloat16 and q.shape[1:] == (128, 576) and value_dim == 512 and slots % 128 == 0


def whole_waves(queries: int, device: int) -> int:
    """The largest number of queries up to `queries` whose units keep every processor busy to the end."""
    return queries - queries % processors(device) or queries
