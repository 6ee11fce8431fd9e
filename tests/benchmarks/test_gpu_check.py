"""What `python -m benchmarks.gpu_check` says when things go wrong; the checks themselves need a GPU."""

from __future__ import annotations

import os

import pytest
import torch

from benchmarks import gpu_check
from benchmarks.gpu_check import Line, closing_line, run_module
from benchmarks.worker import WorkerFailed, messages


def test_a_module_that_cannot_be_imported_is_a_failed_line() -> None:
    (line,) = run_module("no_such_module", patience=100)
    assert not line.ok
    assert "no_such_module" in line.detail
    assert "FAILED" in str(line)


def test_a_process_that_dies_is_reported() -> None:
    # Called with `send`, os._exit raises: the process ends with code 1.
    with pytest.raises(WorkerFailed, match="ended with code 1"):
        list(messages(os._exit, patience=100))


def test_a_process_that_says_nothing_is_killed() -> None:
    with pytest.raises(WorkerFailed, match="no word for 0 s"):
        list(messages(os._exit, patience=0.01))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["gpu_check"])
    assert gpu_check.main() == 2
    assert "torch sees none here" in capsys.readouterr().out


def test_closing_line_counts() -> None:
    lines = [Line("topk", "ties", True, 0.1, ""), Line("topk", "rows", False, 0.1, "2 of 9")]
    assert closing_line(lines, 3.2) == "2 checks, 1 ok, 1 failed, in 3 s"
