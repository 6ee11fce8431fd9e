"""How a run shows that it moves: bars on a terminal, plain lines where the output is read by a program."""

from __future__ import annotations

import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from rich.progress import Progress as RichBars

PLAIN_EVERY_S = 2.0
"""A task prints at most one plain line in this time, its first and last step aside."""

_SHORT = {"tokens_per_s": "tokens/s"}


class Task(ABC):
    """Something with a number of steps."""

    @abstractmethod
    def advance(self, step: int | None = None, **metrics: Any) -> None:
        """One step further, or at `step`; metrics (`reward`, `loss`, `tokens_per_s`, …) stand beside it."""


class Progress(ABC):
    """What a stage reports to. Safe to use from several threads; several tasks may run at once."""

    @abstractmethod
    def stage(self, name: str) -> Any:
        """Context of one stage."""

    @abstractmethod
    def task(self, label: str, total: int, start: int = 0) -> Any:
        """Context of one task inside a stage, gives a `Task`; `start` is where an interrupted one goes on."""

    @abstractmethod
    def say(self, message: str) -> None:
        """One line for people."""


def make_progress(stream: IO[str] | None = None) -> Progress:
    """Bars if `stream` (standard output) is a terminal, plain lines otherwise."""
    stream = stream or sys.stdout
    return RichProgress(stream) if stream.isatty() else PlainProgress(stream)


class NullProgress(Progress):
    """Shows nothing."""

    class _Task(Task):
        def advance(self, step: int | None = None, **metrics: Any) -> None:
            pass

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        yield

    @contextmanager
    def task(self, label: str, total: int, start: int = 0) -> Iterator[Task]:
        yield self._Task()

    def say(self, message: str) -> None:
        pass


class PlainProgress(Progress):
    """One line at a time, at most one per task every two seconds."""

    def __init__(self, stream: IO[str], every_s: float = PLAIN_EVERY_S) -> None:
        self._stream = stream
        self._every_s = every_s
        self._lock = threading.Lock()
        self._stage = ""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self._stage = name
        began = time.monotonic()
        self.say(f"{name}: begins")
        yield
        self.say(f"{name}: done in {duration(time.monotonic() - began)}")

    @contextmanager
    def task(self, label: str, total: int, start: int = 0) -> Iterator[Task]:
        name = label if label == self._stage else f"{self._stage} {label}".strip()
        yield _PlainTask(self, name, _Pace(total, start), self._every_s)

    def say(self, message: str) -> None:
        with self._lock:
            print(message, file=self._stream, flush=True)


class _PlainTask(Task):
    def __init__(self, progress: PlainProgress, label: str, pace: _Pace, every_s: float) -> None:
        self._progress, self._label, self._pace, self._every_s = progress, label, pace, every_s
        self._printed: float | None = None

    def advance(self, step: int | None = None, **metrics: Any) -> None:
        pace, now = self._pace, time.monotonic()
        pace.advance(step)
        recent = self._printed is not None and now - self._printed < self._every_s
        if recent and pace.at < pace.total:
            return
        self._printed = now
        parts = [f"{self._label} {pace.at}/{pace.total}", *metric_texts(metrics), pace.eta()]
        self._progress.say("  ".join(part for part in parts if part))


class RichProgress(Progress):
    """A live bar per task; the bars of a stage go when it ends and one line stays."""

    def __init__(self, stream: IO[str]) -> None:
        from rich.console import Console

        self._console = Console(file=stream, highlight=False)
        self._bars: RichBars | None = None
        self._stage = ""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        from rich import progress as rich

        self._stage = name
        began = time.monotonic()
        self._bars = rich.Progress(
            rich.SpinnerColumn(),
            rich.TextColumn("[bold]{task.description}"),
            rich.BarColumn(bar_width=24),
            rich.TextColumn("{task.fields[count]}"),
            rich.TextColumn("{task.fields[metrics]}"),
            rich.TimeElapsedColumn(),
            rich.TextColumn("{task.fields[eta]}"),
            console=self._console,
            transient=True,
            redirect_stderr=False,  # it goes to the log of the stage
        )
        try:
            with self._bars:
                whole = self._bars.add_task(name, total=None, count="", metrics="", eta="")
                yield
                self._bars.remove_task(whole)
        finally:
            self._bars = None
        self._console.print(f"[green]✓[/] {name} [dim]{duration(time.monotonic() - began)}[/]")

    @contextmanager
    def task(self, label: str, total: int, start: int = 0) -> Iterator[Task]:
        bars = self._bars
        if bars is None:
            raise RuntimeError("a task needs a stage around it: with progress.stage(name): …")
        fields = {"count": f"{start}/{total}", "metrics": "", "eta": ""}
        shown = "steps" if label == self._stage else label
        number = bars.add_task(f"  {shown}", total=total, completed=start, **cast(dict[str, Any], fields))
        try:
            yield _RichTask(bars, number, _Pace(total, start))
        finally:
            bars.remove_task(number)

    def say(self, message: str) -> None:
        self._console.print(message, markup=False, soft_wrap=True)


class _RichTask(Task):
    def __init__(self, bars: RichBars, number: Any, pace: _Pace) -> None:
        self._bars, self._number, self._pace = bars, number, pace

    def advance(self, step: int | None = None, **metrics: Any) -> None:
        pace = self._pace
        pace.advance(step)
        fields: dict[str, Any] = {"count": f"{pace.at}/{pace.total}", "eta": pace.eta()}
        if metrics:
            fields["metrics"] = "  ".join(metric_texts(metrics))
        self._bars.update(self._number, completed=pace.at, **fields)


class _Pace:
    """Where a task is and how long the rest will take at the speed of this process so far."""

    def __init__(self, total: int, start: int) -> None:
        self.total, self.at = total, start
        self._start, self._began = start, time.monotonic()

    def advance(self, step: int | None) -> None:
        self.at = self.at + 1 if step is None else step

    def eta(self) -> str:
        done = self.at - self._start
        if done <= 0 or self.at >= self.total:
            return ""
        return f"eta {duration((time.monotonic() - self._began) / done * (self.total - self.at))}"


def metric_texts(metrics: dict[str, Any]) -> list[str]:
    """`reward 0.512`, `tokens/s 830`, … in the order given."""
    return [
        f"{_SHORT.get(name, name)} {number_text(value)}"
        for name, value in metrics.items()
        if value is not None
    ]


def number_text(value: Any) -> str:
    """Whole numbers in full, others with three significant digits."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return str(round(value)) if isinstance(value, int) or abs(value) >= 100 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """`8.3 s`, `2:05 min`, `1:02:05 h`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d} h" if hours else f"{minutes}:{rest:02d} min"
