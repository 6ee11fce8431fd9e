"""Our kernels against the device's ceilings and against every rival that starts, in one process and on the same inputs.

    python -m benchmarks.kernels [--only NAME ...] [--quick] [--out FILE]
    python -m benchmarks.kernels --markdown      prints the README's table from the results on file

Each row gives: time (median; contenders take turns), rate, share of the ceiling, error against float64 of ours and of
the rival, whether two runs agree bit for bit, memory beyond inputs and result, and the seconds of the first call, which
compiles. A missed target comes with the times of the kernels that the call launches. Rows are measured in a process
that is started anew when a kernel breaks it. Results go to `benchmarks/results/kernels_<device>.json`, row by row; rows
that are not measured now stay as they are.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import rivals
from benchmarks.kernel_rows import ROWS
from benchmarks.kernel_table import markdown, table
from benchmarks.layer_rows import dense_times, layer_rows
from benchmarks.provenance import RESULTS, device_name, provenance, result_path, write_json
from benchmarks.row import FULL, QUICK, TOY, Goal, Row, Size
from benchmarks.timing import Ceilings, first_call, free_memory, kernel_times, measure_ceilings, synchronize, take_turns
from benchmarks.worker import WorkerFailed, messages

SIZES = {"full": FULL, "quick": QUICK, "toy": TOY}
SECONDS = {"full": 1.0, "quick": 0.4, "toy": 0.1}  # of timing, for each row
PATIENCE = 150.0


def main() -> int:
    arguments = parse_arguments()
    path = arguments.out or result_path("kernels")
    if arguments.markdown:
        for file in [arguments.out] if arguments.out else sorted(RESULTS.glob("kernels_*.json")):
            print(markdown(json.loads(file.read_text(encoding="utf-8"))))
        return 0
    if not torch.cuda.is_available() and arguments.size != "toy":
        print("the kernels are measured on a GPU, and torch sees none here; --toy proves this program on a CPU")
        return 2
    known = list(all_rows(SIZES[arguments.size]))
    names = arguments.only or known
    keep = arguments.size == "full" or arguments.out
    result: dict[str, Any] = {"device": device_name(), "rows": {}}
    if arguments.size == "full" and path.exists():
        result["rows"] = json.loads(path.read_text(encoding="utf-8"))["rows"]
    for name, found in measure(names, arguments.size):
        result["rows"][name] = found
        result["rows"] = {key: result["rows"][key] for key in known if key in result["rows"]}
        text = found["failed"] if "failed" in found else f"{found['ours']['ms']:.3f} ms"
        print(f"{name}: {text}", file=sys.stderr, flush=True)
        if keep:
            write_json(path, result)
    print(table({**result, "rows": {name: result["rows"][name] for name in names}}))
    print(f"results are in {path}" if keep else "nothing kept: not the full shapes")
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Our kernels against ceilings and rivals.")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these rows")
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--quick", dest="size", action="store_const", const="quick", help="small shapes, nothing kept")
    sizes.add_argument("--toy", dest="size", action="store_const", const="toy", help="tiny shapes, on a CPU as well")
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    parser.add_argument("--markdown", action="store_true", help="print the README's table from the results on file")
    parser.set_defaults(size="full")
    arguments = parser.parse_args()
    known = all_rows(SIZES[arguments.size])
    unknown = [name for name in arguments.only or () if name not in known]
    if unknown:
        parser.error(f"no rows called {', '.join(unknown)}; there are {', '.join(known)}")
    return arguments


def all_rows(size: Size) -> dict[str, Callable[[Size], Row]]:
    return {**ROWS, **layer_rows(size)}


def measure(names: Sequence[str], size: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row's figures, or `{"failed": why}`."""
    left = list(names)
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")  # a layer at 128K fills the device
    with tempfile.TemporaryDirectory() as fresh:
        if size == "full":
            os.environ["TRITON_CACHE_DIR"] = fresh  # the first call's time is that of a first call
        while left:
            try:
                for name, found in messages(measure_here, left, size, sys.argv[1:], patience=PATIENCE):
                    left.remove(name)
                    yield name, found
            except WorkerFailed as error:
                yield left.pop(0), {"failed": str(error)}


def measure_here(
    send: Callable[[tuple[str, dict[str, Any]]], None], names: Sequence[str], size: str, command: Sequence[str]
) -> None:
    """Measures rows in this process; sends each with its figures. Ends early where a kernel broke the CUDA context: the
    rest is for a new process."""
    sys.argv[1:] = command
    torch.manual_seed(0)
    if torch.cuda.is_available():
        torch.cuda.init()
    ceilings = measure_ceilings()
    head = {**provenance("benchmarks.kernels"), "ceilings": asdict(ceilings)}
    for name in names:
        try:
            found = figures(all_rows(SIZES[size])[name](SIZES[size]), ceilings, SECONDS[size])
        except Exception as error:
            traceback.print_exc()
            found = {"failed": f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:300]}"}
        send((name, found | {"measured": head}))
        try:
            free_memory()
            synchronize()
        except RuntimeError:
            return


def figures(row: Row, ceilings: Ceilings, seconds: float) -> dict[str, Any]:
    """All figures of one row."""
    result, first_s, scratch = first_call(row.ours)
    error, bits = row.error(result), fingerprint(result)
    del result
    same = bits == fingerprint(row.ours())
    calls = {"ours": row.ours}
    contenders: dict[str, dict[str, Any]] = {}
    for name, make in row.rivals.items():
        call, why = rivals.start(make)
        contenders[name] = {"state": why or "measured"}
        if call is not None:
            calls[name] = call
            if row.same_output:
                contenders[name]["error"] = row.error(call())
    free_memory()
    ms = take_turns(calls, seconds)
    scale = 1e9  # FLOP or bytes in a millisecond, as TFLOPS or TB/s
    best = {"bf16": ceilings.bf16_tflops, "fp8": ceilings.fp8_tflops, "copy": ceilings.copy_tbs}[row.ceiling]
    rate = row.work / ms["ours"] / scale
    found: dict[str, Any] = {
        "title": row.title,
        "shape": row.shape,
        "unit": row.unit,
        "work": row.work,
        "ours": {
            "ms": ms["ours"],
            "rate": rate,
            "error": error,
            "same_bits": same,
            "scratch_bytes": scratch,
            "first_call_s": first_s,
        },
        "ceiling": {"what": row.ceiling, "rate": best},
        "share": rate / best if best else None,
        "rivals": {
            name: entry | ({"ms": ms[name], "rate": row.work / ms[name] / scale} if name in ms else {})
            for name, entry in contenders.items()
        },
    }
    found["ratio"] = ratio(found, row)
    if row.title.startswith("layer, training"):
        found["dense_at_8k"] = dense_times()
    for which, goal in (("must", row.must), ("aim", row.aim)):
        if goal:
            found[which] = judge(goal, next(iter(row.rivals), "the rival"), found, ceilings)
    if any(found[which]["reached"] is False for which in ("must", "aim") if which in found):
        found["kernels_ms"] = kernel_times(row.ours)
    return found


def ratio(found: dict[str, Any], row: Row) -> dict[str, Any] | None:
    """How many times faster ours is than the fastest rival that ran, or than the noted one."""
    ran = {name: entry["ms"] for name, entry in found["rivals"].items() if "ms" in entry}
    if row.noted and row.noted[0] not in ran and torch.cuda.is_available() and "H200" in torch.cuda.get_device_name():
        return {"to": row.noted[0], "ms": row.noted[1], "value": row.noted[1] / found["ours"]["ms"], "noted": True}
    if not ran:
        return None
    name = min(ran, key=lambda n: ran[n])
    return {"to": name, "ms": ran[name], "value": ran[name] / found["ours"]["ms"], "noted": False}


def judge(goal: Goal, rival: str, found: dict[str, Any], ceilings: Ceilings) -> dict[str, Any]:
    """The target in words, what was found, and whether that reaches it."""
    ours, value = found["ours"], None
    text = {
        "ratio": f"{goal.value:g} x {rival}",
        "rate": f"{goal.value:g} {found['unit']}",
        "share": f"{goal.value:g} of the {found['ceiling']['what']} ceiling",
        "passes": f"{goal.value:g} x one read pass",
    }[goal.kind]
    if goal.kind == "ratio":
        value = found["ratio"]["value"] if found["ratio"] else None
    elif goal.kind == "rate":
        value = ours["rate"]
    elif goal.kind == "share":
        value = found["share"]
    else:
        value = ceilings.copy_tbs / ours["rate"]
    reached = None if value is None else (value <= goal.value if goal.kind == "passes" else value >= goal.value)
    if goal.same_bits:
        text += ", same bits"
        reached = reached and ours["same_bits"]
    if goal.scratch is not None:
        text += f", < {goal.scratch / 2**30:g} GiB"
        reached = reached and (ours["scratch_bytes"] or 0) < goal.scratch
    return {"target": text, "value": value, "reached": reached}


def fingerprint(result: Any) -> list[list[int]]:
    """Sums of the bit patterns down every column of every tensor: equal for two results that agree bit for bit, and as
    good as never otherwise. Keeping a first result to compare with would take tens of GiB."""
    tensors = [result] if isinstance(result, Tensor) else list(result)
    bits = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    columns = [x.detach().reshape(-1, x.shape[-1] if x.ndim else 1).view(bits[x.element_size()]) for x in tensors]
    return [sum(part.sum(0, dtype=torch.int64) for part in x.split(4096)).tolist() for x in columns]


if __name__ == "__main__":
    sys.exit(main())
