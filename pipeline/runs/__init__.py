"""Run folders: manifests with content hashes, metrics, rollouts, and writes that a crash can not tear."""

from pipeline.runs.artifact import Artifact, hash_path
from pipeline.runs.atomic import atomic_file, commit_folder, write_bytes, write_json, write_text
from pipeline.runs.events import Events, last_steps, read_alarms, read_events
from pipeline.runs.manifest import Manifest
from pipeline.runs.rollouts import read_rollouts, rollouts_path, write_rollouts
from pipeline.runs.run import Run, Sources, find_runs

__all__ = [
    "Artifact",
    "Events",
    "Manifest",
    "Run",
    "Sources",
    "atomic_file",
    "commit_folder",
    "find_runs",
    "hash_path",
    "last_steps",
    "read_alarms",
    "read_events",
    "read_rollouts",
    "rollouts_path",
    "write_bytes",
    "write_json",
    "write_rollouts",
    "write_text",
]
