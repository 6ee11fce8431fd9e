"""Triton kernels run in Triton's interpreter. One thread: on tiny tensors and busy cores, more wait for one another."""

import os

os.environ.setdefault("TRITON_INTERPRET", "1")

import torch

torch.set_num_threads(1)
