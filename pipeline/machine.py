"""What this machine has and what a run needs, estimated without torch or Ray."""

from __future__ import annotations

import functools
import json
import math
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from pipeline.config.schema import Config, ModelConfig

GIB = 2**30
PROCESS_BYTES = 0.35 * GIB
"""Memory of one process that has imported torch, before any weights (measured on CPU)."""
RAY_BYTES = 0.5 * GIB
"""Memory of an idle single-node Ray (measured)."""


@dataclass(frozen=True)
class Resource:
    """One line of the plan's table. `needed` and `there` in `unit`; None where it is not known.

    `binding` says that the run can not start without it; otherwise a shortage is a warning.
    """

    name: str
    needed: float | None
    there: float | None
    unit: str
    binding: bool = False

    @property
    def short(self) -> bool:
        return self.needed is not None and self.there is not None and self.needed > self.there


def cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def device_name() -> str:
    """The machine in words for people who compare times: `AMD EPYC 7B13, 2 cores`, and GPUs if there are any."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    there = gpus()
    return f"{name}, {cpus()} cores" + (f", {there} NVIDIA GPUs" if there else "")


def memory_bytes() -> int:
    """Memory of the machine, or of its container where that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdigit() else total


def disk_free_bytes(path: Path) -> int:
    """Free space where `path` is or will be."""
    existing = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    return shutil.disk_usage(existing).free


def gpus() -> int:
    """NVIDIA GPUs that this process may use, from /proc or nvidia-smi."""
    count = _installed_gpus()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return count
    return min(count, len([device for device in visible.split(",") if device.strip() not in ("", "-1")]))


@functools.cache
def _installed_gpus() -> int:
    """Asked once: every stage wants to know, and nvidia-smi takes its time."""
    proc = Path("/proc/driver/nvidia/gpus")
    if proc.is_dir():
        return len(list(proc.iterdir()))
    if not shutil.which("nvidia-smi"):
        return 0
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return listed.stdout.count("GPU ") if listed.returncode == 0 else 0


def parameters(model: ModelConfig) -> int | None:
    """Parameters of the model, from the settings or the files at `model.path`; None if unknown."""
    if model.path is not None:
        return _parameters_on_disk(Path(model.path))
    heads, qk = model.num_attention_heads, model.qk_nope_head_dim + model.qk_rope_head_dim
    attention = (
        model.hidden_size * (model.q_lora_rank + model.kv_lora_rank + model.qk_rope_head_dim)
        + model.q_lora_rank * heads * qk
        + model.kv_lora_rank * heads * (model.qk_nope_head_dim + model.v_head_dim)
        + heads * model.v_head_dim * model.hidden_size
        + model.q_lora_rank * model.index_n_heads * model.index_head_dim
        + model.hidden_size * (model.index_head_dim + model.index_n_heads)
    )
    dense = min(model.first_k_dense_replace, model.num_hidden_layers)
    mixtures = model.num_hidden_layers - dense
    mlp = 3 * model.hidden_size * model.intermediate_size
    mixture = 3 * model.hidden_size * model.moe_intermediate_size * (model.n_routed_experts + 1)
    embeddings = 2 * model.vocab_size * model.hidden_size
    return embeddings + model.num_hidden_layers * attention + dense * mlp + mixtures * mixture


def requirements(config: Config) -> list[Resource]:
    """The table of what the run needs and what is there.

    Memory is an estimate: per learner weights, gradients and two moments, per sampler weights, logits of one
    packed batch, and the processes themselves. Disk counts three checkpoints with optimizer state for each
    trained model.
    """
    local = config.runtime.address == "local"
    on_gpu = config.device == "cuda"
    count = parameters(config.model)
    width = 4 if config.model.dtype == "float32" else 2
    wave = config.specialists.wave
    memory = disk = None
    if count is not None:
        learner, sampler = count * (2 * width + 8), count * width
        logits = 3 * 4 * config.grpo.batch_tokens * config.model.vocab_size
        host = 0 if on_gpu else learner + sampler + logits
        memory = (wave * (PROCESS_BYTES + host) + PROCESS_BYTES + RAY_BYTES) / GIB
        domains = sum(domain.enabled for domain in config.domains.values())
        disk = 3 * count * (width + 8) * (5 + domains) / GIB
    gpus_needed = max(1.0, wave * config.runtime.gpus_per_worker) if on_gpu else 0.0
    return [
        Resource("CPUs", config.runtime.num_cpus or 1, cpus() if local else None, ""),
        Resource("GPUs", gpus_needed, gpus() if local else None, "", binding=True),
        Resource("memory", memory, memory_bytes() / GIB if local else None, "GiB"),
        Resource("disk", disk, disk_free_bytes(Path(config.run)) / GIB, "GiB"),
    ]


def _parameters_on_disk(folder: Path) -> int | None:
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    try:
        dtype = json.loads((folder / "config.json").read_text()).get("torch_dtype", "bfloat16")
    except (OSError, ValueError):
        return None
    return math.ceil(size / (4 if dtype == "float32" else 2)) if size else None
