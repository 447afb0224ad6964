"""Text files are read and written as UTF-8, not as the locale has it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("any2seg", "pipeline", "teacher", "student", "flows", "examples")
FILES = sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))
TEXT_CALLS = {"read_text", "write_text", "fdopen"}
NO_TEXT = {"tarfile"}
"""Modules whose `open` has modes of its own."""


def by_locale(source: str) -> list[int]:
    """Lines of calls that open text without an encoding, or start a process whose text has none."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [call.lineno for call in calls if _is_by_locale(call)]


def _is_by_locale(call: ast.Call) -> bool:
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if "encoding" in keywords or "b" in _mode(call, keywords):
        return False
    if isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) in NO_TEXT:
        return False
    text = keywords.get("text")
    if name in TEXT_CALLS or (isinstance(text, ast.Constant) and text.value is True):
        return True
    is_open = isinstance(call.func, ast.Name) and name == "open"
    return is_open or (name == "open" and bool(_mode(call, keywords)))


def _mode(call: ast.Call, keywords: dict[str | None, ast.expr]) -> str:
    """The mode that `open` is given, if it is a text."""
    nodes = [*call.args[:2], *([keywords["mode"]] if "mode" in keywords else [])]
    texts = [node.value for node in nodes if isinstance(node, ast.Constant)]
    return next((t for t in texts if isinstance(t, str) and set(t) <= set("rwxabt+")), "")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_text_has_an_encoding(path: Path) -> None:
    assert by_locale(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "path.read_text()",
        "path.write_text(text)",
        "open(path)",
        "path.open('a')",
        "open(path, mode='w')",
        "subprocess.run(words, text=True)",
    ],
)
def test_what_the_locale_decides_is_noticed(source: str) -> None:
    assert by_locale(source) == [1]


@pytest.mark.parametrize(
    "source",
    ["path.read_text(encoding='utf-8')", "open(path, 'rb')", "path.open('wb')", "Image.open(path)"],
)
def test_what_it_does_not_decide_is_not(source: str) -> None:
    assert by_locale(source) == []
