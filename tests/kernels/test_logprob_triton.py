"""The GPU's token log-probabilities in Triton's interpreter, against float64."""

import pytest
import torch
from torch import Tensor

import kernels.kept_logprob_triton as kept_body
import kernels.logprob_triton as body
from kernels.logprob import token_logprob

TILES = {"BM": 16, "BN": 32, "BK": 16, "num_warps": 4, "num_stages": 2}


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body.tuning, "config", lambda *_: TILES)
    monkeypatch.setattr(body, "SPLITS", 3)
    monkeypatch.setattr(body, "CHUNK_BYTES", 4000)


def make(rows: int, width: int, vocabulary: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows)
    hidden = torch.randn(rows, width, generator=generator).requires_grad_()
    weight = torch.randn(vocabulary, width, generator=generator).mul_(0.5).requires_grad_()
    return hidden, weight, torch.randint(0, vocabulary, (rows,), generator=generator)


def random_sets(targets: Tensor, vocabulary: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    sets = []
    for target in targets.tolist():
        size = int(torch.randint(0, 20, (1,), generator=generator))
        others = torch.randperm(vocabulary, generator=generator)[:size].tolist()
        sets.append([token for token in others if token != target] + [target])
    offsets = torch.tensor([0, *(len(s) for s in sets)]).cumsum(0).int()
    return offsets, torch.tensor([token for s in sets for token in s], dtype=torch.int32)


def close(got: Tensor, expected: Tensor, bound: float = 3e-6) -> None:
    assert torch.isfinite(got).all()
    assert (got.double() - expected).norm() <= bound * expected.norm() + bound


@pytest.mark.parametrize("with_entropy", [False, True])
@pytest.mark.parametrize(("rows", "width", "vocabulary"), [(5, 24, 100), (20, 30, 257)])
def test_values_and_gradients(rows: int, width: int, vocabulary: int, with_entropy: bool) -> None:
    hidden, weight, targets = make(rows, width, vocabulary)
    double = [x.detach().double().requires_grad_() for x in (hidden, weight)]
    log_p = (double[0] @ double[1].t() / 0.7).log_softmax(-1)
    expected = [log_p.gather(1, targets[:, None])[:, 0], -(log_p.exp() * log_p).sum(-1)]
    logprob, entropy, _ = body.token_logprob(hidden, weight, targets, 0.7, with_entropy)
    close(logprob, expected[0])
    upstream = torch.linspace(-1, 1, rows)
    loss, expected_loss = (logprob * upstream).sum(), (expected[0] * upstream).sum()
    if with_entropy:
        close(entropy, expected[1])
        loss, expected_loss = (
            loss + (entropy * upstream.flip(0)).sum(),
            expected_loss + (expected[1] * upstream.flip(0)).sum(),
        )
    for got, want in zip(
        torch.autograd.grad(loss, (hidden, weight)), torch.autograd.grad(expected_loss, double), strict=True
    ):
        close(got, want)


def test_a_row_does_not_depend_on_its_companions() -> None:
    hidden, weight, targets = make(20, 24, 100)
    together = body.token_logprob(hidden, weight, targets, 1.0, True)
    alone = body.token_logprob(hidden[17:18], weight, targets[17:18], 1.0, True)
    assert all(torch.equal(a[17:18], b) for a, b in zip(together, alone, strict=True))


def test_only_the_gradients_that_are_needed() -> None:
    hidden, weight, targets = make(5, 24, 100)
    both = torch.autograd.grad(body.token_logprob(hidden, weight, targets, 1.0, False)[0].sum(), (hidden, weight))
    for i, inputs in enumerate(((hidden, weight.detach()), (hidden.detach(), weight))):
        logprob, *_ = body.token_logprob(*inputs, targets, 1.0, False)
        assert torch.equal(torch.autograd.grad(logprob.sum(), inputs[i])[0], both[i])


def test_kept_sets() -> None:
    hidden, weight, targets = make(9, 40, 57)
    kept = random_sets(targets, 57)
    double = [x.detach().double().requires_grad_() for x in (hidden, weight)]
    expected = token_logprob(double[0], double[1], targets, 0.7, True, kept)
    logprob, entropy, *_ = kept_body.kept_logprob(hidden, weight, targets, 0.7, *kept)
    upstream = torch.linspace(-2, 2, 9)
    close(logprob, expected[0])
    close(entropy, expected[1])
    loss = (logprob * upstream + entropy * upstream.flip(0)).sum()
    expected_loss = (expected[0] * upstream + expected[1] * upstream.flip(0)).sum()
    for got, want in zip(
        torch.autograd.grad(loss, (hidden, weight)), torch.autograd.grad(expected_loss, double), strict=True
    ):
        close(got, want)


def test_operators_keep_the_rules_of_compilation() -> None:
    hidden, weight, targets = make(5, 24, 100)
    torch.library.opcheck(body.token_logprob, (hidden, weight, targets, 1.0, True))
    torch.library.opcheck(kept_body.kept_logprob, (hidden, weight, targets, 1.0, *random_sets(targets, 100)))


def test_kept_reference_by_hand_and_gradcheck() -> None:
    hidden, weight, targets = (x.double() if x.is_floating_point() else x for x in make(6, 4, 11))
    hidden, weight = hidden.detach().requires_grad_(), weight.detach().requires_grad_()
    kept = random_sets(targets, 11)
    logprob, entropy = token_logprob(hidden, weight, targets, 1.3, True, kept)
    for t in range(6):
        own = kept[1][kept[0][t] : kept[0][t + 1]].long()
        log_p = (hidden[t] @ weight[own].t() / 1.3).log_softmax(-1)
        torch.testing.assert_close(logprob[t], log_p[own == targets[t]][0])
        torch.testing.assert_close(entropy[t], -(log_p.exp() * log_p).sum())
    assert torch.autograd.gradcheck(lambda h, w: token_logprob(h, w, targets, 1.3, True, kept), (hidden, weight))


def test_refuses_a_target_outside_its_set_and_wrong_offsets() -> None:
    hidden, weight, targets = make(2, 4, 11)
    kept = torch.tensor([0, 1, 2]), torch.stack([targets[0], targets[1] + 1]).int() % 11
    with pytest.raises(ValueError, match="of row 1 is not in the row's kept set"):
        token_logprob(hidden, weight, targets, 1.0, False, kept)
    with pytest.raises(ValueError, match="2 hidden states need 3 offsets of kept sets, not 2"):
        token_logprob(hidden, weight, targets, 1.0, False, (kept[0][:2], kept[1]))
