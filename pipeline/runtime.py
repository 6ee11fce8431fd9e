"""Where actors live: Ray (the default) or this very process (`inline`, for tests and debugging).

Nothing else in the project knows which one runs. Every wait has a deadline, and its error names who waited for whom.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from pipeline import quiet
from pipeline.config.schema import Config, RuntimeConfig
from pipeline.errors import ResourceError, StageError

T = TypeVar("T")


class Pending(Protocol):
    """An answer under way."""

    def result(self, deadline_s: float | None = None) -> Any:
        """Waits for the answer. Raises `StageError` when it does not come in time or the actor failed."""


class Handle(Protocol):
    """An actor: `handle.call("method", …).result()`."""

    name: str

    def call(self, method: str, *args: Any) -> Pending: ...

    def stop(self) -> None:
        """Ends the actor; what it committed to disk stays."""


class Runtime(Protocol):
    log: Path | None
    """The log file of the stage under way; actors write theirs to it too."""

    def spawn(self, cls: type, *args: Any, name: str, num_cpus: float = 1.0) -> Handle:
        """Starts `cls(*args)` as an actor that is restarted when it dies. Its `__init__` must reload what it had
        committed, and its methods must be idempotent: a call is repeated after a restart."""

    @property
    def parallel(self) -> bool:
        """True if two actors really run at the same time."""

    def shutdown(self) -> None: ...


def create_runtime(config: Config) -> Runtime:
    """The runtime of the configuration; nothing is started before the first `spawn`."""
    return InlineRuntime() if config.runtime.backend == "inline" else RayRuntime(config.runtime)


class InlineRuntime:
    """All actors in this process; a call has its answer when it returns."""

    parallel = False

    def __init__(self) -> None:
        self.log: Path | None = None
        self._handles: list[_InlineHandle[Any]] = []

    def spawn(self, cls: type, *args: Any, name: str, num_cpus: float = 1.0) -> Handle:
        handle = _InlineHandle(cls(*args), name)
        self._handles.append(handle)
        return handle

    def shutdown(self) -> None:
        for handle in self._handles:
            handle.stop()
        self._handles.clear()


class _InlineHandle(Generic[T]):
    def __init__(self, actor: T, name: str) -> None:
        self.actor: T | None = actor
        self.name = name

    def call(self, method: str, *args: Any) -> Pending:
        return _Done(getattr(self.actor, method)(*args))

    def stop(self) -> None:
        close = getattr(self.actor, "close", None)
        if close is not None:
            close()
        self.actor = None


class _Done:
    def __init__(self, value: Any) -> None:
        self.value = value

    def result(self, deadline_s: float | None = None) -> Any:
        return self.value


RESTARTS = 8
"""Times that an actor is restarted before its death ends the stage."""

CLOSE_DEADLINE_S = 5.0
"""How long an actor may take to end its own processes."""


ACTOR_ENVIRONMENT = {
    # glibc gives large blocks back to the system at once, and every training step takes them again: keeping them
    # saves a tenth of a step on CPU.
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_TOP_PAD_": str(2**26),
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    # A thread of libgomp that waits for the others turns 300 000 times before it sleeps. Beside another busy program
    # that keeps the core from the very thread that it waits for: training on two cores was 45 times slower. With this
    # it is twice as slow beside such a program, and within the noise (0 to 10 %) alone.
    "GOMP_SPINCOUNT": "3000",
}
"""What makes an actor's process fast."""


def _python_path() -> str:
    """Actors import what the driver's folder holds: the user's own reward function, for example."""
    return os.pathsep.join(part for part in (os.getcwd(), os.environ.get("PYTHONPATH", "")) if part)


class RayRuntime:
    """Actors of Ray. On a laptop a single-node Ray of its own, never a cluster that happens to run."""

    parallel = True

    def __init__(self, config: RuntimeConfig) -> None:
        self.config = config
        self.log: Path | None = None
        self._handles: list[_RayHandle] = []
        self._started = False

    def spawn(self, cls: type, *args: Any, name: str, num_cpus: float = 1.0) -> Handle:
        import ray

        self._start()
        gpus = self.config.gpus_per_worker if getattr(cls, "uses_gpu", False) else 0.0
        self._require({"CPU": num_cpus, "GPU": gpus}, name)
        options: dict[str, Any] = {
            "num_cpus": num_cpus,
            "num_gpus": gpus,
            "max_restarts": RESTARTS,
            "max_task_retries": RESTARTS,
        }
        if self.log is not None:
            options["runtime_env"] = {"env_vars": {quiet.LOG_VARIABLE: str(self.log.absolute())}}
        actor: Any = ray.remote(cls).options(**options).remote(*args)
        handle = _RayHandle(actor, name, self.config, closes=hasattr(cls, "close"))
        self._handles.append(handle)
        return handle

    def _start(self) -> None:
        if self._started:
            return
        import ray

        quiet.set_environment()
        local = self.config.address == "local"
        ray.init(
            address=self.config.address,
            num_cpus=self.config.num_cpus if local else None,
            include_dashboard=False if local else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=256 * 2**20 if local else None,
            runtime_env={
                "env_vars": quiet.environment(**ACTOR_ENVIRONMENT) | {"PYTHONPATH": _python_path()},
                "worker_process_setup_hook": "pipeline.quiet.log_actor",
            },
        )
        self._started = True

    def _require(self, wanted: dict[str, float], name: str) -> None:
        """Raises `ResourceError` at once for what the cluster can never give: Ray itself would wait for ever."""
        import ray

        total = ray.cluster_resources()
        for resource, amount in wanted.items():
            if amount > total.get(resource, 0.0):
                raise ResourceError(
                    f"{name} needs {amount:g} {resource} and the cluster has {total.get(resource, 0.0):g}; "
                    "lower specialists.wave or runtime.gpus_per_worker, or start a larger Ray"
                )

    def shutdown(self) -> None:
        if not self._started:
            return
        import ray

        for handle in self._handles:
            handle.stop()
        self._handles.clear()
        ray.shutdown()
        self._started = False


class _RayHandle:
    def __init__(self, actor: Any, name: str, config: RuntimeConfig, closes: bool) -> None:
        self.actor, self.name, self.config, self._closes = actor, name, config, closes
        self._stopped = False

    def call(self, method: str, *args: Any) -> Pending:
        return _RayPending(getattr(self.actor, method).remote(*args), self.name, method, self.config.step_deadline_s)

    def stop(self) -> None:
        import ray

        if self._stopped:
            return
        self._stopped = True
        if self._closes:
            # Its own processes and folders go first; an actor that is busy or dead is ended all the same.
            with suppress(ray.exceptions.RayError):
                ray.get(self.actor.close.remote(), timeout=CLOSE_DEADLINE_S)
        ray.kill(self.actor)


class _RayPending:
    def __init__(self, ref: Any, actor: str, method: str, deadline_s: float) -> None:
        self.ref, self.actor, self.method, self.deadline_s = ref, actor, method, deadline_s

    def result(self, deadline_s: float | None = None) -> Any:
        import ray

        deadline_s = deadline_s or self.deadline_s
        try:
            return ray.get(self.ref, timeout=deadline_s)
        except ray.exceptions.GetTimeoutError:
            raise StageError(
                f"the driver waited {deadline_s:g} s for {self.method} of {self.actor} and got no answer; raise "
                "runtime.step_deadline_s if the step is that long"
            ) from None
        except ray.exceptions.RayTaskError as error:
            cause = error.cause if isinstance(error.cause, Exception) else error
            raise StageError(f"{self.actor} failed in {self.method}: {cause}") from error
        except ray.exceptions.RayActorError as error:
            raise StageError(f"{self.actor} died in {self.method} and was not restarted any more: {error}") from error
