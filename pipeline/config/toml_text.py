"""TOML as people save it, and paths as they write them.

    read_toml(path) -> dict
    resolve_paths(value, folder)        "./x", "~/x" to absolute paths, in nested tables and lists

Text is UTF-8 whatever the locale; a byte order mark and either kind of line ends are accepted. Raises
`ConfigError` that says what to do.
"""

from __future__ import annotations

import codecs
import os
import re
import tomllib
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError

_HOME = re.compile(r"~[A-Za-z0-9._-]*/")
_VARIABLE = re.compile(r"(\$\w+|\$\{\w+\}|%\w+%)[/\\]")
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no such file. Start from a copy of one in `configs/`."
        ) from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: a folder; expected a TOML file. Name the file in it.") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}.") from None
    try:
        return tomllib.loads(_decoded(path, data))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None


def _decoded(path: Path, data: bytes) -> str:
    if data.startswith(_UTF_16):
        raise ConfigError(f"{path}: saved as UTF-16; TOML is UTF-8. Save it as UTF-8.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"{path}: not valid TOML: line {line} is not UTF-8 text. Save the file as UTF-8."
        ) from None


def resolve_paths(value: Any, folder: Path) -> Any:
    """`value` with `./` and `../` taken from `folder`, and `~/` from the home folder."""
    if isinstance(value, dict):
        return {
            key: expand_home("~/") if item == "~" else resolve_paths(item, folder)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [resolve_paths(item, folder) for item in value]
    if not isinstance(value, str):
        return value
    if value.startswith(("./", "../")):
        return os.path.normpath(folder / value)
    return expand_home(value)


def expand_home(text: str) -> str:
    """`~/x` and `~user/x` as absolute paths; other text as it is. `ConfigError` if there is no such home.

    A path that begins with a variable (`$HOME/x`) is refused: it would make a folder of that name.
    """
    if _VARIABLE.match(text):
        raise ConfigError(
            f"{text}: variables are not replaced. Write the path itself, or ~/ for home."
        )
    if not _HOME.match(text):
        return text
    expanded = os.path.expanduser(text)
    if expanded == text:
        raise ConfigError(
            f"{text}: no home folder is known for {text.partition('/')[0]}. Write it out."
        )
    return os.path.normpath(expanded)
