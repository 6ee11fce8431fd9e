"""Coverage-guided fuzzing by atheris: `python -m fuzz [--seconds 60] [--jobs 1] [TARGET …]`.

Each target runs in a process of its own for so many seconds, from its seeds on. An input that breaks a property is
written to fuzz/found/ and the exit code is 1; `python -m fuzz TARGET --input FILE` runs it again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

FOUND = Path(__file__).parent / "found"
LIMIT_S = 5.0
"""CPU seconds of one call: counting branches makes it several times as long."""

MEMORY_MB = 2048
PACKAGES = ("rewards", "rollout", "specialists", "pipeline")


def main() -> int:
    form = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__, formatter_class=form)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="all of them if none is named")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default 60)")
    parser.add_argument("--jobs", type=int, default=1, help="targets at the same time (default 1)")
    parser.add_argument("--input", type=Path, help="run one target on this file and stop")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.here:
        return _fuzz(words.targets[0], words.seconds)
    from fuzz.targets import TARGETS

    if unknown := set(words.targets) - set(TARGETS):
        parser.error(f"no target {', '.join(sorted(unknown))}; there are: {', '.join(TARGETS)}")
    if words.input is not None:
        from fuzz.target import check, text_of

        print(check(TARGETS[words.targets[0]], text_of(words.input.read_bytes())))
        return 0
    try:
        import atheris  # noqa: F401
    except ImportError:
        print("atheris is not installed: pip install 'polymath-rl[fuzz]' (Linux; Python 3.11 or 3.12)", file=sys.stderr)
        return 2
    with ThreadPoolExecutor(words.jobs) as pool:
        good = pool.map(lambda name: _run(name, words.seconds), words.targets or TARGETS)
        failed = [name for name, fine in zip(words.targets or TARGETS, good, strict=True) if not fine]
    print(f"found something in: {', '.join(failed)}" if failed else "nothing found")
    return 1 if failed else 0


def _run(name: str, seconds: int) -> bool:
    """One target in its own process: whether it found nothing. Its last lines are shown where it did."""
    command = [sys.executable, "-m", "fuzz", name, "--seconds", str(seconds), "--here"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=3 * seconds + 120)
        output, good = done.stdout + done.stderr, done.returncode == 0
    except subprocess.TimeoutExpired:
        output, good = f"did not end within {3 * seconds + 120} s", False
    runs = next((line for line in reversed(output.splitlines()) if line.startswith("Done ")), "")
    print(f"{name}: {runs or ('good' if good else 'FAILED')}", flush=True)
    if not good:
        print("\n".join(output.splitlines()[-25:]), flush=True)
    return good


def _fuzz(name: str, seconds: int) -> int:
    """Does not come back: libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=list(PACKAGES)):
        from fuzz.targets import TARGETS
    from fuzz import target as limits
    from fuzz.target import MAX_BYTES, bytes_of, check, text_of

    target = TARGETS[name]
    limits.LIMIT_S = LIMIT_S
    target.run(target.seeds[0])  # what is loaded at the first use is no part of a call
    FOUND.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="polymath-fuzz-") as corpus:
        for number, seed in enumerate(target.seeds):
            (Path(corpus) / str(number)).write_bytes(bytes_of(seed))
        options = {
            "max_total_time": seconds, "max_len": MAX_BYTES, "timeout": 30, "rss_limit_mb": MEMORY_MB,
            "artifact_prefix": f"{FOUND}/{name}-", "print_final_stats": 0, "verbosity": 1,
        }  # fmt: skip
        flags = [f"-{key}={value}" for key, value in options.items()]

        def once(data: bytes) -> None:
            check(target, text_of(data))

        atheris.Setup([sys.argv[0], *flags, corpus], once)
        atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
