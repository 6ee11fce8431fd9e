"""The pictures of the DeepSeek-V3.2 paper, from our own runs.

    python -m benchmarks.dsa_paper cost [--toy] [--draw]     cost against token position (benchmarks/dsa_cost.py)
    python -m benchmarks.dsa_paper twins [--preset tiny]     held-out quality and RL curves, dense against sparse twin

Each picture is a PNG, an SVG and a JSON with command, device and commit in `benchmarks/results/`. `--draw` draws a JSON
that is there already, as on a machine without a GPU.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

from benchmarks.provenance import RESULTS, provenance, result_path, write_json


def main() -> int:
    parser = argparse.ArgumentParser(description="The paper's pictures, from our own runs.")
    pictures = parser.add_subparsers(required=True)
    cost_parser = pictures.add_parser("cost", help="cost against token position, dense against DSA")
    cost_parser.add_argument("--toy", action="store_true", help="tiny shapes, on a CPU as well: proves the program")
    cost_parser.add_argument("--draw", action="store_true", help="only draw what is on file")
    cost_parser.add_argument("--out", type=Path, help="the JSON; the pictures lie beside it")
    cost_parser.set_defaults(run=cost)
    twins_parser = pictures.add_parser("twins", help="quality and RL curves, sparse policy against its dense twin")
    twins_parser.add_argument("--preset", default="tiny")
    twins_parser.add_argument("--runs", type=Path, default=Path("runs/twins"), help="where the two runs lie")
    twins_parser.add_argument("--draw", action="store_true", help="only draw what is on file")
    twins_parser.add_argument("--out", type=Path, help="the JSON; the pictures lie beside it")
    twins_parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="settings of both runs")
    twins_parser.set_defaults(run=twins)
    arguments = parser.parse_args()
    return arguments.run(arguments)


def cost(arguments: argparse.Namespace) -> int:
    if arguments.draw:
        for path in [arguments.out] if arguments.out else sorted(RESULTS.glob("dsa_cost_*.json")):
            _draw_cost(path)
        return 0
    if not torch.cuda.is_available() and not arguments.toy:
        print("the cost is measured on a GPU, and torch sees none here; --draw draws results on file")
        return 2
    from benchmarks import dsa_cost

    path = arguments.out or result_path("dsa_cost")
    result = dsa_cost.measure(dsa_cost.TOY if arguments.toy else dsa_cost.FULL)
    print(dsa_cost.report(result))
    write_json(path, result)
    print(f"written to {path}")
    try:
        _draw_cost(path)
    except ModuleNotFoundError as error:
        print(f"not drawn, as {error.name} is not installed here: python -m benchmarks.dsa_paper cost --draw")
    return 0


def _draw_cost(path: Path) -> None:
    from benchmarks.dsa_cost_plot import draw

    for file in draw(json.loads(path.read_text(encoding="utf-8")), path):
        print(f"written to {file}")


def twins(arguments: argparse.Namespace) -> int:
    from benchmarks import twins as pair

    path = arguments.out or result_path("dsa_twins")
    if not arguments.draw:
        measured = pair.run_twins(arguments.runs, arguments.preset, arguments.settings)
        write_json(path, {**provenance("benchmarks.dsa_paper"), "preset": arguments.preset, **measured})
    result = json.loads(path.read_text(encoding="utf-8"))
    print(pair.table(result))
    for file in (
        *pair.draw_quality(result, path.parent, f"{path.stem}_quality"),
        *pair.draw_curves(result, path.parent, f"{path.stem}_curves"),
    ):
        print(f"written to {file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
