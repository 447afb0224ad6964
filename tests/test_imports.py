"""Which room imports which, no two files that import each other, nothing heavy before it is needed.

A room is a folder inside a package, or a file that lies at a package's top. Imports inside functions
count like any other: a circle that is hidden in a function is still a circle.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping, Set
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("pipeline", "teacher", "student", "flows", "any2seg")
HEAVY = ("torch", "torchvision", "transformers", "timm", "prefect", "zarr", "webdataset")


def floors(*rooms: str) -> dict[str, set[str]]:
    """Rooms from the ground up: each may import all those before it."""
    return {room: set(rooms[:height]) for height, room in enumerate(rooms)}


PIPELINE = floors(
    "pipeline",
    "pipeline.errors",
    "pipeline.schemas",
    "pipeline.modalities",
    "pipeline.core",
    "pipeline.storage",
    "pipeline.formats",
    "pipeline.datasets",
    "pipeline.config",
    "pipeline.workspace",
    "pipeline.shards",
    "pipeline.targets",
)
TEACHER = floors(
    "teacher.contract",
    "teacher.checkpoints",
    "teacher.preprocessing",
    "teacher.towers",
    "teacher.custom_teacher",
    "teacher.own",
    "teacher.families",
    "teacher.open",
    "teacher.encoding",
    "teacher.requirements",
    "teacher.preview",
    "teacher.tiny",
    "teacher.check_tower",
    "teacher",
)
STUDENT = {
    "student": set(),
    "student.model": set(),
    "student.runs": {"student.model"},
    "student.data": {"student.runs"},
    "student.losses": {"student.model", "student.data"},
    "student.evaluation": {"student.model", "student.runs", "student.data"},
    "student.inference": {"student.model", "student.runs", "student.evaluation"},
    "student.training": {
        "student.model",
        "student.runs",
        "student.data",
        "student.losses",
        "student.evaluation",
    },
    "student.worker": {"student.runs"},
}
SERVICES = {"flows.report": set(), "flows.planning": {"flows.report"}, "flows.integrity": set()}
"""What flows and commands call: they know no Prefect and no flow."""
PREFECT_FILES = {f"flows.{path.stem}" for path in (ROOT / "flows").glob("*.py")} - {
    "flows.__init__"
}
FLOOR = set(PIPELINE)
EVERYTHING_BELOW = FLOOR | {"pipeline.onboarding"} | set(TEACHER) | set(STUDENT)
ALLOWED: Mapping[str, Set[str]] = {
    **PIPELINE,
    "pipeline.onboarding": FLOOR - {"pipeline.targets"},
    **{room: FLOOR | lower for room, lower in TEACHER.items()},
    **{room: FLOOR | lower for room, lower in STUDENT.items()},
    **{room: EVERYTHING_BELOW | others for room, others in SERVICES.items()},
    **{room: EVERYTHING_BELOW | set(SERVICES) | PREFECT_FILES for room in PREFECT_FILES},
    "flows": set(),
    "flows.cli": EVERYTHING_BELOW | set(SERVICES) | PREFECT_FILES,
    "any2seg": EVERYTHING_BELOW | {"any2seg.project"},
    "any2seg.project": EVERYTHING_BELOW | set(SERVICES) | PREFECT_FILES,
}
"""Room to the other rooms that it may import."""


@cache
def modules() -> Mapping[str, Path]:
    """Dotted name to file of every module of the packages."""
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    dotted = {path: path.relative_to(ROOT).with_suffix("").parts for path in files}
    return {".".join(p[:-1] if p[-1] == "__init__" else p): path for path, p in dotted.items()}


def room_of(module: str) -> str:
    """`student.model` for `student.model.fusion`, `flows.stages` for itself, `teacher` for its door."""
    return ".".join(module.split(".")[:2])


def imports(source: str, package: str) -> Iterator[str]:
    """Absolute names that a file of `package` imports anywhere, types alone excepted."""
    tree = ast.parse(source)
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level else ""
            origin = ".".join(part for part in (base, node.module) if part)
            yield from (f"{origin}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from (str(a.value) for a in node.args[:1] if isinstance(a, ast.Constant))


def imported_modules(module: str) -> set[str]:
    """The packages' own modules that `module` imports, itself excepted."""
    path = modules()[module]
    package = module if path.stem == "__init__" else module.rpartition(".")[0]
    names = list(imports(path.read_text(encoding="utf-8"), package))
    full = {name if name in modules() else name.rpartition(".")[0] for name in names}
    return {name for name in full if name in modules() and name != module}


def forbidden(room: str, imported: Set[str]) -> set[str]:
    """Those of the imported modules that the room may not import."""
    return {name for name in imported if room_of(name) not in ALLOWED[room] | {room}}


@pytest.mark.parametrize("module", sorted(modules()))
def test_a_file_imports_only_what_its_room_may(module: str) -> None:
    assert forbidden(room_of(module), imported_modules(module)) == set()


def test_no_two_files_import_each_other() -> None:
    edges = {module: imported_modules(module) for module in modules()}
    # What is left after all files without imports were taken away, again and again, are circles.
    while leaves := [module for module, imported in edges.items() if not imported & edges.keys()]:
        for module in leaves:
            del edges[module]
    assert sorted(edges) == []


def test_no_room_imports_itself_through_another() -> None:
    below = {room: set(allowed) for room, allowed in ALLOWED.items() if room not in PREFECT_FILES}
    while leaves := [room for room, allowed in below.items() if not allowed & below.keys()]:
        for room in leaves:
            del below[room]
    assert sorted(below) == []


def test_no_folder_has_more_than_20_files() -> None:
    tops = (*PACKAGES, "tests", "benchmarks", "examples")
    folders = [str(path.parent) for top in tops for path in (ROOT / top).rglob("*.py")]
    assert {folder: folders.count(folder) for folder in folders if folders.count(folder) > 20} == {}


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("student.model.mff", "import teacher"),
        ("teacher.encoding.units", "def f():\n    from student.model.student import Student"),
        ("pipeline.core.hub", "from pipeline.storage import files"),
        ("pipeline.datasets.base", "import flows.cli.main as cli"),
        ("student.runs.run", "from student.training import train"),
        ("student.data.augment", "import importlib\nimportlib.import_module('teacher.towers')"),
        ("flows.integrity.verify", "from flows.flows import any2seg"),
    ],
)
def test_the_table_forbids(module: str, source: str) -> None:
    names = list(imports(source, module.rpartition(".")[0]))
    full = {name if name in modules() else name.rpartition(".")[0] or name for name in names}
    assert forbidden(room_of(module), full & modules().keys())


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("student.model.mff", "import pipeline.config.config"),
        ("pipeline.datasets.synthetic.street", "from . import primitives"),
        ("flows.stages", "from teacher import load_tower\nimport student.training.train"),
        ("student.model.mff", "teacher_source = 1"),
        ("student.model.mff", "if TYPE_CHECKING:\n    from teacher import Tower"),
    ],
)
def test_the_table_allows(module: str, source: str) -> None:
    names = list(imports(source, module.rpartition(".")[0]))
    full = {name if name in modules() else name.rpartition(".")[0] or name for name in names}
    assert not forbidden(room_of(module), full & modules().keys())


LIGHT = [
    [name for name in modules() if room_of(name) in ("pipeline.core", "pipeline.config")],
    [name for name in modules() if room_of(name) in ("pipeline.storage", "pipeline.shards")],
    [name for name in modules() if room_of(name) in ("pipeline.targets", "pipeline.onboarding")],
    ["teacher"],
    ["teacher.encoding.identity"],
    ["student.runs.inputs"],
    ["flows.cli.main"],
    ["any2seg"],
]


@pytest.mark.parametrize("names", LIGHT, ids=lambda names: names[-1])
def test_light_modules_import_nothing_heavy(names: list[str]) -> None:
    code = f"import sys, {', '.join(names)}; print(*(m for m in {HEAVY} if m in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
