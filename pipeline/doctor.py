"""Looks at the installation and the machine: what works, what does not, and what to do about it."""

from __future__ import annotations

import importlib.metadata
import json
import re
import resource
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.machine import GIB, cpus, disk_free_bytes, gpus, memory_bytes
from pipeline.runs.versions import versions

Verdict = Literal["ok", "warning", "failed"]

PROBE_TIMEOUT_S = 120
SHM_GIB = 0.5
"""Ray keeps objects in /dev/shm; with less it falls back to the disk."""
OPEN_FILES = 4096
"""Ray wants many file descriptors; below this larger runs fail with "too many open files"."""

TORCH_PROBE = """
import json, torch
cuda = torch.cuda.is_available()
print(json.dumps({
    "version": torch.__version__,
    "cuda_build": torch.version.cuda,
    "threads": torch.get_num_threads(),
    "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if cuda else [],
}))
"""

RAY_PROBE = """
import ray
ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
assert ray.get(ray.remote(lambda: 41 + 1).remote(), timeout=60) == 42
ray.shutdown()
"""


@dataclass(frozen=True)
class Check:
    """One finding; `advice` says what to do where it is not ok."""

    name: str
    verdict: Verdict
    detail: str
    advice: str = ""


def run_checks(folder: Path, with_ray: bool = False) -> list[Check]:
    """All checks; `folder` is where runs will be written, `with_ray` starts a Ray and stops it (seconds)."""
    checks = [
        *_requirements(),
        *_torch(),
        *_sandbox(),
        _cpus_and_memory(),
        _disk(folder),
        _shared_memory(),
        _open_files(),
    ]
    if with_ray:
        checks.append(_ray())
    return checks


def _requirements() -> list[Check]:
    """Python and every required package against the ranges of this distribution."""
    from packaging.requirements import Requirement

    found = versions()
    checks = [Check("Python", "ok", found["python"])]
    if sys.version_info[:2] not in ((3, 11), (3, 12)):
        checks = [Check("Python", "warning", found["python"], "Python 3.11 and 3.12 are tested.")]
    try:
        wanted = [Requirement(line) for line in importlib.metadata.requires("polymath-rl") or []]
    except importlib.metadata.PackageNotFoundError:
        advice = "Install it: pip install -e ."
        return [*checks, Check("polymath-rl", "failed", "the distribution is not installed", advice)]
    for requirement in wanted:
        optional = requirement.marker is not None and "extra" in str(requirement.marker)
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            if not optional:
                advice = f"Install it: pip install '{requirement.name}{requirement.specifier}'"
                checks.append(Check(requirement.name, "failed", "not installed", advice))
            continue
        if requirement.specifier.contains(version, prereleases=True):
            checks.append(Check(requirement.name, "ok", version))
        else:
            advice = (
                f"Expected {requirement.specifier}: pip install '{requirement.name}{requirement.specifier}'"
            )
            checks.append(Check(requirement.name, "warning" if optional else "failed", version, advice))
    return checks


def _torch() -> list[Check]:
    """The build of torch, asked in a process of its own so that a broken one can be told."""
    done = _probe(TORCH_PROBE)
    if isinstance(done, str):
        return [
            Check(
                "torch build", "failed", done, "Reinstall torch; `python -c 'import torch'` shows the error."
            )
        ]
    facts = json.loads(done.stdout.splitlines()[-1])
    build = f"CUDA {facts['cuda_build']}" if facts["cuda_build"] else "CPU"
    checks = [Check("torch build", "ok", f"{facts['version']}, {build} build, threads: {facts['threads']}")]
    there = gpus()
    if facts["gpus"]:
        checks.append(Check("GPU", "ok", ", ".join(facts["gpus"])))
    elif there:
        why = "torch can not use CUDA" if facts["cuda_build"] else "torch is a CPU build"
        advice = "Install a CUDA build of torch that fits the driver."
        checks.append(Check("GPU", "warning", f"{there} NVIDIA GPUs, but {why}", advice))
    else:
        checks.append(Check("GPU", "ok", "none; runs on the CPU"))
    return checks


def _sandbox() -> list[Check]:
    """The strongest isolation for programs that the policy writes, and how the attack list went against it."""
    advice = "The code domains need it; without it turn them off (domains.code.enabled=false)."
    try:
        from pipeline.sandboxes import examine

        found = examine()
    except Exception as error:
        return [Check("sandbox", "failed", f"{type(error).__name__}: {error}", advice)]
    if found.tier is None:
        return [Check("sandbox", "failed", "no isolation here", found.why_not_higher)]
    detail = "; ".join([found.tier, *(f"not stopped by it: {limit}" for limit in found.limits)])
    checks = [Check("sandbox", "ok", detail, found.why_not_higher)]
    for area, (stopped, count) in found.areas().items():
        missed = [line for line in found.not_stopped if line.startswith(f"{area}: ")]
        verdict: Verdict = "failed" if missed else "ok"
        advice = "Do not train on code domains here." if missed else ""
        told = f"{stopped} of {count} attacks stopped"
        checks.append(Check(f"sandbox: {area}", verdict, "; ".join([told, *missed]), advice))
    return checks


def _cpus_and_memory() -> Check:
    memory = memory_bytes() / GIB
    detail = f"{cpus()} CPUs, {memory:.1f} GiB memory"
    if memory < 4:
        return Check("machine", "warning", detail, "Below 4 GiB use runtime.backend=inline.")
    return Check("machine", "ok", detail)


def _disk(folder: Path) -> Check:
    free = disk_free_bytes(folder) / GIB
    detail = f"{free:.1f} GiB free for {folder}"
    if free < 1:
        return Check("disk", "failed", detail, "Free at least 1 GiB or choose another folder with --run.")
    return Check("disk", "ok", detail)


def _shared_memory() -> Check:
    path = Path("/dev/shm")
    if not path.is_dir():
        return Check("/dev/shm", "warning", "absent", "Ray will keep its objects on disk, which is slow.")
    size = shutil.disk_usage(path).total / GIB
    if size < SHM_GIB:
        advice = "Give the container more: docker run --shm-size=2g."
        return Check("/dev/shm", "warning", f"{size:.2f} GiB", advice)
    return Check("/dev/shm", "ok", f"{size:.1f} GiB")


def _open_files() -> Check:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < OPEN_FILES:
        return Check(
            "open files",
            "warning",
            str(soft),
            f"Raise the limit before large runs: ulimit -n {min(hard, 65536)}",
        )
    return Check("open files", "ok", str(soft))


def _ray() -> Check:
    done = _probe(RAY_PROBE)
    if isinstance(done, str):
        return Check(
            "Ray start",
            "failed",
            done,
            "Try runtime.backend=inline; /tmp/ray/session_latest/logs has the reason.",
        )
    return Check("Ray start", "ok", "a local Ray started, ran a task and stopped")


def _probe(code: str) -> subprocess.CompletedProcess[str] | str:
    """Runs a program in this Python; its last line of complaint if it fails."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=PROBE_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return f"no answer in {PROBE_TIMEOUT_S} s"
    if done.returncode == 0:
        return done
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return re.sub(r"\s+", " ", lines[-1]) if lines else f"exit code {done.returncode}"
