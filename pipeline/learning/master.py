"""float32 twins of half-precision weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn


class MasterWeights:
    """Gradients gather in float32 twins, the optimizer moves the twins, and `publish` rounds them into the model.

    bfloat16 has 8 bits: a step of 7e-6 on a weight of 0.02 is below half of its last place and would be lost, like a
    small gradient that is added to the sum of hundreds. Parameters in float32 are their own twins. Source:
    P. Micikevicius et al., "Mixed Precision Training" (arXiv:1710.03740), section 3.1.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self._twins: dict[nn.Parameter, nn.Parameter] = {}
        for parameter in parameters:
            if parameter.requires_grad and parameter.dtype in (torch.bfloat16, torch.float16):
                self._twins[parameter] = nn.Parameter(parameter.detach().float())
                parameter.register_post_accumulate_grad_hook(self._gather)

    def of(self, parameters: Sequence[nn.Parameter]) -> list[nn.Parameter]:
        """What an optimizer trains in the place of the parameters."""
        return [self._twins.get(parameter, parameter) for parameter in parameters]

    def _gather(self, parameter: Tensor) -> None:
        assert isinstance(parameter, nn.Parameter) and parameter.grad is not None
        twin = self._twins[parameter]
        if twin.grad is None:
            twin.grad = parameter.grad.float()
        else:
            twin.grad += parameter.grad
        parameter.grad = None

    @torch.no_grad()
    def publish(self) -> None:
        """Makes the model's weights those of the twins."""
        for parameter, twin in self._twins.items():
            parameter.copy_(twin)

    def state(self) -> list[Tensor]:
        return [twin.detach() for twin in self._twins.values()]

    @torch.no_grad()
    def load(self, state: Sequence[Tensor]) -> None:
        """Takes over what `state` gave."""
        for twin, saved in zip(self._twins.values(), state, strict=True):
            twin.copy_(saved)
