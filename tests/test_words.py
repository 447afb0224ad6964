"""One word a concept: retired words (docs/glossary.md has the current ones) occur nowhere.

Checked are identifiers, prose in code (docstrings, comments, messages, help texts) and pages. History
stays as it was written: docs/log.md and CHANGELOG.md are not checked.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("any2seg", "pipeline", "teacher", "student", "flows", "benchmarks")
HISTORY = {"docs/log.md", "CHANGELOG.md"}

RETIRED_PROSE = {
    r"\b(for )?want of\b": "out of, for lack of",
    r"\bmend(s|ed|ing)?\b": "fix, repair",
    r"\b(is|are|was|were) gone\b": "no longer exists",
    r"\bwithout a word\b": "silently",
    r"\btold\b": "reported, given",
    r"\bpictures?\b": "image",
    r"\btrees? of (pictures|images)\b": "dataset folder",
    r"\b(is|are) there already\b": "already exists",
    r"\bdamaged (readings?|inputs?)\b": "corrupted inputs",
    r"\b(sensor|normalised|set of|sets of) readings?\b": "inputs",
    r"\bma(ke|kes|de|king) (it |them )?again\b": "rebuild",
    r"\bgo(es|ing)? on (at|from|with|exactly)\b": "resume",
    r"\b[Ww]rites nothing\b": "leave it out",
    r"\braises nothing\b|\bnothing can fail\b": "leave it out",
    r"\b[Nn]othing is written\b": "leave it out",
    r"\bcounts? nowhere\b": "ignored",
    r"\bvouch(es|ed|ing)?\b": "name the digest, record or rule",
    r"\buntaught\b": "missing_target",
}
"""Expression in docstrings, comments, messages and pages, to what to write instead."""

RETIRED_NAMES = {
    "found": "the thing's name",
    "wanted": "expected, requested",
    "there": "exists, present",
    "told": "messages, report",
    "place": "row, match, window, crop",
    "places": "rows, matches, windows, crops",
    "leads": "is_main_process",
    "pieces": "micro_batches",
    "_piece": "_backward_microbatch",
    "_apart": "_no_sync",
    "look_back": "_after_step",
    "_figures": "_reduce_metrics",
    "taught": "has_target",
    "untaught": "missing_target",
    "lacking": "missing, incomplete",
    "readings": "inputs",
    "pictures": "images",
    "Damage": "Corruption",
    "Placed": "publish_once",
    "Placement": "Crop",
    "Place": "Match, RowId, Window",
}
"""Identifier that is bound somewhere (assignment, argument, function, class, attribute), to its successor."""

ON_DISK = {("student/runs/run.py", "pictures")}
"""Names of files and fields of the format (storage_layout.md), which stay."""

DATA = {"a picture of {}."}
"""Texts that are data, not prose: what the tiny teacher was trained on."""


def prose_of(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of every comment and string of a module."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.COMMENT, tokenize.STRING) or token.type == getattr(
            tokenize, "FSTRING_MIDDLE", -1
        ):
            for offset, line in enumerate(token.string.splitlines()):
                yield token.start[0] + offset, line


def names_of(source: str) -> Iterator[tuple[int, str]]:
    """Line and name of everything that a module binds."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id if isinstance(node, ast.Name) else node.attr


def retired_prose(lines: Iterator[tuple[int, str]]) -> list[str]:
    # A lone word in quotes or backticks is a name of the format or of an option, not prose.
    quoted = re.compile(r"`[^`]*`|^[rbf]*([\"'])[\w./{}+-]*\1$")
    lines = ((number, text) for number, text in lines if text.strip("\"'") not in DATA)
    return [
        f"{number}: {match[0]!r} (now: {instead})"
        for number, text in lines
        for pattern, instead in RETIRED_PROSE.items()
        for match in re.finditer(pattern, quoted.sub("", text.strip()), re.IGNORECASE)
    ]


def modules() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def pages() -> list[Path]:
    files = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("configs/*.toml")]
    files += [path for package in PACKAGES for path in (ROOT / package).rglob("*.j*2")]
    files += [path for package in PACKAGES for path in (ROOT / package).rglob("*.jinja")]
    kept = {path for path in files if str(path.relative_to(ROOT)) not in HISTORY}
    return sorted(kept)


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", modules(), ids=relative)
def test_code_and_its_prose_use_no_retired_word(path: Path) -> None:
    source = path.read_text()
    names = [
        f"{number}: {name} (now: {RETIRED_NAMES[name]})"
        for number, name in names_of(source)
        if name in RETIRED_NAMES and (relative(path), name) not in ON_DISK
    ]
    problems = names + retired_prose(prose_of(source))
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("path", pages(), ids=relative)
def test_pages_use_no_retired_word(path: Path) -> None:
    lines = enumerate(path.read_text().splitlines(), 1)
    problems = retired_prose(lines)
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(
    "source",
    [
        "found = 1",
        "def f(places): ...",
        "class World:\n    leads: bool",
        "for place in (1, 2): ...",
        '"""Two pictures."""',
        "# ended for want of memory",
        "raise ValueError(f'{path}: is there already')",
        "log.warning('the store is gone')",
    ],
)
def test_the_check_sees_retired_words(source: str) -> None:
    names = [name for _, name in names_of(source) if name in RETIRED_NAMES]
    assert names or retired_prose(prose_of(source))


@pytest.mark.parametrize(
    "source",
    [
        "matches = 1",
        'scores["pictures"]',
        '"""Reads `pictures/<key>` of a run."""',
        "raise ValueError('expected an image, found an empty file')",
        "settings.readings_path",
    ],
)
def test_the_check_passes_current_words(source: str) -> None:
    assert [name for _, name in names_of(source) if name in RETIRED_NAMES] == []
    assert retired_prose(prose_of(source)) == []
