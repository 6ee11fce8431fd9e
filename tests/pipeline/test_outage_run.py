"""A disk that fills up under a real run, with real weights: the run says so and, with room again, ends bit for bit as a
run that never stopped."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.config import load_config
from pipeline.runs import Manifest
from pipeline.tasks import enabled_domains

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

CONFIG = load_config("smoke")[0]
KEPT = ("base", "sparsify", "judge")
ROOM_MB = 200
LEFT_MB = 3
"""Enough for the first states of a specialist and not for the last."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own; only root may make one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={ROOM_MB}m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"no small disk can be made here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_run_survives_a_full_disk(smoke, disk: Path, start_pipeline) -> None:
    run, filler = disk / "run", disk / "filler"
    for stage in KEPT:
        shutil.copytree(smoke.path / stage, run / stage)
    lines = (smoke.path / "events.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (run / "events.jsonl").write_text("".join(line for line in lines if json.loads(line)["stage"] in KEPT))
    with filler.open("wb") as file:
        for _ in range(shutil.disk_usage(disk).free // 2**20 - LEFT_MB):
            file.write(bytes(2**20))
    words = ("run", "specialists", *smoke.words[2:-1], str(run))

    first = start_pipeline(*words)
    assert first.finish() == 4, first.output
    assert f"The disk of {run} is full" in first.output and "Go on with: pipeline run specialists" in first.output

    filler.unlink()
    last = start_pipeline(*words)
    assert last.finish() == 0, last.output

    for stage in KEPT:
        assert f"{stage}: unchanged, skipped" in last.output
    manifests = [Manifest.read(folder / "specialists") for folder in (run, smoke.path)]
    assert manifests[0] is not None and manifests[1] is not None
    assert manifests[0].hashes() == manifests[1].hashes(), "other weights than without the full disk"
    events = [json.loads(line) for line in (run / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    logged = Counter((e["domain"], e["step"]) for e in events if e["stage"] == "specialists" and "alarm" not in e)
    steps = range(CONFIG.specialists.rl.steps)
    assert logged == {(domain, step): 1 for domain in enabled_domains(CONFIG) for step in steps}
