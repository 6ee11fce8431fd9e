"""What goes into the sandbox and what comes out: `Limits`, `Job`, `JobResult`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Literal, get_args

Status = Literal[
    "ok", "compile_error", "runtime_error", "cpu_limit", "wall_limit", "memory", "output_limit", "sandbox_error"
]
Kind = Literal["program", "calls", "trusted", "cpp", "compile"]


class SandboxUnavailable(RuntimeError):
    """No (or not the wanted) sandbox works on this machine; the message says what was tried and what the
    kernel said.
    """


@dataclass(frozen=True)
class Limits:
    """Limits of one job. `cpu_seconds` are whole seconds (RLIMIT_CPU); `output_bytes` bounds each of
    stdout, stderr, the result and every file the job writes; `box_bytes` and `box_entries` all files of its folder
    together, and `threads` its threads: these three are watched, and a job overshoots them for some 20 ms. The wall
    limit is meant for sleepers: a job that has computed for a tenth of it gets up to three times as long, until its
    CPU limit ends it.
    """

    cpu_seconds: int = 2
    wall_seconds: float = 10.0
    memory_bytes: int = 512 << 20
    output_bytes: int = 1_000_000
    stack_bytes: int = 64 << 20
    open_files: int = 64
    threads: int = 128
    box_bytes: int = 16 << 20
    box_entries: int = 4096


@dataclass(frozen=True)
class Call:
    """One function call: `module` is None for the job's own source, else a module among the job's files."""

    function: str
    args: Sequence[Any]
    module: str | None = None


@dataclass(frozen=True)
class Job:
    """One thing to run. Make it with `program`, `function`, `in_files`, `cpp` or `trusted_call`.

    Inputs are text and JSON values. Expected outputs have no field here on purpose: the caller compares.
    """

    kind: Kind
    source: str | None = None
    stdin: str = ""
    calls: tuple[Call, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    target: str = ""
    args: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        for path in self.files:
            pure = PurePosixPath(path)
            if not path or pure.is_absolute() or ".." in pure.parts or "\0" in path:
                raise ValueError(f"a file of a job needs a relative path without '..', got {path!r}")

    @staticmethod
    def program(source: str, stdin: str = "", files: Mapping[str, str] | None = None) -> Job:
        """Run `source` as `__main__` with `stdin`; with `files`, in a fresh writable folder that holds
        them.
        """
        return Job("program", source=source, stdin=stdin, files=dict(files or {}))

    @staticmethod
    def function(source: str, name: str, calls: Sequence[Sequence[Any]]) -> Job:
        """Define `source` once and call `name` with each list of arguments."""
        return Job("calls", source=source, calls=tuple(Call(name, tuple(args)) for args in calls))

    @staticmethod
    def in_files(files: Mapping[str, str], calls: Sequence[Call]) -> Job:
        """Write `files` into a fresh folder and call functions of the modules in it."""
        return Job("calls", files=dict(files), calls=tuple(calls))

    @staticmethod
    def cpp(source: str, stdin: str = "") -> Job:
        """Compile `source` as C++20 and run the program with `stdin`. Equal sources are compiled once; a source that
        does not compile ends as `compile_error`. Needs the tier `bubblewrap` and g++ (`SandboxWorker.compiler`).
        """
        return Job("cpp", source=source, stdin=stdin)

    @staticmethod
    def trusted_call(target: str, *args: Any) -> Job:
        """Call our own function `package.module:name` with JSON arguments; its JSON result is
        `results[0].value`.

        The function is trusted, its arguments are not: it runs in the same killable, confined child.
        """
        if ":" not in target:
            raise ValueError(f"a trusted call names 'package.module:function', got {target!r}")
        return Job("trusted", target=target, args=args)

    def payload(self) -> bytes:
        """The JSON that the child reads. Raises `TypeError` or `ValueError` for arguments that are not
        JSON.
        """
        return json.dumps(self.record(), allow_nan=False).encode()

    def record(self) -> dict[str, Any]:
        """All of it as plain values, for `from_record`."""
        return {
            "kind": self.kind,
            "source": self.source,
            "stdin": self.stdin,
            "files": dict(self.files),
            "calls": [[call.module, call.function, list(call.args)] for call in self.calls],
            "target": self.target,
            "args": list(self.args),
        }

    @staticmethod
    def from_record(record: Any) -> Job:
        """The job of a record that somebody sent. Raises `ValueError` where it is none."""
        try:
            kind, source, stdin, files, calls, target, args = (
                record[name] for name in ("kind", "source", "stdin", "files", "calls", "target", "args")
            )
            if kind not in ("program", "calls", "trusted", "cpp"):
                raise ValueError(f"unknown kind {kind!r}")
            texts = [stdin, target, *files, *files.values(), *([] if source is None else [source])]
            called = tuple(Call(function, list(given), module) for module, function, given in calls)
            texts += [call.function for call in called] + [call.module for call in called if call.module is not None]
            if not all(isinstance(text, str) for text in texts) or not isinstance(args, list):
                raise TypeError("a text is no text")
            job = Job(kind, source, stdin, called, dict(files), target, tuple(args))
            job.payload()
            return job
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"expected the record of a job: {type(error).__name__}: {error}") from None


@dataclass(frozen=True)
class CallResult:
    """What one call returned, as a plain JSON value, or why it did not return."""

    ok: bool
    value: Any = None
    error: str | None = None


@dataclass(frozen=True)
class JobResult:
    """How a job ended. Only `sandbox_error` is our fault (the reward is then invalid); every other status
    that is not `ok` is the program's. `exit_code` is reported and never evidence of anything: `os._exit(0)`
    gives 0.
    """

    status: Status
    stdout: str = ""
    stderr: str = ""
    results: tuple[CallResult, ...] = ()
    exit_code: int = 0
    signal: int = 0
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    max_rss_bytes: int = 0
    error: str = ""

    @staticmethod
    def from_record(record: Any) -> JobResult:
        """The result of `dataclasses.asdict` after JSON. Raises `ValueError` where it is none."""
        try:
            results = tuple(CallResult(entry["ok"], entry["value"], entry["error"]) for entry in record["results"])
            result = JobResult(**{**record, "results": results})
        except (KeyError, TypeError) as error:
            raise ValueError(f"expected the record of a result: {type(error).__name__}: {error}") from None
        texts = (result.stdout, result.stderr, result.error)
        numbers = (result.exit_code, result.signal, result.cpu_seconds, result.wall_seconds, result.max_rss_bytes)
        if (
            result.status not in get_args(Status)
            or not all(isinstance(text, str) for text in texts)
            or not all(isinstance(number, int | float) for number in numbers)
            or not all(entry.ok in (True, False) for entry in results)
        ):
            raise ValueError("expected the record of a result, got values of other types")
        return result


def parse_results(data: bytes) -> tuple[CallResult, ...] | None:
    """The child's result as plain JSON values, or None when it is not what our runner writes."""
    try:
        entries = json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        return None
    return tuple(
        CallResult(True, entry["value"])
        if "value" in entry
        else CallResult(False, error=str(entry.get("error")))
        for entry in entries
    )


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
