"""Small layers: RMSNorm and the SwiGLU MLP."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last dimension (arXiv 1910.07467), computed in float32 for half precision.

    Forward and backward are our own on CPU: there torch's are chains of elementwise passes that cost as much as a
    projection. Other devices have a fused kernel.
    """

    def __init__(self, size: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64):
            if torch.is_grad_enabled():
                return _RMSNorm.apply(x, self.weight, self.eps)
            return (x * _inverse_rms(x, self.eps)).mul_(self.weight)
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


def _inverse_rms(x: Tensor, eps: float) -> Tensor:
    """(mean(x^2) + eps)^-1/2 over the last dimension, which is kept."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return torch.addcmul(x.new_full((), eps), norm, norm, value=1 / x.shape[-1]).rsqrt_()


class _RMSNorm(torch.autograd.Function):
    """y = x r w with r = (mean(x^2) + eps)^-1/2;  dx = r (g w - x r^2 mean(g w x))."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        inverse = _inverse_rms(x, eps)
        ctx.save_for_backward(x, weight, inverse)
        return (x * inverse).mul_(weight)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple:  # type: ignore[override]
        x, weight, inverse = ctx.saved_tensors
        product = grad * x
        # mean(g w x) and sum_t(g x r) are matrix-vector products over one shared elementwise product.
        dots = (product @ weight).unsqueeze(-1).div_(x.shape[-1])
        grad_weight = (product.t() @ inverse.flatten()) if ctx.needs_input_grad[1] else None
        grad_x = (grad * weight).addcmul_(x, dots.mul_(inverse.square()), value=-1).mul_(inverse)
        return grad_x, grad_weight, None


class MLP(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x)), [R, D] -> [R, D]."""

    def __init__(self, config: Any, intermediate_size: int | None = None) -> None:
        super().__init__()
        size = intermediate_size or config.intermediate_size
        self.gate_proj = nn.Linear(config.hidden_size, size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, size, bias=False)
        self.down_proj = nn.Linear(size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
