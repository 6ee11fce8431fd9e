"""Fuzzing of graders and parsers: `python -m fuzz` (coverage-guided, by atheris), and the same targets under hypothesis
in `tests/rewards/test_fuzz_targets.py`."""
