"""GPU work in a process of its own: a kernel that hangs or breaks its CUDA context takes no other work with it."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any


class WorkerFailed(RuntimeError):
    """The process ended early, or said nothing for too long."""


def messages(body: Callable[..., None], *arguments: Any, patience: float) -> Iterator[Any]:
    """What `body(send, *arguments)` sends from a new process, in order.

    Args:
        body: a function of a module, called in the new process with `send` first.
        patience: seconds without a message after which the process is killed.

    Raises:
        WorkerFailed: after the messages that came, with the reason.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(body, sender, arguments), daemon=True)
    process.start()
    sender.close()
    try:
        while True:
            begin = time.monotonic()
            if not receiver.poll(patience):
                raise WorkerFailed(f"no word for {patience:.0f} s: it hangs, or compiles for too long")
            try:
                message = receiver.recv()
            except EOFError:
                process.join()
                if process.exitcode != 0:
                    after = f"{time.monotonic() - begin:.0f} s after its last word"
                    raise WorkerFailed(f"its process ended with code {process.exitcode}, {after}") from None
                return
            yield message
    finally:
        process.kill()
        process.join()


def _run(body: Callable[..., None], sender: Any, arguments: tuple[Any, ...]) -> None:
    body(sender.send, *arguments)
    sender.close()
    sys.stdout.flush()
    os._exit(0)  # a broken CUDA context would abort the usual way out
