"""Which files of a repository the policy may have changed: the rest is put back before anything is judged."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from pathlib import PurePosixPath

HARNESS_NAMES = (
    "conftest.py",
    "pytest.ini",
    ".pytest.ini",
    "setup.cfg",
    "tox.ini",
    "pyproject.toml",
    "sitecustomize.py",
    "usercustomize.py",
)
"""Files that steer an interpreter or a test runner, in whatever folder; so do the suffixes below."""

HARNESS_SUFFIXES = (".pth", ".pyc", ".pyo", ".so", ".egg-link")


def restore(files: Mapping[str, str], protected: Mapping[str, str]) -> dict[str, str]:
    """The files to judge: the policy's, with every protected one as it was.

    A file that would stand in for a protected one (a package of the same name) and files that steer an interpreter or
    a test runner are left out.

    Raises:
        ValueError: for a path that is absolute, leaves the folder, or is not spelled in its shortest form (another
            spelling of a protected path would be written over it).
    """
    for path in files:
        if not path or posixpath.normpath(path) != path or path.startswith(("/", "../")) or path in (".", ".."):
            raise ValueError(f"expected a relative path in its shortest form, got {path[:80]!r}")
    shadowed = {path.removesuffix(".py") for path in protected if path.endswith(".py")}
    kept = {
        path: text
        for path, text in files.items()
        if path not in protected and not is_harness(path) and not _is_under(path, shadowed)
    }
    return {**kept, **protected}


def is_harness(path: str) -> bool:
    """Whether a file of that path can steer the interpreter or a test runner instead of being judged itself."""
    pure = PurePosixPath(path)
    return pure.name in HARNESS_NAMES or pure.name.endswith(HARNESS_SUFFIXES) or "__pycache__" in pure.parts


def _is_under(path: str, folders: set[str]) -> bool:
    return any(str(parent) in folders for parent in PurePosixPath(path).parents)
