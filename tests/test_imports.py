"""The arrows between the rooms, and what may not be imported before it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ALLOWED = {
    "pipeline": set(),
    "teacher": {"pipeline"},
    "student": {"pipeline"},
    "flows": {"pipeline", "teacher", "student"},
    "any2seg": {"pipeline", "teacher", "student", "flows"},
}
"""Room to the other rooms that it may import."""
HEAVY = ("torch", "torchvision", "transformers", "timm", "prefect", "zarr", "webdataset")


def imports(source: str, package: str) -> Iterator[tuple[int, str]]:
    """Line and absolute module name of every import anywhere in a file of `package`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level else ""
            yield node.lineno, ".".join(part for part in (base, node.module) if part)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            names = [a.value for a in node.args[:1] if isinstance(a, ast.Constant)]
            yield from ((node.lineno, str(name)) for name in names)


def wrong_arrows(source: str, package: str) -> list[tuple[int, str]]:
    room = package.split(".")[0]
    others = set(ALLOWED) - ALLOWED[room] - {room}
    return [(line, name) for line, name in imports(source, package) if name.split(".")[0] in others]


FILES = sorted(path for room in ALLOWED for path in (ROOT / room).rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_wrong_arrow(path: Path) -> None:
    package = ".".join(path.parent.relative_to(ROOT).parts)
    assert wrong_arrows(path.read_text(), package) == []


def test_every_room_was_walked() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in FILES} == set(ALLOWED)


@pytest.mark.parametrize(
    ("source", "package"),
    [
        ("import teacher", "student"),
        ("def f():\n    from student.model.student import Model", "teacher"),
        ("from teacher import towers", "pipeline"),
        ("import flows.cli.main as cli", "pipeline.datasets"),
        ("import importlib\nimportlib.import_module('teacher.towers.vision_tower')", "student"),
    ],
)
def test_the_walk_sees_a_wrong_arrow(source: str, package: str) -> None:
    assert len(wrong_arrows(source, package)) == 1


@pytest.mark.parametrize(
    ("source", "package"),
    [
        ("import pipeline.config.config", "student"),
        ("from . import scene", "pipeline.datasets.synthetic"),
        ("from ..base import X", "pipeline.datasets.synthetic"),
        ("from teacher import Tower\nimport student.training.train", "flows"),
        ("teacher_source = 1", "student"),
    ],
)
def test_the_walk_lets_right_arrows_pass(source: str, package: str) -> None:
    assert wrong_arrows(source, package) == []


PIPELINE = sorted(path.stem for path in (ROOT / "pipeline").glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize(
    "modules",
    [
        [f"pipeline.{name}" for name in PIPELINE],
        ["teacher"],
        ["teacher.encoding.identity"],
        ["student.runs.inputs"],
        ["flows.cli.main"],
        ["any2seg"],
    ],
    ids=lambda modules: modules[0],
)
def test_light_modules_import_nothing_heavy(modules: list[str]) -> None:
    code = f"import sys, {', '.join(modules)}; print(*(m for m in {HEAVY} if m in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
