"""The cost curves at toy sizes: what is found and drawn, never how fast anything is."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import pytest
import torch

from benchmarks import dsa_cost, timing
from benchmarks.dsa_cost_plot import draw

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="toy sizes are for a CPU")


@pytest.fixture(scope="module")
def result() -> dict:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dsa_cost, "take_turns", partial(timing.take_turns, most=1))
        return dsa_cost.measure(dsa_cost.Size(positions=(32, 64), chunk=8, batch=2, k=32))


def test_both_phases_have_dense_and_dsa_at_every_position(result: dict) -> None:
    for phase, dense in (("prefill", "dense, FlashAttention-2"), ("decode", "dense, ours FP8")):
        assert [p["position"] for p in result[phase]["points"]] == [32, 64]
        assert all(p["dsa"] > 0 and p[dense] > 0 for p in result[phase]["points"])


def test_the_report_says_that_dsa_alone_costs_memory(result: dict) -> None:
    report = dsa_cost.report(result)
    assert "| DSA, FP8 latent + FP8 index | 788 | -31.6 % |" in report
    assert "| DSA, BF16 latent + BF16 index | 1408 | +22.2 % |" in report
    assert "DSA by itself costs memory" in report


def test_it_is_drawn(result: dict, tmp_path: Path) -> None:
    files = draw(result, tmp_path / "cost.json")
    assert [file.suffix for file in files] == [".png", ".svg"]
    assert all(file.stat().st_size > 1000 for file in files)


def test_crossover_is_where_the_curves_meet() -> None:
    points = [(p, 2.0 * p, 100.0 * math.sqrt(p)) for p in (1024, 2048, 4096)]
    assert dsa_cost.crossover(points) == pytest.approx(2500, rel=1e-6)
    assert dsa_cost.crossover([(1, 2.0, 1.0), (2, 3.0, 1.0)]) == 0
    assert dsa_cost.crossover([(1, 2.0, 1.0), (2, 1.0, 3.0)]) is None
