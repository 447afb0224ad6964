"""The public names: where they come from, what importing them costs, and that types are shipped."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

import any2seg
import pipeline

ROOT = Path(__file__).parents[2]
PACKAGES = ("any2seg", "pipeline", "teacher", "student", "flows")
HEAVY = ("torch", "prefect", "zarr", "transformers", "webdataset", "pyarrow")


def test_every_public_name_is_the_object_of_its_module() -> None:
    homes = {
        "Config": "pipeline.config.config",
        "CustomTeacher": "teacher.custom_teacher",
        "Project": "any2seg.project",
        "Segmenter": "student.inference.segmenter",
        "load_text_tower": "teacher.towers.text_tower",
        "load_tower": "teacher.towers.vision_tower",
        "open": "any2seg.project",
    }
    assert set(any2seg.__all__) == {*homes, "__version__"}
    for name, module in homes.items():
        assert getattr(any2seg, name) is getattr(import_module(module), name)
    assert any2seg.__version__ == pipeline.VERSION


def test_dir_lists_the_public_names() -> None:
    assert sorted(any2seg.__all__) == dir(any2seg)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'any2seg' has no attribute 'Segmentor'"):
        any2seg.Segmentor  # noqa: B018


def test_importing_it_imports_nothing_heavy() -> None:
    code = (
        "import sys, any2seg; dir(any2seg); any2seg.__version__; "
        f"print(*(m for m in {HEAVY} if m in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_all_packages_ship_their_types() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    build = project["hatch"]["build"]["targets"]
    assert set(build["wheel"]["packages"]) == set(PACKAGES)
    assert set(PACKAGES) <= set(build["sdist"]["include"])
    assert set(project["mypy"]["packages"]) == {*PACKAGES, "examples"}
    for package in PACKAGES:
        assert (ROOT / package / "py.typed").is_file()
