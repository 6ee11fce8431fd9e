"""The sandbox: milliseconds per job, jobs per second, what a large parent costs, and what ten thousand jobs leave.

    python -m benchmarks.sandbox_worker [--jobs 10000] [--samples 400] [--parent-gib 4] [--out FILE]

One job reads a number and prints its square, in Python. Beside each tier stands a plain subprocess of the same
interpreter (`-I -S`, no isolation at all); contenders take turns in blocks, so that a busy machine is busy for all of
them, and ratios are those of a block. The same is measured again while this process holds `--parent-gib` of touched
memory; there `subprocess` with a `preexec_fn`, which must fork the whole parent, shows what is avoided. The last part
runs `--jobs` jobs, some of which are killed, and counts processes, files, mounts, descriptors and control groups
before and after.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rewards.sandbox import Job, Limits, SandboxUnavailable, SandboxWorker
from rewards.sandbox.tiers import TIERS, Tier, interpreter

SOURCE = "print(int(input()) ** 2)"
BLOCK = 50
LEFTOVER_LIMITS = Limits(cpu_seconds=1, wall_seconds=0.3, output_bytes=200_000)


@dataclass(frozen=True)
class Traces:
    """What jobs could leave: of this process, its descendants, its temporary folder and its control groups."""

    processes: int
    files: int
    mounts: int
    descriptors: int
    groups: int


def traces(worker: SandboxWorker | None = None) -> Traces:
    """Counted now. The boxes of a `worker` in bubblewrap lie in a file system of their own, which is looked into."""
    family = descendants(os.getpid())
    boxes = list(Path(tempfile.gettempdir()).glob("polymath-box-*"))
    if worker is not None and worker.tier == "bubblewrap":
        own = (Path(f"/proc/{pid}/root/tmp") for pid in family)
        boxes += [folder for folder in own if folder.exists() and folder.stat().st_dev != Path("/tmp").stat().st_dev]
    groups = Path("/sys/fs/cgroup").glob(f"**/polymath-sandbox-{os.getpid()}-*")
    return Traces(
        processes=len(family),
        files=len(set(boxes)) + sum(_entries(box) for box in boxes),
        mounts=len(Path("/proc/self/mounts").read_text().splitlines()),
        descriptors=sum(_entries(Path(f"/proc/{pid}/fd")) for pid in (os.getpid(), *family)),
        groups=len(list(groups)),
    )


def descendants(pid: int) -> set[int]:
    """All processes below `pid`."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found: set[int] = set()
    level = {pid}
    while level:
        level = {child for child, parent in parents.items() if parent in level} - found
        found |= level
    return found


def _entries(folder: Path) -> int:
    try:
        return len(os.listdir(folder))
    except OSError:
        return 0


def job_mix(count: int) -> list[Job]:
    """Mostly honest programs; one in fifty is killed or ends badly, one in two hundred sleeps until it is killed."""
    plain = Job.program(SOURCE, "12")
    boxed = Job.program("import os; os.makedirs('a/b'); open('a/b/c', 'w').write('x'); print(1)", files={"d": "e"})
    bad = [
        Job.program("raise ValueError"),
        Job.program("while True: print('x' * 65536)"),
        Job.program("x = bytearray(4 << 30)"),
        Job.program("import os; os._exit(0)"),
        Job.program("import os\nwhile True: open(str(os.times()[4]) + os.urandom(8).hex(), 'w')", files={"d": "e"}),
        Job.program("import ctypes; ctypes.string_at(0)"),
        Job.program("import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(9,)).start()"),
        Job.function("import os\ndef f(): os.write(3, b'['); os._exit(0)", "f", [[]]),
    ]
    sleeper = Job.program("import time; time.sleep(60)", files={"d": "e"})
    jobs = []
    for number in range(count):
        if number % 200 == 7:
            jobs.append(sleeper)
        elif number % 50 == 3:
            jobs.append(bad[number // 50 % len(bad)])
        else:
            jobs.append(boxed if number % 10 == 0 else plain)
    return jobs


def main() -> None:
    arguments = parse_arguments()
    result: dict[str, Any] = {"load_before": os.getloadavg(), "cpus": len(os.sched_getaffinity(0))}
    workers = open_workers()
    try:
        result["small_parent"] = measure(workers, arguments.samples)
        memory = touched(arguments.parent_gib)
        result["large_parent"] = measure(workers, arguments.samples)
        result["parent_gib"] = len(memory) / (1 << 30)
        del memory
    finally:
        for worker in workers.values():
            worker.close()
    result["leftovers"] = {tier: leftovers(tier, arguments.jobs) for tier in workers}
    result["load_after"] = os.getloadavg()
    show(result)
    # Imported last: it brings torch, and this process shall be small while it measures.
    from benchmarks.provenance import provenance, result_path, write_json

    path = arguments.out or result_path("sandbox_worker")
    write_json(path, {**provenance("benchmarks.sandbox_worker"), **result})
    print(f"written to {path}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=10_000, help="jobs of the part that counts what is left")
    parser.add_argument("--samples", type=int, default=400, help="jobs behind each median")
    parser.add_argument("--parent-gib", type=float, default=4.0, help="memory that this process holds, second part")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    return parser.parse_args()


def open_workers() -> dict[Tier, SandboxWorker]:
    """A worker of each tier that works here."""
    workers: dict[Tier, SandboxWorker] = {}
    for tier in TIERS:
        try:
            workers[tier] = SandboxWorker(tier)
        except SandboxUnavailable as error:
            print(f"{tier} left out: {error}")
    return workers


def measure(workers: dict[Tier, SandboxWorker], samples: int) -> dict[str, Any]:
    """Median and 95th percentile of a job in milliseconds, jobs per second, and ratios to a plain subprocess."""
    job = Job.program(SOURCE, "12")
    once: dict[str, Callable[[], object]] = {
        "subprocess": plain,
        "subprocess with preexec_fn": lambda: plain(lambda: None),
    }
    many: dict[str, Callable[[int], object]] = {"subprocess": plain_many}
    for tier, worker in workers.items():
        once[tier] = lambda worker=worker: worker.run(job)  # type: ignore[misc]
        many[tier] = lambda count, worker=worker: worker.run_many([job] * count)  # type: ignore[misc]
    times: dict[str, list[list[float]]] = {name: [] for name in once}
    rates: dict[str, list[float]] = {name: [] for name in many}
    for _ in range(max(1, samples // BLOCK)):
        for name, run in once.items():
            run()
            times[name].append([timed(run) for _ in range(BLOCK)])
        for name, run_many in many.items():
            rates[name].append(2 * BLOCK / timed(lambda run_many=run_many: run_many(2 * BLOCK)))  # type: ignore[misc]
    return {name: summary(times[name], rates.get(name), times["subprocess"], rates["subprocess"]) for name in once}


def summary(
    blocks: list[list[float]], rates: list[float] | None, plain_blocks: list[list[float]], plain_rates: list[float]
) -> dict[str, float]:
    found = sorted(1000 * seconds for block in blocks for seconds in block)
    ratios = [statistics.median(a) / statistics.median(b) for a, b in zip(blocks, plain_blocks, strict=True)]
    row = {
        "median_ms": statistics.median(found),
        "p95_ms": found[int(0.95 * len(found))],
        "ratio_to_subprocess": statistics.median(ratios),
    }
    if rates is not None:
        speedups = [a / b for a, b in zip(rates, plain_rates, strict=True)]
        row |= {"jobs_per_s": statistics.median(rates), "jobs_ratio_to_subprocess": statistics.median(speedups)}
    return row


def plain(preexec: Callable[[], None] | None = None) -> bytes:
    """The job in a subprocess without any isolation."""
    command = [interpreter(), "-I", "-S", "-c", SOURCE]
    return subprocess.run(command, input=b"12", capture_output=True, preexec_fn=preexec).stdout


def plain_many(count: int) -> list[bytes]:
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda _: plain(), range(count)))


def timed(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def touched(gib: float) -> bytearray:
    """So much memory, every page of it written to."""
    memory = bytearray(int(gib * (1 << 30)))
    memory[::4096] = b"x" * len(range(0, len(memory), 4096))
    return memory


def leftovers(tier: Tier, count: int) -> dict[str, Any]:
    """What is there more than before: after the jobs, with the worker idle, and after it was closed."""
    before = traces()
    statuses: Counter[str] = Counter()
    began = time.perf_counter()
    with SandboxWorker(tier, LEFTOVER_LIMITS) as worker:
        idle = traces(worker)
        for start in range(0, count, 500):
            statuses.update(result.status for result in worker.run_many(job_mix(min(500, count - start))))
        after, restarts = traces(worker), worker.restarts
    return {
        "jobs": count,
        "seconds": time.perf_counter() - began,
        "statuses": dict(statuses),
        "restarts": restarts,
        "left_by_jobs": difference(idle, after),
        "left_by_worker": difference(before, traces()),
    }


def difference(before: Traces, after: Traces) -> dict[str, int]:
    return {name: value - asdict(before)[name] for name, value in asdict(after).items()}


def show(result: dict[str, Any]) -> None:
    for part in ("small_parent", "large_parent"):
        size = f"{result['parent_gib']:g} GiB" if part == "large_parent" else "small"
        print(f"\nparent: {size}\n{'':28}median ms   p95 ms   x subprocess   jobs/s   x subprocess")
        for name, row in result[part].items():
            rate = f"{row['jobs_per_s']:8.0f} {row['jobs_ratio_to_subprocess']:14.2f}" if "jobs_per_s" in row else ""
            print(f"{name:28}{row['median_ms']:9.2f} {row['p95_ms']:8.2f} {row['ratio_to_subprocess']:14.2f} {rate}")
    for tier, row in result["leftovers"].items():
        print(f"\n{tier}: {row['jobs']} jobs in {row['seconds']:.0f} s, {row['statuses']}, {row['restarts']} restarts")
        print(f"  left by jobs: {row['left_by_jobs']}\n  left by the worker: {row['left_by_worker']}")


if __name__ == "__main__":
    main()
