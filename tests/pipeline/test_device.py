"""Where a run computes when nobody says: on a GPU that is there, may be used, and that torch can use."""

import pytest

from pipeline.config import load_config
from pipeline.stages import common


@pytest.mark.parametrize(
    ("setting", "gpus", "torch", "expected"),
    [
        ("auto", 0, "2.13.0+cpu", "cpu"),
        ("auto", 0, "2.13.0", "cpu"),
        ("auto", 1, "2.13.0+cpu", "cpu"),
        ("auto", 1, "2.13.0", "cuda"),
        ("auto", 2, "2.11.0+cu130", "cuda"),
        ("cpu", 1, "2.13.0", "cpu"),
        ("cuda", 0, "2.13.0", "cuda"),
    ],
)
def test_the_device_of_a_run(monkeypatch, setting, gpus, torch, expected):
    monkeypatch.setattr(common, "gpus", lambda: gpus)
    monkeypatch.setattr(common, "version", lambda package: torch)
    config, _ = load_config("smoke", [], [f"device={setting}"])
    assert common.device(config) == expected
