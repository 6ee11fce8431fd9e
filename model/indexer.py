"""The lightning indexer: which keys each query attends to."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kernels import Selection, indexer_logits, tiles, topk_mask
from kernels.block_mla import GATHER_RATIO
from model.rope import RopeTables


class Indexer(nn.Module):
    """Index queries from the q-lora latent, one index key and J head weights from the layer input
    (DeepSeek-V3.2, 2.1)."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.heads, self.dim, self.topk = config.index_n_heads, config.index_head_dim, config.index_topk
        self.wq_b = nn.Linear(config.q_lora_rank, self.heads * self.dim, bias=False)
        self.wk = nn.Linear(config.hidden_size, self.dim, bias=False)
        # A LayerNorm with bias and its own eps, unlike every other norm of the model.
        self.k_norm = nn.LayerNorm(self.dim, eps=1e-6)
        self.weights_proj = nn.Linear(config.hidden_size, self.heads, bias=False)

    def keys(self, x: Tensor, rope: RopeTables) -> Tensor:
        """Layer input x [R, D] -> index keys [R, d]."""
        return rope.rotate_halves(self.k_norm(self.wk(x)).unsqueeze(1)).squeeze(1)

    def queries(self, x: Tensor, q_latent: Tensor, rope: RopeTables) -> tuple[Tensor, Tensor]:
        """x [R, D], q_latent [R, q_lora] -> queries [R, J, d] and head weights [R, J] with both scales folded
        in.

        The head weights and their product are float32 even in a bf16 model: they scale every score of a row.
        """
        q = rope.rotate_halves(self.wq_b(q_latent).unflatten(-1, (self.heads, self.dim)))
        wide = torch.float64 if x.dtype == torch.float64 else torch.float32
        weights = F.linear(x.to(wide), self.weights_proj.weight.to(wide))
        return q, weights * (self.heads * self.dim) ** -0.5

    @torch.no_grad()
    def select_blocks(self, q: Tensor, k: Tensor, weights: Tensor, groups: tuple) -> list[Selection | None]:
        """The selection of every tile of a packed batch in block layout; None where every visible key is
        selected."""
        chosen: list[Selection | None] = []
        for tile in tiles(groups):
            if tile.stop <= self.topk:
                chosen.append(None)
                continue
            scores = indexer_logits(tile.queries(q), tile.keys(k), tile.queries(weights))
            scores[..., tile.start :] += tile.causal_bias(scores)
            mask = topk_mask(scores, self.topk)
            if tile.start >= self.topk and tile.stop > GATHER_RATIO * self.topk:
                # Every row has exactly topk keys, and nonzero() lists them row by row, ascending.
                indices = mask.nonzero()[:, 2].view(*mask.shape[:2], self.topk)
                chosen.append(Selection(indices=indices))
            else:
                chosen.append(Selection(mask=mask))
        return chosen
