#!/usr/bin/env bash
# Creates .venv and installs the project with its development tools. Does nothing when that is already done.
#
#   PYTHON  interpreter to build .venv with (default: the first of python3.12, python3.11, python3 that is in range)
#   TORCH   cpu or gpu (default: gpu where nvidia-smi finds one)
#
# A dependency can name torch but not its build, and the default build brings gigabytes of CUDA. So without a GPU the
# CPU build is installed first; what follows then finds torch already there.

set -euo pipefail
cd "$(dirname "$0")/.."

VENV=.venv
STAMP=$VENV/.polymath-setup
TORCH_VERSION=2.13.0

say() { printf '%s\n' "$*"; }
die() {
    printf 'setup: %s\n' "$*" >&2
    exit 1
}

in_range() { # PYTHON: is it a 3.11 or 3.12 that runs?
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' >/dev/null 2>&1
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        in_range "$PYTHON" || die "PYTHON=$PYTHON does not run or is not Python 3.11 or 3.12"
        printf '%s\n' "$PYTHON"
        return
    fi
    local candidate
    for candidate in python3 python3.12 python3.11; do
        if in_range "$candidate"; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    die "no Python 3.11 or 3.12 on PATH (found: $(python3 --version 2>&1 || true)); install one, or give PYTHON=/path/to/python3.12"
}

find_build() {
    case "${TORCH:-}" in
    cpu | gpu) printf '%s\n' "$TORCH" ;;
    "") if nvidia-smi -L 2>/dev/null | grep -q GPU; then printf 'gpu\n'; else printf 'cpu\n'; fi ;;
    *) die "TORCH=$TORCH: expected cpu or gpu" ;;
    esac
}

pip() { "$VENV/bin/python" -m pip --disable-pip-version-check "$@"; }

install_cpu_torch() {
    local wanted=torch==$TORCH_VERSION+cpu
    if [ "$(uname -s)" = Darwin ]; then # the only build there is one for the CPU
        pip install -qq -c constraints/cpu.txt "torch==$TORCH_VERSION"
        return
    fi
    # First what pip itself is set up with; else uv, which knows PyTorch's index of CPU builds by itself.
    if pip --timeout 15 --retries 1 install -qq --dry-run --no-deps "$wanted" >/dev/null 2>&1; then
        pip install -qq -c constraints/cpu.txt "$wanted"
        return
    fi
    if pip install -qq uv && UV_HTTP_TIMEOUT=60 "$VENV/bin/uv" pip install --quiet --python "$VENV/bin/python" \
        -c constraints/cpu.txt --torch-backend=cpu "torch==$TORCH_VERSION"; then
        return
    fi
    die "no CPU build of torch $TORCH_VERSION for $("$VENV/bin/python" --version): pip's own sources have none, and uv
       finds none either. Put the wheel where pip looks (pip config set global.find-links FOLDER), or take the default
       build, several GB of CUDA: TORCH=gpu make setup"
}

build=$(find_build)
key=$build-$(cat pyproject.toml constraints/cpu.txt scripts/setup.sh | cksum | tr -d " ")
if [ -x "$VENV/bin/pipeline" ] && [ "$(cat "$STAMP" 2>/dev/null)" = "$key" ]; then
    exit 0
fi

if [ ! -x "$VENV/bin/python" ] || ! in_range "$VENV/bin/python"; then
    python=$(find_python)
    say "setup: $VENV with $("$python" --version 2>&1)"
    "$python" -m venv --clear "$VENV" || die "$python can not make a virtual environment; is its venv module installed?"
fi

if [ "$build" = cpu ]; then
    say "setup: torch $TORCH_VERSION, CPU build"
    install_cpu_torch
    say "setup: the project and its tools, at the tested versions (a minute or two)"
    pip install -qq -c constraints/cpu.txt -e '.[dev]'
else
    say "setup: the project and its tools, for a GPU (torch alone is several GB)"
    pip install -qq -c constraints/cpu.txt -e '.[dev,gpu]'
fi

"$VENV/bin/python" - "$build" <<'PYTHON'
import sys

import ray
import torch

if sys.argv[1] == "cpu" and torch.version.cuda:
    sys.exit(f"setup: torch {torch.__version__} is a CUDA build although the CPU build was asked for")
print(f"setup: done. Python {sys.version.split()[0]}, torch {torch.__version__}, ray {ray.__version__}")
PYTHON
printf '%s\n' "$key" >"$STAMP"
say "setup: next: make demo, or $VENV/bin/pipeline --help"
