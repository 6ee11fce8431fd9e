"""The stages of the pipeline: what each needs, which settings it depends on, and where its code is.

A stage is a pure step from input artifacts to output artifacts. This file is what the planner reads; the code of a
stage (`pipeline.stages.<name>`, function `run(context) -> StageResult`) is imported only when it runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specialists import DOMAINS

if TYPE_CHECKING:
    from pipeline.config.schema import Config
    from pipeline.progress import Progress
    from pipeline.runs import Artifact, Events
    from pipeline.runtime import Runtime


@dataclass(frozen=True)
class StageSpec:
    """What the planner knows of a stage without importing it.

    Attributes:
        name: also the folder under the run and the module under `pipeline.stages`.
        needs: stages whose artifacts it reads.
        sections: what of the configuration its result depends on: sections and keys, `*` for any name, and with a `-`
            before it what of a section it does not read.
        does: one line for `pipeline plan`.
        instead: settings that, where all are given, stand in for every needed stage.
    """

    name: str
    needs: tuple[str, ...]
    sections: tuple[str, ...]
    does: str
    instead: tuple[str, ...] = ()

    def needs_under(self, config: Config) -> tuple[str, ...]:
        """The stages that it needs under these settings."""
        if self.name == "evaluate":
            compared = {CHECKPOINTS[name] for name in config.evaluate.checkpoints}
            return tuple(name for name in self.needs if name in compared)
        given = [attrgetter(key)(config) is not None for key in self.instead]
        return () if given and all(given) else self.needs

    @property
    def tries(self) -> bool:
        """Whether it has tasks tried and judged, and so reads the user's own data and reward functions."""
        return "sampling" in self.sections


CHECKPOINTS = {
    "base": "base",
    "sparsified": "sparsify",
    "specialists": "specialists",
    "distilled": "distill",
    "final": "grpo",
}
"""What `evaluate` can compare, by name, and the stage that makes it."""


def _not(*keys: str) -> tuple[str, ...]:
    """Settings of every domain that a stage does not read."""
    return tuple(f"-domains.*.{key}" for key in keys)


_GENERATED = tuple(
    f"domains.{name}.{key}" for name in DOMAINS for key in ("enabled", "levels", "languages", "corpus_share")
)
"""What the generated corpus depends on: a domain of the user's own is not in it."""

_TRIALS = ("seed", "domains", "sampling", "rewards", "sandbox", "judge")
"""What trying and judging tasks depends on."""

_LESSONS = ("domains.writing.levels", "domains.writing.languages")
"""What the judge's lessons depend on."""

STAGES: tuple[StageSpec, ...] = (
    StageSpec("base", (), ("seed", "model", "base", *_GENERATED), "tokenizer and dense base checkpoint"),
    StageSpec(
        "sparsify",
        ("base",),
        ("seed", "model", "sparsify"),
        "indexer, dense warm-up, sparse training",
        instead=("model.path", "sparsify.data"),
    ),
    StageSpec("judge", ("base",), ("seed", "judge", *_LESSONS), "generative reward model"),
    StageSpec(
        "specialists",
        ("sparsify", "judge"),
        ("specialists", *_TRIALS, *_not("share", "corpus_share")),
        "one checkpoint per domain, by RL",
    ),
    StageSpec(
        "distill",
        ("sparsify", "judge", "specialists"),
        ("distill", *_TRIALS, *_not("share", "corpus_share", "kl_coef", "group_size")),
        "verified samples of the specialists, one generalist by SFT",
    ),
    StageSpec(
        "grpo",
        ("judge", "distill"),
        ("grpo", *_TRIALS, *_not("corpus_share", "specialist_steps")),
        "one mixed GRPO stage",
    ),
    StageSpec(
        "evaluate",
        ("base", "sparsify", "specialists", "distill", "grpo"),
        ("evaluate", *_TRIALS, *_not("share", "corpus_share", "kl_coef", "group_size", "specialist_steps")),
        "held-out tasks, table, plots, report",
    ),
)


def stage(name: str) -> StageSpec:
    return next(spec for spec in STAGES if spec.name == name)


@dataclass(frozen=True)
class StageContext:
    """What a stage is given.

    Attributes:
        config: the resolved configuration.
        folder: where the stage writes, `runs/<run>/<stage>/`; what is there from an interrupted attempt with the
            same key may be gone on from.
        inputs: artifacts of the needed stages, by stage and artifact name: `inputs["base"]["checkpoint"]`.
        events: the run's metrics.
        progress: bars on a terminal, lines elsewhere.
        runtime: where actors live.
    """

    config: Config
    folder: Path
    inputs: Mapping[str, Mapping[str, Artifact]]
    events: Events
    progress: Progress
    runtime: Runtime


@dataclass(frozen=True)
class StageResult:
    """What a stage leaves: artifacts by name, counts for the manifest, and figures for people."""

    artifacts: Mapping[str, Artifact]
    counts: Mapping[str, int] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)
