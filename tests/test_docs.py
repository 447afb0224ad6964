"""The pages: examples import the public package alone, links and anchors lead somewhere, and
docs/architecture.md agrees with the tree."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
INTERNAL = {"pipeline", "teacher", "student", "flows"}
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text()
STEP = re.compile(r"^\| \d+ \| `([\w/.]+)` \| (\d+) \|", re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def roots(code: str) -> set[str]:
    """Top-level packages that a piece of Python imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_import_only_the_public_package(page: Path) -> None:
    for code in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        assert roots(code) & INTERNAL == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith(("http://", "https://")):
            continue
        file, _, anchor = target.partition("#")
        linked = (page.parent / file).resolve() if file else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


def test_an_example_that_imports_a_room_is_seen() -> None:
    assert roots("import any2seg\nfrom student.inference import predict") & INTERNAL == {"student"}


def named_paths(text: str) -> list[str]:
    """Paths of the repository in backticks, in order; a folder's ends in `/`."""
    return re.findall(r"`((?:\w+/)+(?:\w+\.\w+)?)`", text)


def rooms() -> list[str]:
    """The first column of the table of rooms, from the ground up."""
    table = ARCHITECTURE.partition("| room |")[2].partition("\n\n")[0]
    return [path for row in table.splitlines()[2:] for path in named_paths(row.split("|")[1])]


def room_of(file: str, names: list[str]) -> str | None:
    """The innermost room that a file lies in."""
    return max((name for name in names if file.startswith(name)), key=len, default=None)


def imported_files(path: Path) -> set[str]:
    """Files of the repository that a file imports, functions included."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
            names.add(node.module)
    files = {f"{name.replace('.', '/')}.py" for name in names}
    return {file for file in files if (ROOT / file).is_file()}


def imports_upward(file: str, imported: str, names: list[str]) -> bool:
    """Whether a file imports from a room that stands lower in the table, that is, further up."""
    here, there = room_of(file, names), room_of(imported, names)
    return here is not None and there is not None and names.index(there) > names.index(here)


def test_every_path_in_the_architecture_exists() -> None:
    paths = named_paths(ARCHITECTURE)
    assert len(paths) > 40
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_line_counts_of_the_ten_files_are_right_within_a_tenth() -> None:
    steps = STEP.findall(ARCHITECTURE)
    assert len(steps) == 10
    counted = {path: len((ROOT / path).read_text().splitlines()) for path, _ in steps}
    wrong = [(p, n, counted[p]) for p, n in steps if abs(int(n) - counted[p]) > counted[p] / 10]
    assert wrong == []


def test_every_folder_of_code_is_a_room() -> None:
    names = rooms()
    folders = {
        f"{path.parent.relative_to(ROOT)}/"
        for package in INTERNAL
        for path in (ROOT / package).glob("*/*.py")
    }
    assert folders <= set(names)


def test_rooms_import_only_what_stands_higher_in_the_table() -> None:
    names = rooms()
    upward = [
        (file, imported)
        for package in [*INTERNAL, "any2seg"]
        for path in (ROOT / package).rglob("*.py")
        for imported in imported_files(path)
        if imports_upward(file := str(path.relative_to(ROOT)), imported, names)
    ]
    assert upward == []


def test_an_import_that_points_upward_is_seen() -> None:
    names = rooms()
    assert imports_upward("pipeline/core/child.py", "pipeline/targets/store.py", names)
    assert not imports_upward("pipeline/targets/store.py", "pipeline/core/child.py", names)
