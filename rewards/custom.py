"""A reward function of your own, with the signature that TRL's trainers use, named by its dotted path.

    def brevity(prompts, completions, **columns) -> list[float | None]:
        return [1.0 if len(completion[0]["content"]) < 80 else 0.0 for completion in completions]

Prompts and completions are conversations (lists of `{"role", "content"}` messages); every further column of
the data comes as a keyword with one entry per sample. None means "no opinion" and masks the sample.
"""

from __future__ import annotations

import importlib
import inspect
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rewards.types import Component, Reward

RewardFunction = Callable[..., Sequence[float | None]]
Conversation = Sequence[Mapping[str, Any]]


class CustomRewardError(Exception):
    """The dotted path does not lead to a function that can be called; the message says what is missing."""


class CustomReward:
    """The function at `path`: `package.module:function` or `package.module.function`, also from the current
    directory.

    Raises `CustomRewardError` when it cannot be loaded (at once, not at the first step).
    """

    def __init__(self, path: str, weight: float = 1.0):
        self.path = path
        self.weight = weight
        self._function = load_function(path)

    def score(
        self,
        prompts: Sequence[Conversation],
        completions: Sequence[Conversation],
        completion_ids: Sequence[Sequence[int]] | None = None,
        **columns: Sequence[Any],
    ) -> list[Reward]:
        """One reward per completion. An exception makes every sample invalid, None, NaN or infinity the one
        sample.

        Raises `CustomRewardError` when the function does not return one entry per completion: which sample
        an entry belongs to would be a guess.
        """
        arguments = {
            "prompts": prompts,
            "completions": completions,
            "completion_ids": completion_ids,
            **columns,
        }
        try:
            values = self._function(**_accepted(self._function, arguments))
        except Exception as error:  # whatever the user's code raises is the reason that the reader is shown
            reason = f"custom reward {self.path}: {type(error).__name__}: {error}"
            return [Reward.invalid(reason) for _ in completions]
        # Arrays and tensors are welcome too: anything with a length, in order.
        count = len(values) if hasattr(values, "__len__") else None
        if count != len(completions):
            raise CustomRewardError(
                f"custom reward {self.path} must return a list with one entry per completion "
                f"({len(completions)}), got {type(values).__name__ if count is None else count}"
            )
        return [self._reward(value) for value in values]

    def _reward(self, value: Any) -> Reward:
        if value is None:
            return Reward.invalid(f"custom reward {self.path}: no opinion (None)")
        try:
            number = float(value)
        except (TypeError, ValueError):
            return Reward.invalid(f"custom reward {self.path}: {value!r} is not a number")
        if not math.isfinite(number):
            return Reward.invalid(f"custom reward {self.path}: {number} is not finite")
        return Reward.of(
            [Component(f"custom:{self.path}", number, self.weight, self.weight * number)], passed=None
        )


def load_function(path: str) -> RewardFunction:
    """Import the function that `path` names; the current directory is searched as well."""
    module_name, separator, name = path.partition(":") if ":" in path else path.rpartition(".")
    if not (separator and module_name and name):
        raise CustomRewardError(
            f"a reward function is named 'module:function' or 'module.function', got {path!r}"
        )
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise CustomRewardError(f"custom reward {path}: cannot import {module_name!r}: {error}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise CustomRewardError(f"custom reward {path}: {module_name!r} has no function {name!r}")
    checked: RewardFunction = function
    return checked


def _accepted(function: RewardFunction, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """TRL passes every column; a function without `**kwargs` gets those that it names."""
    parameters = inspect.signature(function).parameters
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return dict(arguments)
    return {name: value for name, value in arguments.items() if name in parameters}
