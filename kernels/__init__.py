"""Reference operators of DeepSeek Sparse Attention, in plain torch.

Each public function here is the one door to its operator and the definition of what it computes: it runs on any
device and in float64, so that it is the oracle for every faster body. A faster body for a device (a Triton kernel)
belongs beside its reference and is picked inside the public function by `tensor.device.type`; callers never choose.
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
