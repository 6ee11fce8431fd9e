"""DeepSeek's mixture of experts: sigmoid router with a selection bias and groups, routed and shared
experts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.layers import MLP


class Router(nn.Module):
    """Picks experts by sigmoid score plus bias, weights them by the score alone (DeepSeek-V3, section 2.1.2).

    The bias balances load without a loss; it steers the choice only, never the weight, and gets no gradient.
    """

    e_score_correction_bias: Tensor

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.groups, self.kept_groups = config.n_group, config.topk_group
        self.experts_per_token, self.normalise = config.num_experts_per_tok, config.norm_topk_prob
        self.scaling = config.routed_scaling_factor
        self.weight = nn.Parameter(torch.empty(config.n_routed_experts, config.hidden_size))
        self.register_buffer("e_score_correction_bias", torch.zeros(config.n_routed_experts))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x [R, D] -> expert ids [R, K] int64 and weights [R, K] in at least float32."""
        wide = torch.float64 if x.dtype == torch.float64 else torch.float32
        scores = F.linear(x.to(wide), self.weight.to(wide)).sigmoid()
        with torch.no_grad():
            choice = (scores + self.e_score_correction_bias).unflatten(-1, (self.groups, -1))
            # A group counts by its two best experts.
            kept = choice.topk(min(2, choice.shape[-1]), dim=-1).values.sum(-1).topk(self.kept_groups, dim=-1).indices
            hidden = torch.ones_like(choice[..., 0], dtype=torch.bool).scatter_(-1, kept, False)
            choice = choice.masked_fill(hidden.unsqueeze(-1), -torch.inf).flatten(-2)
            experts = choice.topk(self.experts_per_token, dim=-1, sorted=False).indices
        weights = scores.gather(-1, experts)
        if self.normalise:
            weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
        return experts, weights * self.scaling


class Experts(nn.Module):
    """Routed SwiGLU experts, stacked: gate_up_proj [E, 2I, D], down_proj [E, D, I]. On disk they are
    apart."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        count, size, hidden = config.n_routed_experts, config.moe_intermediate_size, config.hidden_size
        self.gate_up_proj = nn.Parameter(torch.empty(count, 2 * size, hidden))
        self.down_proj = nn.Parameter(torch.empty(count, hidden, size))
        self.register_load_state_dict_pre_hook(_stack_experts)

    def forward(self, x: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
        """Weighted sum of each row's experts: x [R, D], experts and weights [R, K] -> [R, D]."""
        # Rows sorted by expert, so that each expert is one product over a contiguous slice.
        flat = experts.flatten()
        order = flat.argsort(stable=True)
        row = order // experts.shape[1]
        counts = torch.bincount(flat, minlength=len(self.down_proj)).tolist()
        parts = []
        for expert, rows in enumerate(x.index_select(0, row).split(counts)):
            if len(rows):
                gate, up = F.linear(rows, self.gate_up_proj[expert]).chunk(2, dim=-1)
                parts.append(F.linear(F.silu(gate) * up, self.down_proj[expert]))
        weighted = torch.cat(parts) * weights.flatten()[order].unsqueeze(-1).to(x.dtype)
        return torch.zeros_like(x).index_add(0, row, weighted)


def _stack_experts(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Lets `load_state_dict` take the names on disk: transformers' Trainer resumes a checkpoint that way, and
    would otherwise only warn that it left the experts as they were."""
    if f"{prefix}0.gate_proj.weight" not in state:
        return
    count = len(module.down_proj)  # type: ignore[arg-type]

    def take(kind: str) -> Tensor:
        return torch.stack([state.pop(f"{prefix}{expert}.{kind}_proj.weight") for expert in range(count)])

    state[f"{prefix}gate_up_proj"] = torch.cat([take("gate"), take("up")], dim=1)
    state[f"{prefix}down_proj"] = take("down")


class MoE(nn.Module):
    """Routed experts plus shared experts, [R, D] -> [R, D]."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.gate = Router(config)
        self.experts = Experts(config)
        self.shared_experts = MLP(config, config.moe_intermediate_size * config.n_shared_experts)

    def forward(self, x: Tensor) -> Tensor:
        experts, weights = self.gate(x)
        return self.experts(x, experts, weights) + self.shared_experts(x)
