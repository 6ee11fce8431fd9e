"""The manifest of a stage: what it was made from, what it left, and how far it got."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from pipeline.config.schema import Config
from pipeline.runs.artifact import Artifact, hash_path, stat_signature
from pipeline.runs.atomic import write_json
from pipeline.runs.own_files import GONE, own_files
from pipeline.runs.versions import package_version
from pipeline.stages import StageSpec

State = Literal["running", "done", "failed", "interrupted"]

NOT_IN_KEY = (
    "*.checkpoint_every",
    "sparsify.gradient_checkpointing",
    "sparsify.stats_every",
    "specialists.wave",
    "judge.concurrency",
    "judge.timeout_s",
    "judge.api_key_env",
    "sandbox.url",
    "sandbox.token_env",
    "judge.cache",
    "judge.host",
)
"""Settings of a stage's sections that change how it runs, not what comes out."""

Inputs = dict[str, str]
"""Content hash of every input artifact, by `stage/artifact`, and of every own file of the user, by its setting."""


@dataclass
class Manifest:
    """`manifest.json` in a stage's folder.

    Attributes:
        stage: its name.
        key: hash of settings, inputs and package version; equal keys give equal results.
        state: `running` of a driver that is dead means that it was killed.
        settings: full key -> value of the sections that the stage depends on, without `NOT_IN_KEY`.
        inputs: hashes of what it read.
        outputs: what it left, by name.
        signatures: names, sizes and times of each output and own file, to notice cheaply that somebody wrote to it.
        sandbox: tier and self-test of the sandbox that ran the policy's programs; empty where none did.
        seconds: time spent in all attempts; `attempts` counts them.
    """

    stage: str
    key: str
    state: State
    settings: dict[str, Any]
    inputs: Inputs
    outputs: dict[str, Artifact] = field(default_factory=dict)
    signatures: dict[str, str | None] = field(default_factory=dict)
    seed: int = 0
    package: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    sandbox: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    started: str = ""
    finished: str | None = None
    seconds: float = 0.0
    attempts: int = 0
    error: str | None = None

    @staticmethod
    def new(spec: StageSpec, config: Config, inputs: Inputs, before: Manifest | None = None) -> Manifest:
        """The manifest that the stage would have now. Own files that nobody touched since `before` are not read."""
        settings = stage_settings(spec, config)
        own, signatures = _own_hashes(own_files(spec, config), before)
        inputs = inputs | own
        package = package_version()
        content = json.dumps([spec.name, settings, inputs, package], sort_keys=True)
        key = hashlib.sha256(content.encode()).hexdigest()
        return Manifest(
            spec.name, key, "running", settings, inputs, signatures=signatures, seed=config.seed, package=package
        )

    @staticmethod
    def read(folder: Path) -> Manifest | None:
        """The manifest in a stage's folder; None if there is none or it can not be read."""
        try:
            row = json.loads((folder / "manifest.json").read_text())
            row["outputs"] = {name: Artifact.from_json(output) for name, output in row["outputs"].items()}
            return Manifest(**row)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, folder: Path) -> None:
        row = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        row["outputs"] = {name: output.to_json() for name, output in self.outputs.items()}
        write_json(folder / "manifest.json", row)

    def hashes(self) -> Inputs:
        """Hashes of its outputs as inputs of a later stage."""
        return {f"{self.stage}/{name}": output.sha256 for name, output in sorted(self.outputs.items())}

    def differences(self, now: Manifest) -> list[str]:
        """Why `now` has another key, one reason each: `base.steps 400 → 300`."""
        reasons = [
            f"{key} {_shown(self.settings.get(key))} → {_shown(now.settings.get(key))}"
            for key in sorted(self.settings.keys() | now.settings.keys())
            if self.settings.get(key) != now.settings.get(key)
        ]
        for name in sorted(self.inputs.keys() | now.inputs.keys()):
            before, after = self.inputs.get(name), now.inputs.get(name)
            if before == after:
                continue
            if "/" not in name:
                setting_changed = self.settings.get(name) != now.settings.get(name)
                reasons += [] if setting_changed else [f"{name}: file {_happened(before, after)}"]
            else:
                reasons.append(f"input {name} {(before or 'absent')[:8]} → {(after or 'absent')[:8]}")
        if self.package != now.package:
            reasons.append(f"polymath-rl {self.package} → {now.package}")
        return reasons

    def damage(self, run: Path) -> list[str]:
        """Outputs that are not on disk as they were left, one sentence each."""
        found = []
        for name, output in self.outputs.items():
            path = output.at(run)
            signature = stat_signature(path)
            if signature is None:
                found.append(f"output {name} is gone ({output.path})")
            elif signature != self.signatures.get(name) and hash_path(path) != output.sha256:
                found.append(f"output {name} was changed on disk ({output.path})")
        return found


def stage_settings(spec: StageSpec, config: Config) -> dict[str, Any]:
    """The settings that a stage's result depends on, flat."""
    wanted = [entry for entry in spec.sections if not entry.startswith("-")]
    skipped = [*NOT_IN_KEY, *(entry[1:] for entry in spec.sections if entry.startswith("-"))]
    flat: dict[str, Any] = {}
    for section in dict.fromkeys(entry.partition(".")[0] for entry in wanted):
        plain = json.loads(json.dumps(_to_plain(getattr(config, section))))
        flat.update(_flatten(plain, section))
    return {
        key: value
        for key, value in flat.items()
        if any(_is_under(key, entry) for entry in wanted) and not any(_is_under(key, entry) for entry in skipped)
    }


def _is_under(key: str, entry: str) -> bool:
    return fnmatchcase(key, entry) or fnmatchcase(key, f"{entry}.*")


def _own_hashes(files: Mapping[str, Path], before: Manifest | None) -> tuple[Inputs, dict[str, str | None]]:
    """Hashes and signatures of own files, by their setting."""
    hashes: Inputs = {}
    signatures: dict[str, str | None] = {}
    for name, path in files.items():
        signature = signatures[name] = stat_signature(path)
        if signature is None:
            hashes[name] = GONE
        elif before is not None and name in before.inputs and before.signatures.get(name) == signature:
            hashes[name] = before.inputs[name]
        else:
            hashes[name] = _hash_once(path.absolute(), signature)
    return hashes, signatures


@functools.cache
def _hash_once(path: Path, signature: str) -> str:
    """Several stages of a plan ask for the same file."""
    return hash_path(path)


def _happened(before: str | None, after: str | None) -> str:
    if before is None:
        return "not on record"
    return "is gone" if after in (None, GONE) else "changed"


def _to_plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return {name: _to_plain(inner) for name, inner in value.items()}
    return value


def _flatten(value: Any, prefix: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for name, inner in value.items():
        flat.update(_flatten(inner, f"{prefix}.{name}"))
    return flat


def _shown(value: Any) -> str:
    return "unset" if value is None else json.dumps(value, ensure_ascii=False)
