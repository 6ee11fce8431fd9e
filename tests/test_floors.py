"""An import only ever goes down a floor; what must start fast or run in a sandbox does not import torch."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOOR = {"kernels": 1, "rewards": 1, "model": 2, "rollout": 3, "specialists": 4, "pipeline": 5}
WITHOUT_TORCH = ("rewards", "specialists", "rollout/records.py", "rollout/environment.py", "rollout/tools.py")
WITHOUT_TORCH += ("rollout/seeding.py",)


def imports(file: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute name of every import in a file, those inside functions too."""
    package = file.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(file.read_text(), str(file))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            yield node.lineno, ".".join([*above, *([node.module] if node.module else [])])


def files_of(name: str) -> list[Path]:
    path = ROOT / name
    return [path] if path.is_file() else sorted(path.rglob("*.py"))


@pytest.mark.parametrize("room", FLOOR)
def test_imports_only_go_down(room):
    wrong = []
    for file in files_of(room):
        for line, name in imports(file):
            other = name.partition(".")[0]
            if other in FLOOR and other != room and FLOOR[other] >= FLOOR[room]:
                wrong.append(f"{file.relative_to(ROOT)}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", WITHOUT_TORCH)
def test_no_torch(name):
    wrong = [
        f"{file.relative_to(ROOT)}:{line} imports {imported}"
        for file in files_of(name)
        for line, imported in imports(file)
        if imported.partition(".")[0] in ("torch", "transformers", "model", "kernels")
    ]
    assert not wrong, "\n".join(wrong)
