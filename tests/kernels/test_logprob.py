"""Chunked token log-probability and entropy against the full softmax."""

import pytest
import torch

from kernels import token_logprob


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_values_and_gradcheck(temperature: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kernels.logprob.LOGIT_CHUNK", 3)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(7, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    weight = torch.randn(11, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    targets = torch.randint(0, 11, (7,), generator=generator)
    log_p = (hidden @ weight.t() / temperature).log_softmax(-1)
    logprob, entropy = token_logprob(hidden, weight, targets, temperature, with_entropy=True)
    torch.testing.assert_close(logprob, log_p.gather(1, targets[:, None])[:, 0])
    torch.testing.assert_close(entropy, -(log_p.exp() * log_p).sum(-1))
    for pick in (lambda x: x, lambda x: x[0], lambda x: x[1]):
        assert torch.autograd.gradcheck(
            lambda h, w, pick=pick: pick(token_logprob(h, w, targets, temperature, with_entropy=True)),
            (hidden, weight),
        )
    assert torch.autograd.gradcheck(lambda h, w: token_logprob(h, w, targets, temperature)[0], (hidden, weight))


def test_refuses_temperature_zero_and_wrong_lengths() -> None:
    hidden, weight = torch.zeros(2, 3), torch.zeros(5, 3)
    with pytest.raises(ValueError, match="temperature must be > 0"):
        token_logprob(hidden, weight, torch.zeros(2, dtype=torch.long), 0.0)
    with pytest.raises(ValueError, match="2 hidden states but 3 targets"):
        token_logprob(hidden, weight, torch.zeros(3, dtype=torch.long))
