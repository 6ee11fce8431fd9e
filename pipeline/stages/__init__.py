"""The stages of the pipeline: what each needs, which settings it depends on, and where its code is.

A stage is a pure step from input artifacts to output artifacts. This file is what the planner reads; the code of a
stage (`pipeline.stages.<name>`, function `run(context) -> StageResult`) is imported only when it runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
        sections: top-level configuration sections that its result depends on.
        does: one line for `pipeline plan`.
    """

    name: str
    needs: tuple[str, ...]
    sections: tuple[str, ...]
    does: str


STAGES: tuple[StageSpec, ...] = (
    StageSpec("base", (), ("seed", "model", "domains", "base"), "tokenizer and dense base checkpoint"),
    StageSpec("sparsify", ("base",), ("seed", "model", "sparsify"), "indexer, dense warm-up, sparse training"),
    StageSpec("judge", ("base",), ("seed", "domains", "judge"), "generative reward model"),
    StageSpec(
        "specialists",
        ("sparsify", "judge"),
        ("seed", "domains", "sampling", "rewards", "sandbox", "judge", "specialists"),
        "one checkpoint per domain, by RL",
    ),
    StageSpec(
        "distill",
        ("sparsify", "judge", "specialists"),
        ("seed", "domains", "sampling", "rewards", "sandbox", "distill"),
        "verified samples of the specialists, one generalist by SFT",
    ),
    StageSpec(
        "grpo",
        ("judge", "distill"),
        ("seed", "domains", "sampling", "rewards", "sandbox", "judge", "grpo"),
        "one mixed GRPO stage",
    ),
    StageSpec(
        "evaluate",
        ("base", "sparsify", "specialists", "distill", "grpo"),
        ("seed", "domains", "sampling", "rewards", "sandbox", "evaluate"),
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
