"""What no kernel limit bounds for one job, measured from outside of it: the size of its box and its threads.

A watched job can overshoot by what it does between two looks.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

WATCH_SECONDS = 0.02
"""Time between two looks at a job."""


def excess(pid: int, box: str | None, limits: Mapping[str, int]) -> tuple[str, str] | None:
    """The limit that the job breaks now and a sentence about it: `("box", ...)` or `("threads", ...)`."""
    threads = thread_count(pid)
    if threads > limits["threads"]:
        return "threads", f"started more than {limits['threads']} threads"
    if box is not None:
        size, entries = box_use(box, limits["box_bytes"], limits["box_entries"])
        if size > limits["box_bytes"]:
            return "box", f"wrote more than {limits['box_bytes']} bytes of files"
        if entries > limits["box_entries"]:
            return "box", f"made more than {limits['box_entries']} files, or folders deeper than a path may be long"
    return None


def thread_count(pid: int) -> int:
    """Threads of a process; 0 where it has ended or no /proc shows it."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name in the second field may hold anything, so the fields are counted behind its closing bracket.
            return int(file.read().rpartition(b")")[2].split()[17])
    except (OSError, IndexError, ValueError):
        return 0


def box_use(box: str, max_bytes: int, max_entries: int) -> tuple[int, int]:
    """Bytes allocated and entries below a folder that its owner goes on changing, counted no further than the first of
    the limits. A folder that can not be looked into counts as one entry too many: changing its mode, or anything else,
    by a path that the job may swap for a link would be a weapon in its hands.
    """
    size = entries = 0
    pending = [box]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(folder) as found:
                for entry in found:
                    entries += 1
                    size += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    if size > max_bytes or entries > max_entries:
                        return size, entries
        except FileNotFoundError:
            continue
        except OSError:
            return size, max_entries + 1
    return size, entries
