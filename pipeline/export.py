"""Checkpoints by the names people use (`base`, `sparsified`, `specialist/math`, `distilled`, `final`), and
their export.

A stored checkpoint already is a Hugging Face folder; exporting verifies it, copies it whole or not at all,
and adds a model card that says where it came from.
"""

from __future__ import annotations

import difflib
import shutil
import uuid
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.runs import Artifact, Manifest, commit_folder, hash_path, write_text
from pipeline.runs.versions import versions

STAGE_OF = {"base": "base", "sparsified": "sparsify", "distilled": "distill", "final": "grpo"}
"""Which stage leaves the checkpoint of a name; `specialist/<domain>` is left by `specialists`."""

SPECIALIST = "specialist/"


def checkpoints(run: Path) -> dict[str, Artifact]:
    """The checkpoints that a run has, by name, in the order of the pipeline."""
    stages = {stage: Manifest.read(run / stage) for stage in (*STAGE_OF.values(), "specialists")}
    outputs = {
        stage: found.outputs if found and found.state == "done" else {} for stage, found in stages.items()
    }
    single = {
        name: outputs[stage]["checkpoint"]
        for name, stage in STAGE_OF.items()
        if "checkpoint" in outputs[stage]
    }
    specialists = {
        SPECIALIST + name: artifact
        for name, artifact in outputs["specialists"].items()
        if artifact.kind == "checkpoint"
    }
    before = {name: artifact for name, artifact in single.items() if name in ("base", "sparsified")}
    return before | specialists | single


def resolve_checkpoint(run: Path, name: str) -> Path:
    """Folder of a checkpoint of the run, or `name` itself where it is a folder of a checkpoint.

    Raises:
        UsageError: if the run has none of this name; says which it has and the command that would make it.
    """
    if (Path(name) / "config.json").is_file():
        return Path(name)
    return find_checkpoint(run, name).at(run)


def find_checkpoint(run: Path, name: str) -> Artifact:
    """The checkpoint of a name as its stage's manifest has it; see `resolve_checkpoint`."""
    found = checkpoints(run)
    if name.startswith("specialists/"):
        name = SPECIALIST + name.removeprefix("specialists/")
    if name in found:
        return found[name]
    there = f"there are: {', '.join(found)}" if found else "it has none yet"
    stage = "specialists" if name.startswith(SPECIALIST) else STAGE_OF.get(name)
    if stage == "specialists" and any(other.startswith(SPECIALIST) for other in found):
        stage = None  # the stage is done, so it is the domain's name that is wrong
    if stage is not None:
        command = f"pipeline run {stage} --run {run}"
        raise UsageError(
            f"run {run} has no checkpoint {name!r}; {there}. `{command}` makes it.", go_on=command
        )
    known = [*found, *STAGE_OF, f"{SPECIALIST}<domain>"]
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise UsageError(f"unknown checkpoint {name!r}{hint} Run {run}: {there}.")


def export_checkpoint(run: Path, checkpoint: str, out: Path) -> Path:
    """Copies a checkpoint to the new folder `out` with a model card (`README.md`); gives `out`.

    Raises:
        UsageError: if there is no such checkpoint, if it is not what its manifest says, or if `out` is in
        use.
    """
    artifact = find_checkpoint(run, checkpoint)
    source = artifact.at(run)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} exists and is not empty; give another folder")
    if not source.is_dir():
        raise UsageError(f"the checkpoint {checkpoint!r} is gone: expected a folder at {source}")
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        shutil.copytree(source, temporary)
        # The copy is what gets used, so it is the copy that is hashed.
        if (actual := hash_path(temporary)) != artifact.sha256:
            raise UsageError(
                f"the checkpoint {checkpoint!r} at {source} is damaged: its manifest says SHA-256 "
                f"{artifact.sha256[:12]}…, found {actual[:12]}…; run its stage again"
            )
        write_text(temporary / "README.md", model_card(run, checkpoint, artifact))
        commit_folder(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return out


def model_card(run: Path, checkpoint: str, artifact: Artifact) -> str:
    """What the checkpoint is and what it was made from, in Markdown."""
    stage = Path(artifact.path).parts[0]
    manifest = Manifest.read(run / stage)
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: text-generation",
        "---",
        "",
        f"# {checkpoint}",
        "",
        f"Checkpoint `{checkpoint}` of the Polymath run `{run.resolve().name}`, left by the stage `{stage}`.",
        "The attention is DeepSeek Sparse Attention, except in `base`, which is dense.",
        "",
        "| | |",
        "| --- | --- |",
        f"| SHA-256 of the folder without this file | `{artifact.sha256}` |",
    ]
    if manifest is not None:
        lines.append(f"| finished | {manifest.finished or 'unknown'} |")
        lines.append(f"| seed | {manifest.seed} |")
        lines.extend(f"| input `{name}` | `{digest}` |" for name, digest in sorted(manifest.inputs.items()))
        lines.extend(f"| {name} | {count} |" for name, count in manifest.counts.items())
    made_with = manifest.versions if manifest is not None and manifest.versions else versions()
    lines.extend(f"| {name} | {version} |" for name, version in made_with.items())
    return "\n".join([*lines, ""])
