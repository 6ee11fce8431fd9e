"""Gluon runs on a GPU only; that it compiles for one is checked anywhere."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_body_of_a_hopper_gpu_compiles(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    program = [sys.executable, str(Path(__file__).with_name("compile_for_hopper.py"))]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    compiled = set(done.stdout.split())
    bodies = sorted(path.stem for path in (ROOT / "kernels").glob("*_gluon.py"))
    missing = [body for body in bodies if not any(name.startswith(f"{body}.") for name in compiled)]
    assert bodies and not missing, f"not compiled: {missing}; compiled: {sorted(compiled)}"
