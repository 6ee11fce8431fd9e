"""The validation ladder of each kernel on a GPU, run by `python -m benchmarks.gpu_check`."""
