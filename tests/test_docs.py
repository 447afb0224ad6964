"""The pages: examples import the public package alone, links and anchors lead somewhere, and
docs/architecture.md agrees with the tree."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.test_imports import ALLOWED, PREFECT_FILES

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


def dotted(room: str) -> str:
    """`pipeline.core` for `pipeline/core/`, `pipeline.errors` for `pipeline/errors.py`."""
    return room.removesuffix("/").removesuffix(".py").replace("/", ".")


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


def test_the_table_of_rooms_agrees_with_that_of_imports() -> None:
    names = [dotted(room) for room in rooms()]
    # Files of Prefect's floor are one row: among themselves the table has no order.
    ordered = [name for name in names if name in ALLOWED and name not in PREFECT_FILES]
    upward = [
        (name, other)
        for height, name in enumerate(ordered)
        for other in ordered[height + 1 :]
        if other in ALLOWED[name]
    ]
    assert len(ordered) > 25
    assert set(names) <= set(ALLOWED)
    assert upward == []
