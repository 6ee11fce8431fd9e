"""A deadline for code that may never come back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def within(seconds: float, work: Callable[[], T]) -> T:
    """The result of `work`, in a thread of its own; what `work` raises is raised here.

    Raises:
        TimeoutError: when it is not done in time. The thread can not be ended and is left behind; it does not keep the
            process from ending.
    """
    box: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            box.append(work())
        except BaseException as error:  # handed to the caller as it is
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError(f"no result within {seconds:g} s")
    if errors:
        raise errors[0]
    return box[0]
