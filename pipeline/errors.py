"""The ways a command can end other than well, and the exit code of each."""

from __future__ import annotations

from pathlib import Path

EXIT_OK = 0
EXIT_USAGE = 2
EXIT_RESOURCES = 3
EXIT_STAGE = 4
EXIT_INTERRUPTED = 130


class PipelineError(Exception):
    """An error meant for a person: a sentence that says what was expected, what came and what to do.

    `go_on` is the command that continues from here, if there is one.
    """

    exit_code = EXIT_STAGE

    def __init__(self, message: str, go_on: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.go_on = go_on


class UsageError(PipelineError):
    """The command asks for something that does not exist or can not be done."""

    exit_code = EXIT_USAGE


class ResourceError(PipelineError):
    """The machine or the cluster can not give what the run needs."""

    exit_code = EXIT_RESOURCES


class StageError(PipelineError):
    """A stage could not do its work; `log` is where the details are."""

    exit_code = EXIT_STAGE

    def __init__(self, message: str, go_on: str | None = None, log: Path | None = None) -> None:
        super().__init__(message, go_on)
        self.log = log


class Interrupted(PipelineError):
    """The run was asked to stop (SIGINT or SIGTERM); what was done so far is kept."""

    exit_code = EXIT_INTERRUPTED
