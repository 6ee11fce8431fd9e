"""Tile shapes found by measurement, keyed by kernel, device and shape; `tuned.json` is the committed table."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

import torch


def config(kernel: str, key: str, default: dict[str, Any]) -> dict[str, Any]:
    """Launch parameters of a kernel at a shape class.

    Args:
        kernel: name of the kernel in the table.
        key: what the best tiles depend on, as one string, e.g. "bf16,heads=128,dim=512". Never the number of rows: a
            row's result must not depend on its companions.
        default: parameters for devices and shapes without an entry; small enough for any GPU. An entry may override
            each of them and add none.

    Returns:
        A new dict: `default` updated by the table's entry for this device.
    """
    entry = _table().get(kernel, {}).get(_device(), {}).get(key, {})
    unknown = sorted(set(entry) - set(default))
    if unknown:
        raise KeyError(f"kernels/tuned.json sets {unknown} for {kernel} at {key!r}, which that kernel does not have")
    return {**default, **entry}


@cache
def _table() -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
    return json.loads(files("kernels").joinpath("tuned.json").read_text(encoding="utf-8"))


@cache
def _device() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
