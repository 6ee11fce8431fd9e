"""What a task can do to the world between the policy's turns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

ToolSpec = dict[str, Any]
"""A tool in OpenAI's shape: {"type": "function", "function": {"name", "description", "parameters"}}."""


class Environment(Protocol):
    """The world of one attempt. Made afresh for each attempt, never shared between two."""

    def call(self, name: str, arguments: Mapping[str, Any]) -> str:
        """Runs a tool and returns what the policy reads. A call that makes no sense (unknown tool, missing or wrong
        argument) is answered by a text that starts with `error:`; it never raises for what the policy wrote."""

    def state(self) -> Mapping[str, Any]:
        """What the judge needs to know at the end (final files, pages opened), JSON-serialisable."""


def tool(name: str, description: str, **parameters: str) -> ToolSpec:
    """A tool whose parameters are all required strings or integers: `tool("view", "Show a file.", path="string")`."""
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": description,
            "parameters": {
                "type": "object",
                "properties": {key: {"type": kind} for key, kind in parameters.items()},
                "required": list(parameters),
            },
        },
    }
