"""Operators of DeepSeek Sparse Attention.

Each public function is the one door to its operator. In the door's file stands the torch reference: the definition of
what is computed, on any device and in float64, and the oracle of every faster body. On CUDA the door takes the Triton
body (`*_triton.py`) or the Hopper body (`*_gluon.py`) beside it; callers never choose. The operators in block layout
(`tiles.py`) are for CPUs, those in row layout (`rows.py`) for GPUs.
"""

from kernels.block_mla import block_mla_attention
from kernels.cached_mla import cached_mla_attention
from kernels.indexer import indexer_logits
from kernels.indexer_kl import block_indexer_kl, head_summed_target
from kernels.logprob import token_logprob
from kernels.sparse_mla import sparse_mla_attention
from kernels.tiles import Group, Selection, Tile, tiles
from kernels.topk import topk_indices, topk_mask

__all__ = [
    "Group",
    "Selection",
    "Tile",
    "block_indexer_kl",
    "block_mla_attention",
    "cached_mla_attention",
    "head_summed_target",
    "indexer_logits",
    "sparse_mla_attention",
    "tiles",
    "token_logprob",
    "topk_indices",
    "topk_mask",
]
