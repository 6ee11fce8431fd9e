"""Operators of DeepSeek Sparse Attention.

Each public function is the one door to its operator. In the door's file stands the torch reference: the definition of
what is computed, on any device and in float64, and the oracle of every faster body. On CUDA the door takes the Triton
body (`*_triton.py`) or the Hopper body (`*_gluon.py`) beside it; callers never choose. The operators in block layout
(`tiles.py`) are for CPUs, those in row layout (`rows.py`) for GPUs.
"""

from kernels.block_mla import block_mla_attention
from kernels.cached_mla import cached_mla_attention
from kernels.decode import dense_mla_decode, sparse_mla_decode
from kernels.dense_mla import dense_mla_attention
from kernels.indexer import indexer_logits, indexer_logits_decode, indexer_logits_fp8, indexer_logits_rows
from kernels.indexer_kl import block_indexer_kl, head_summed_target
from kernels.kl_rows import head_summed_target_rows, indexer_kl_rows, sparse_indexer_kl_rows
from kernels.logprob import token_logprob
from kernels.quantize import dequantize_latent, quantize_fp8, quantize_latent
from kernels.rows import RowRanges, select_rows
from kernels.sparse_mla import sparse_mla_attention
from kernels.tiles import Group, Selection, Tile, tiles
from kernels.topk import topk_indices, topk_mask, topk_rows

__all__ = [
    "Group",
    "RowRanges",
    "Selection",
    "Tile",
    "block_indexer_kl",
    "block_mla_attention",
    "cached_mla_attention",
    "dense_mla_attention",
    "dense_mla_decode",
    "dequantize_latent",
    "head_summed_target",
    "head_summed_target_rows",
    "indexer_kl_rows",
    "indexer_logits",
    "indexer_logits_decode",
    "indexer_logits_fp8",
    "indexer_logits_rows",
    "quantize_fp8",
    "quantize_latent",
    "select_rows",
    "sparse_indexer_kl_rows",
    "sparse_mla_attention",
    "sparse_mla_decode",
    "tiles",
    "token_logprob",
    "topk_indices",
    "topk_mask",
    "topk_rows",
]
