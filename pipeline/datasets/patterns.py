"""File patterns: `images/{split}/*_rgb.png` finds files and says to which sample each belongs.

A pattern is a path under a root. In each of its parts `*` matches any text, `{split}` and
`{condition}` too; what `*` matched, joined by `/`, names the sample. A last part without a dot
matches every image. Only entries of folders are compared, never whole paths, so neither the name
of the root nor a link can confuse it. Hidden entries are skipped. An unreadable folder raises
`OSError`.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path, PurePosixPath

from pipeline.formats.image_file import EXTENSIONS

_TOKEN = re.compile(r"(\*|\{split\}|\{condition\})")
FIELDS = ("split", "condition")


@dataclass(frozen=True, slots=True, order=True)
class Match:
    """What the wildcards of a pattern matched in a file's path: the sample that the file belongs to."""

    split: str
    condition: str
    name: str


@dataclass(frozen=True, slots=True)
class Matches:
    """Every file that matches a pattern."""

    files: dict[Match, list[Path]] = field(default_factory=lambda: defaultdict(list))
    splits: set[str] = field(default_factory=set)
    """Splits named by a folder, with or without files in it."""


def find_files(root: Path, pattern: str) -> Matches:
    """All files under `root` that match."""
    matches = Matches()
    for path, match in _walk(root, pattern.split("/"), Match("", "", ""), matches.splits):
        matches.files[match].append(path)
    return matches


def check_pattern(pattern: str) -> str:
    """The pattern itself. `ValueError` says what is wrong with it."""
    parts = PurePosixPath(pattern).parts
    if not parts or pattern.startswith("/") or ".." in parts or "/".join(parts) != pattern:
        raise ValueError(
            f"{pattern!r}: expected a path under the root, e.g. images/{{split}}/*.png"
        )
    if "*" not in pattern:
        raise ValueError(f"{pattern!r}: expected a * for the name of the sample")
    unknown = [word for word in re.findall(r"\{.*?\}", pattern) if word[1:-1] not in FIELDS]
    if unknown:
        raise ValueError(f"{pattern!r}: unknown {unknown[0]}; expected {{split}} or {{condition}}")
    return pattern


def visible(folder: Path) -> list[Path]:
    """Entries of a folder that are not hidden, by name; none if there is no such folder."""
    return [folder / entry.name for entry in _entries(folder)]


def hidden(folder: Path) -> list[Path]:
    """Image files of a folder that are hidden, e.g. the `._*` that macOS writes beside each file it copies.

    None of them is an image of a sample; they are listed to be named.
    """
    try:
        with os.scandir(folder) as entries:
            names = [e.name for e in entries if e.name[0] == "."]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [folder / name for name in sorted(names) if Path(name).suffix.lower() in EXTENSIONS]


def hidden_text(names: Sequence[str]) -> str:
    """One line about hidden files that were passed over."""
    more = ", ..." if len(names) > 1 else ""
    plural = "s" if len(names) > 1 else ""
    return f"{len(names)} hidden file{plural} passed over ({names[0]}{more})"


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """As `visible`, but with the file types that the listing itself gives: no `stat` per file."""
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if e.name[0] != "."), key=attrgetter("name"))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _walk(
    folder: Path, parts: list[str], outer: Match, splits: set[str]
) -> Iterator[tuple[Path, Match]]:
    """Files below `folder` that match `parts`; `outer` is what the parts before them matched."""
    part, rest = parts[0], parts[1:]
    any_ending = not rest and "." not in part
    regex = _regex(part)
    for entry in _candidates(folder, part):
        stem, ending = os.path.splitext(entry.name)
        if not rest and not (entry.is_file() and (not any_ending or ending.lower() in EXTENSIONS)):
            continue
        match = _extended(outer, regex, stem if any_ending else entry.name)
        if match is None:
            continue
        if not rest:
            yield folder / entry.name, match
        elif entry.is_dir():
            splits.update({match.split} - {""})
            yield from _walk(folder / entry.name, rest, match, splits)


def _candidates(folder: Path, part: str) -> Sequence[os.DirEntry[str] | Path]:
    if _TOKEN.search(part):
        return _entries(folder)
    return [folder / part] if (folder / part).exists() else []


def _regex(part: str) -> re.Pattern[str]:
    seen: list[str] = []
    return re.compile("".join(_group(token, seen) for token in _TOKEN.split(part)))


def _group(token: str, seen: list[str]) -> str:
    """One token as an expression; a field that comes twice must have one value."""
    if not _TOKEN.fullmatch(token):
        return re.escape(token)
    name = f"star{len(seen)}" if token == "*" else token[1:-1]
    if name in seen:
        return f"(?P={name})"
    seen.append(name)
    return f"(?P<{name}>.+)"


def _extended(outer: Match, regex: re.Pattern[str], text: str) -> Match | None:
    """`outer` with what an entry's name adds; None if it does not match or contradicts `outer`."""
    hit = regex.fullmatch(text)
    if hit is None:
        return None
    groups = hit.groupdict()
    for name in FIELDS:
        value = getattr(outer, name)
        if value not in ("", groups.get(name, value)):
            return None
    stars = [value for name, value in groups.items() if name not in FIELDS]
    return Match(
        groups.get("split", outer.split),
        groups.get("condition", outer.condition),
        "/".join([*filter(None, [outer.name]), *stars]),
    )
