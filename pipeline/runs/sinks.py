"""Copies of the metrics for TensorBoard, trackio and Weights & Biases; `events.jsonl` stays the truth.

A metric is called `<stage>/<domain>/<name>`, and `<name>` is what TRL calls it where TRL has it. Every stage and domain
counts its own steps.
"""

from __future__ import annotations

import hashlib
import io
import logging
import numbers
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from pipeline.errors import ResourceError, UsageError

logger = logging.getLogger(__name__)

WAIT_S = 60
"""How long Weights & Biases may take to answer when a run begins."""


class Sink(Protocol):
    """Takes the metrics of one step."""

    def log(self, prefix: str, step: int, metrics: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in `<run>/tensorboard`."""

    def __init__(self, run: Path, project: str, config: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run / "tensorboard"))  # type: ignore[no-untyped-call]

    def log(self, prefix: str, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(f"{prefix}/{name}", value, step)  # type: ignore[no-untyped-call]
        self._writer.flush()  # type: ignore[no-untyped-call]

    def close(self) -> None:
        self._writer.close()  # type: ignore[no-untyped-call]


class Trackio:
    """A run of trackio's local database; `trackio show --project polymath` serves it."""

    def __init__(self, run: Path, project: str, config: Mapping[str, Any]) -> None:
        import trackio

        self._run = trackio.init(
            project=project, name=f"{run.name}-{_identity(run)}", config=dict(config), resume="allow", embed=False
        )

    def log(self, prefix: str, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log({f"{prefix}/{name}": value for name, value in metrics.items()}, step=step)

    def close(self) -> None:
        self._run.finish()


class WandB:
    """A run of Weights & Biases: online, or in files below the run's folder where `WANDB_MODE=offline`."""

    def __init__(self, run: Path, project: str, config: Mapping[str, Any]) -> None:
        import wandb

        # `console`: the terminal belongs to the progress of the run.
        settings = wandb.Settings(silent=True, console="off", init_timeout=WAIT_S, login_timeout=WAIT_S)
        self._run = wandb.init(
            project=project, name=run.name, id=_identity(run), resume="allow", dir=run, config=dict(config),
            settings=settings,
        )
        self._known: set[str] = set()

    def log(self, prefix: str, step: int, metrics: Mapping[str, float]) -> None:
        if prefix not in self._known:
            # Its own step never goes back, and every stage counts from 0.
            self._run.define_metric(f"{prefix}/*", step_metric=f"{prefix}/step")
            self._known.add(prefix)
        self._run.log({f"{prefix}/step": step} | {f"{prefix}/{name}": value for name, value in metrics.items()})

    def close(self) -> None:
        self._run.finish()


SINKS: dict[str, type[TensorBoard] | type[Trackio] | type[WandB]] = {
    "tensorboard": TensorBoard,
    "trackio": Trackio,
    "wandb": WandB,
}
"""By the name of the package, which is the name of the extra that installs it."""


def check_installed(names: Sequence[str]) -> None:
    """Raises `UsageError` for sinks whose package is not there."""
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"metrics.sinks: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed; "
            f"pip install 'polymath-rl[{','.join(missing)}]', or leave out."
        )


class Sinks:
    """The chosen sinks of a run.

    One that fails later is named in the log and left out from there on: a viewer that is down is no reason to stop.

    Args:
        names: some of `SINKS`.
        run: folder of the run; the same folder goes on with the same run of the sink.
        project: what trackio and Weights & Biases file the run under.
        config: the run's settings, for the sinks that show them.

    Raises:
        ResourceError: if one does not start (no login, for example).
    """

    def __init__(
        self, names: Sequence[str] = (), run: Path = Path(), project: str = "", config: Mapping[str, Any] | None = None
    ) -> None:
        self._open: dict[str, Sink] = {}
        for name in names:
            try:
                with redirect_stdout(io.StringIO()):  # the terminal belongs to the progress of the run
                    self._open[name] = SINKS[name](run, project, config or {})
            except Exception as error:  # what a login or a server may raise is not ours to list
                self.close()
                raise ResourceError(f"metrics.sinks: {name} did not start: {error}") from error

    def log(self, stage: str, domain: str | None, step: int, metrics: Mapping[str, Any]) -> None:
        """Passes on the metrics that are numbers."""
        prefix = f"{stage}/{domain}" if domain else stage
        plain = {
            name: float(value)
            for name, value in metrics.items()
            if isinstance(value, numbers.Real) and not isinstance(value, bool)
        }
        for name, sink in list(self._open.items()):
            try:
                sink.log(prefix, step, plain)
            except Exception:
                logger.exception("metrics.sinks: %s failed and gets nothing more in this run", name)
                del self._open[name]

    def close(self) -> None:
        """Lets the sinks write what they still hold."""
        for name, sink in self._open.items():
            try:
                with redirect_stdout(io.StringIO()):
                    sink.close()
            except Exception:
                logger.exception("metrics.sinks: %s did not end well", name)
        self._open.clear()


def _identity(run: Path) -> str:
    """The same for the same folder, so that a run that goes on goes on there too."""
    return hashlib.sha256(str(run.resolve()).encode()).hexdigest()[:8]
