"""The benchmark programs at toy sizes: what they print and judge, never how fast anything is."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec

import pytest
import torch

from benchmarks import kernels, layer_rows, timing
from benchmarks.kernel_table import markdown, table
from benchmarks.row import TOY, Goal
from benchmarks.timing import Ceilings

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="toy sizes are for a CPU")
CEILINGS = Ceilings(copy_tbs=4.0, bf16_tflops=800.0, fp8_tflops=None)


@pytest.fixture(scope="module")
def result() -> dict:
    rows = {}
    with pytest.MonkeyPatch.context() as patch:
        for module in (kernels, layer_rows):
            patch.setattr(module, "take_turns", partial(timing.take_turns, most=1))
        for name, build in kernels.all_rows(TOY).items():
            rows[name] = kernels.figures(build(TOY), CEILINGS, seconds=0.1) | {"measured": {"ceilings": vars(CEILINGS)}}
    return {"device": "a CPU", "rows": rows}


def test_every_row_is_right_at_toy_size(result: dict) -> None:
    for name, row in result["rows"].items():
        assert row["ours"]["error"] < 1e-2, name
        assert row["ours"]["same_bits"], name


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")
def test_rivals_that_are_not_installed_are_reported_as_such(result: dict) -> None:
    assert result["rows"]["indexer_fp8"]["rivals"]["DeepGEMM"]["state"] == "not installed (vllm)"
    assert "DeepGEMM, indexer FP8: not installed (vllm)" in table(result)


def test_the_table_fits_a_terminal_and_has_every_row(result: dict) -> None:
    failed = {**result, "rows": {**result["rows"], "broken": {"failed": "RuntimeError: boom " + "x" * 200}}}
    lines = table(failed).splitlines()
    assert max(map(len, lines)) <= 120
    assert any(line.startswith("broken") and "boom" in line for line in lines)
    assert markdown(failed).count("\n") == len(result["rows"]) + 1


@pytest.mark.parametrize(
    ("goal", "reached"),
    [
        (Goal("rate", 100), True),
        (Goal("rate", 101), False),
        (Goal("ratio", 0.5), True),
        (Goal("ratio", 0.6), False),
        (Goal("passes", 0.04), True),
        (Goal("passes", 0.03), False),
        (Goal("rate", 100, same_bits=True), False),
        (Goal("rate", 100, scratch=11), True),
        (Goal("rate", 100, scratch=10), False),
    ],
)
def test_targets(goal: Goal, reached: bool) -> None:
    found = {
        "unit": "TB/s",
        "ours": {"rate": 100.0, "same_bits": False, "scratch_bytes": 10},
        "ratio": {"value": 0.5, "to": "rival"},
        "ceiling": {"what": "copy"},
        "share": 0.5,
    }
    assert kernels.judge(goal, "rival", found, CEILINGS)["reached"] is reached


def test_a_fingerprint_sees_one_bit() -> None:
    x = torch.randn(7, 5, dtype=torch.bfloat16)
    y = x.clone()
    y.view(torch.int16)[3, 2] ^= 1
    assert kernels.fingerprint((x, x[0, 0])) == kernels.fingerprint((x.clone(), x[0, 0]))
    assert kernels.fingerprint(x) != kernels.fingerprint(y)
