"""One GRPO step (rollout, reward, update): ours against TRL's `GRPOTrainer` with transformers' own model.

    python -m benchmarks.loop_vs_trl [--rounds 5] [--threads 1] [--lengths ragged|equal]

Both sides get the same weights (a `deepseek_v32` checkpoint that both read), the same prompts, group size, completion
lengths, reward function, loss (`grpo`, two clip bounds, no scaling by the standard deviation, no KL) and one AdamW step
per rollout. Lengths are ragged, as a policy's are, or all equal, which is the best case for a trainer that pads; tokens
per second count real tokens, never padding. TRL runs at its best for a CPU: float32, no gradient checkpointing, one
forward for the loss, no logging, no saving. Contenders take turns, round by round, in one process; the first step of
each turn warms up and is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.grpo_steps import Contender, Shape, StepTime, make_checkpoint, make_prompts, ours, trl
from pipeline.runs.versions import git_commit, versions

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    arguments = parse_arguments()
    sizes = {name: getattr(arguments, name) for name in Shape.__dataclass_fields__ if name != "ragged"}
    shape = Shape(**sizes, ragged=arguments.lengths == "ragged")
    import torch

    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint = Path(scratch) / "checkpoint"
        make_checkpoint(shape, checkpoint)
        prompts = make_prompts(shape)
        with (
            ours("inline", shape, prompts, checkpoint, arguments.threads) as inline,
            ours("ray", shape, prompts, checkpoint, arguments.threads) as ray,
        ):
            contenders = {"inline": inline, "ray": ray, "trl": trl(shape, prompts, checkpoint)}
            times = take_turns(contenders, arguments.rounds, arguments.steps)
    result = summarise(shape, times, arguments)
    show(result)
    name = f"loop_vs_trl_{arguments.lengths}_{_slug(_cpu())}_{arguments.threads}_threads.json"
    path = arguments.out or RESULTS / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"written to {path}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="One GRPO step: Polymath against TRL's GRPOTrainer.")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contender")
    parser.add_argument("--steps", type=int, default=2, help="counted steps of a turn")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--group", type=int, default=8, help="samples of each prompt")
    parser.add_argument("--prompt-length", type=int, default=32, help="tokens")
    parser.add_argument("--completion-length", type=int, default=48, help="tokens, on average")
    parser.add_argument("--lengths", choices=("ragged", "equal"), default="ragged", help="of the completions")
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    return parser.parse_args()


def take_turns(contenders: dict[str, Contender], rounds: int, steps: int) -> dict[str, list[list[StepTime]]]:
    """Step times of each contender, turn by turn; a turn's first step is dropped."""
    times: dict[str, list[list[StepTime]]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name, contender in contenders.items():
            times[name].append(contender(steps + 1)[1:])
            mean = statistics.mean(t.total for t in times[name][-1])
            print(f"round {number + 1}/{rounds}  {name:<7} {mean:7.3f} s/step", file=sys.stderr)
    return times


def summarise(shape: Shape, times: dict[str, list[list[StepTime]]], arguments: argparse.Namespace) -> dict[str, Any]:
    """Figures of each contender; ratios are taken within a round, so that the machine's other load cancels out."""
    rates = {
        name: [shape.tokens / statistics.mean(t.total for t in turn) for turn in turns] for name, turns in times.items()
    }
    result: dict[str, Any] = {
        "benchmark": "loop_vs_trl",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": arguments.threads,
        "load_average": os.getloadavg()[0],
        "commit": git_commit(),
        "command": " ".join(["python -m benchmarks.loop_vs_trl", *sys.argv[1:]]),
        "versions": versions(),
        "shape": asdict(shape),
        "tokens_per_step": shape.tokens,
        "contenders": {},
        "ratio_to_trl": {},
    }
    for name, turns in times.items():
        steps = [t for turn in turns for t in turn]
        result["contenders"][name] = {
            "tokens_per_s": spread(rates[name]),
            "step_s": spread([t.total for t in steps]),
            "rollout_s": statistics.median(t.rollout for t in steps),
            "update_s": statistics.median(t.update for t in steps),
        }
        if name != "trl":
            ratios = [own / other for own, other in zip(rates[name], rates["trl"], strict=True)]
            result["ratio_to_trl"][name] = spread(ratios)
    return result


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def show(result: dict[str, Any]) -> None:
    print(
        f"{result['device']}, {result['threads']} thread(s), {result['tokens_per_step']} tokens a step, "
        f"lengths {'ragged' if result['shape']['ragged'] else 'equal'}"
    )
    print(f"{'':<8}{'tokens/s':>10}{'(min .. max)':>20}{'rollout s':>11}{'update s':>10}")
    for name, row in result["contenders"].items():
        rate = row["tokens_per_s"]
        between = f"({rate['min']:.0f} .. {rate['max']:.0f})"
        print(f"{name:<8}{rate['median']:>10.0f}{between:>20}{row['rollout_s']:>11.3f}{row['update_s']:>10.3f}")
    for name, ratio in result["ratio_to_trl"].items():
        print(f"{name} / trl: {ratio['median']:.2f} ({ratio['min']:.2f} .. {ratio['max']:.2f})")


def _cpu() -> str:
    """Name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _slug(text: str) -> str:
    return "_".join("".join(c if c.isalnum() else " " for c in text.lower()).split())


if __name__ == "__main__":
    main()
