"""Token log-probabilities on the GPU: error, identities, bits, memory, compilation and graphs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kernels.logprob import token_logprob

Report = Callable[[str, bool, str], None]

# Relative Frobenius error against float64 on the same inputs. The gradient of the logits is rounded to the dtype of the
# inputs before its two products, and so are the gradients themselves.
FORWARD_BOUND = {torch.float32: 2e-6, torch.float16: 2e-6, torch.bfloat16: 2e-6}
BACKWARD_BOUND = {torch.float32: 3e-6, torch.float16: 1e-3, torch.bfloat16: 6e-3}
SHAPES = [(130, 64, 1000), (33, 30, 257), (300, 512, 5000)]


def check_logprob(report: Report) -> None:
    """Every check of this module."""
    for check in (_errors, _identities, _bits, _memory, _compiled, _graph):
        torch.manual_seed(0)
        check(report)


def _problem(rows: int, width: int, vocabulary: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    hidden = torch.randn(rows, width, device="cuda").to(dtype)
    weight = (torch.randn(vocabulary, width, device="cuda") * 2 * width**-0.5).to(dtype)
    return hidden.requires_grad_(), weight.requires_grad_(), torch.randint(0, vocabulary, (rows,), device="cuda")


def _sets(targets: Tensor, vocabulary: int, most: int = 60) -> tuple[Tensor, Tensor]:
    """For each target a set of up to `most` tokens with it inside."""
    tokens = torch.rand(len(targets), vocabulary, device="cuda").argsort(1)[:, : most - 1]
    inside = torch.arange(most - 1, device="cuda") < torch.randint(0, most, (len(targets), 1), device="cuda")
    inside &= tokens != targets[:, None]
    tokens, inside = torch.cat([tokens, targets[:, None]], 1), torch.nn.functional.pad(inside, (0, 1), value=True)
    offsets = torch.nn.functional.pad(inside.sum(1).cumsum(0), (1, 0)).int()
    return offsets, tokens[inside].int()


def _error(got: Tensor | None, want: Tensor | None) -> float:
    assert got is not None and want is not None
    return ((got.double() - want).norm() / want.norm()).item()


def _errors(report: Report) -> None:
    for with_sets in (False, True):
        for dtype, bound in FORWARD_BOUND.items():
            forward = backward = 0.0
            for shape in SHAPES:
                hidden, weight, targets = _problem(*shape, dtype)
                kept = _sets(targets, shape[2]) if with_sets else None
                double = [x.detach().double().requires_grad_() for x in (hidden, weight)]
                got = token_logprob(hidden, weight, targets, 0.8, True, kept)
                want = token_logprob(double[0], double[1], targets, 0.8, True, kept)
                upstream = torch.randn(2, len(targets), device="cuda")
                grads = [
                    torch.autograd.grad(sum((x * u).sum() for x, u in zip(out, upstream, strict=True)), inputs)
                    for out, inputs in ((got, (hidden, weight)), (want, double))
                ]
                forward = max(forward, *(_error(a, b) for a, b in zip(got, want, strict=True)))
                backward = max(backward, *(_error(a, b) for a, b in zip(*grads, strict=True)))
            name = f"{dtype}{' over kept sets' if with_sets else ''}, {len(SHAPES)} shapes"
            report(f"token log-probability {name}", forward <= bound, f"error {forward:.1e} <= {bound:.0e}")
            limit = BACKWARD_BOUND[dtype]
            report(f"its gradient {name}", backward <= limit, f"error {backward:.1e} <= {limit:.0e}")


def _identities(report: Report) -> None:
    hidden, weight, _ = _problem(4, 64, 1000, torch.float32)
    every = torch.arange(1000, device="cuda")
    with torch.no_grad():
        logprob, _ = token_logprob(hidden[:1].expand(1000, -1), weight, every)
        entropy = token_logprob(hidden[:1], weight, every[:1], 1.0, True)[1]
        assert entropy is not None
        total, mean = logprob.double().exp().sum().item(), -(logprob.double().exp() * logprob).sum().item()
        whole = torch.arange(5, device="cuda", dtype=torch.int32) * 1000, every.int().repeat(4)
        over_all = token_logprob(hidden, weight, every[:4])[0] - token_logprob(hidden, weight, every[:4], kept=whole)[0]
        only = torch.arange(5, device="cuda", dtype=torch.int32), every[:4].int()
        alone = token_logprob(hidden, weight, every[:4], 1.0, True, only)
    report("probabilities sum to 1", abs(total - 1) < 1e-5, f"{total - 1:.1e}")
    report("entropy is the mean of -log p", abs(mean - entropy.item()) < 1e-5, f"{mean - entropy.item():.1e}")
    report("the set of all tokens changes nothing", over_all.abs().max().item() < 1e-5, f"{over_all.abs().max():.1e}")
    certain = all(x is not None and bool((x == 0).all()) for x in alone)
    report("the set of the target alone is certain", certain, "")


def _outputs(hidden: Tensor, weight: Tensor, targets: Tensor, kept: tuple[Tensor, Tensor] | None) -> list[Tensor]:
    logprob, entropy = token_logprob(hidden, weight, targets, 0.9, True, kept)
    assert entropy is not None
    grads = torch.autograd.grad((logprob + 0.1 * entropy).sum(), (hidden, weight))
    return [logprob.detach(), entropy.detach(), *grads]


def _bits(report: Report) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        hidden, weight, targets = _problem(500, 256, 6000, dtype)
        for kept in (None, _sets(targets, 6000)):
            name = f"token log-probability {dtype}{' over kept sets' if kept else ''}"
            first = _outputs(hidden, weight, targets, kept)
            repeats = all(
                torch.equal(a, b)
                for _ in range(25)
                for a, b in zip(_outputs(hidden, weight, targets, kept), first, strict=True)
            )
            report(f"{name}: 25 repeats bitwise", repeats, "forward and gradients")
            same = True
            for size in (1, 7, 128):
                for i in range(0, 500 if size > 1 else 20, size):
                    part = None
                    if kept is not None:
                        offsets = kept[0][i : i + size + 1]
                        part = offsets - offsets[0], kept[1][offsets[0] : offsets[-1]]
                    got = token_logprob(hidden[i : i + size], weight, targets[i : i + size], 0.9, True, part)
                    same &= all(
                        x is not None and torch.equal(x, y[i : i + size]) for x, y in zip(got, first[:2], strict=True)
                    )
            report(f"{name}: any chunk of rows, bitwise", same, "forward")


def _memory(report: Report) -> None:
    rows, width, vocabulary = 4096, 1024, 129_280
    hidden, weight, targets = _problem(rows, width, vocabulary, torch.bfloat16)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    with torch.no_grad():
        token_logprob(hidden, weight, targets, 1.0, True)
    forward = torch.cuda.max_memory_allocated() - before
    token_logprob(hidden, weight, targets)[0].sum().backward()
    backward = torch.cuda.max_memory_allocated() - before
    logits = rows * vocabulary * 2
    gradients = 2 * (weight.numel() + 2 * hidden.numel()) + 4 * hidden.numel()
    report("forward's memory beside the inputs", forward < logits / 50, f"{forward / 2**20:.0f} MiB")
    extra = backward - gradients
    # A chunk of the logits' gradient (256 MiB) and the matrix product's workspaces.
    report("backward's memory beside the gradients", extra < 400 * 2**20, f"{extra / 2**20:.0f} MiB < 400 MiB")


def _compiled(report: Report) -> None:
    hidden, weight, targets = _problem(64, 128, 2000, torch.float32)
    for kept in (None, _sets(targets, 2000)):
        compiled = torch.compile(
            lambda h, w, kept=kept: token_logprob(h, w, targets, 1.0, True, kept)[0] * 2, fullgraph=True
        )
        got, want = compiled(hidden, weight), token_logprob(hidden, weight, targets, 1.0, True, kept)[0] * 2
        same = torch.equal(got, want)
        for a, b in zip(*(torch.autograd.grad(x.sum(), (hidden, weight)) for x in (got, want)), strict=True):
            same &= torch.equal(a, b)
        report(f"token log-probability{' over kept sets' if kept else ''} under torch.compile", same, "")


def _graph(report: Report) -> None:
    hidden, weight, targets = _problem(64, 128, 2000, torch.float32)
    for kept in (None, _sets(targets, 2000)):
        _outputs(hidden, weight, targets, kept)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = _outputs(hidden, weight, targets, kept)
        with torch.no_grad():
            hidden.normal_()
        graph.replay()
        same = all(torch.equal(a, b) for a, b in zip(out, _outputs(hidden, weight, targets, kept), strict=True))
        report(f"token log-probability{' over kept sets' if kept else ''} in a CUDA graph", same, "with gradients")
