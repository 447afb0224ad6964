"""Load a `Config` from a TOML file, and derive the configs of its comparison rows.

`load_config(path, overrides)` reads the file, applies dotted overrides (`student.backbone=pvt_v2_b0`) and
validates the result. A value that starts with `./` or `../` is a path relative to the TOML file (in an
override: to the current folder), one that starts with `~/` to the home folder. Errors are
`ConfigError`s that name the field, the expected and the actual value.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import ValidationError

from pipeline.config.config import Config
from pipeline.config.presets import without_preset_fields
from pipeline.config.toml_text import expand_home, read_toml, resolve_paths
from pipeline.errors import ConfigError
from pipeline.storage.object_store import hide_secrets

MAIN_ROW = "main"
"""Name of the row that is the config itself, beside the comparison rows."""


def load_config(path: str | Path, overrides: Iterable[str] = ()) -> Config:
    """Read and validate a TOML file with dotted overrides. Raises `ConfigError`."""
    path = Path(expand_home(str(path)))
    data = resolve_paths(read_toml(path), path.resolve().parent)
    return _validate(_with_overrides(data, overrides), str(path))


def dump_config(config: Config) -> str:
    """The resolved config as TOML; loading it gives an equal config."""
    return tomli_w.dumps(config.model_dump(mode="json", exclude_none=True))


def rows(config: Config) -> dict[str, Config]:
    """The main run and the comparison rows, each with its config."""
    return {MAIN_ROW: config, **{name: row_config(config, name) for name in config.compare}}


def row_config(config: Config, name: str) -> Config:
    """The config of a comparison row: `config` with the row's overrides, named `<name>-<row>`.

    A row's preset sets every field that presets name, except those that the row overrides itself.
    """
    overrides = [f"name={config.name}-{name}", *config.compare[name]]
    data = config.model_dump(mode="json", exclude={"compare"}, exclude_none=True)
    # `data` is resolved, so it holds the values of this config's own preset; they would count as
    # written and win over the row's.
    if any(override.startswith("preset=") for override in overrides):
        data = without_preset_fields(data)
    return _validate(_with_overrides(data, overrides), f"compare.{name}")


def _with_overrides(data: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    for override in overrides:
        dotted, equals, text = override.partition("=")
        if not equals or not dotted:
            raise ConfigError(f"--set {override}: expected FIELD=VALUE, e.g. train.steps=100")
        *parents, last = dotted.strip().split(".")
        table = data
        for parent in parents:
            table = table.setdefault(parent, {})
            if not isinstance(table, dict):
                raise ConfigError(f"--set {override}: {parent!r} is a value, not a table")
        table[last] = resolve_paths(_parse_value(text.strip()), Path.cwd())
    return data


def _parse_value(text: str) -> Any:
    """A TOML value; a bare word is a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _validate(data: dict[str, Any], where: str) -> Config:
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        lines = [_explain(item) for item in error.errors()]
        raise ConfigError(f"{where}: " + "; ".join(lines)) from None


def _explain(item: Any) -> str:
    """One validation error as `field: message (found ...)`."""
    field = ".".join(str(part) for part in item["loc"]) or "config"
    if item["type"] == "extra_forbidden":
        return f"{field}: no such field{_suggestion(item['loc'])}"
    if item["type"] == "missing":
        return f"{field}: missing"
    message = item["msg"].removeprefix("Value error, ")
    value = item["input"]
    if isinstance(value, dict):  # a whole table says nothing that the message does not
        return f"{field}: {message}"
    return f"{field}: {message} (found {hide_secrets(repr(value))})"


def _suggestion(location: tuple[int | str, ...]) -> str:
    """`; did you mean ...?`, or the allowed fields of the table with the misspelt one."""
    model: Any = Config
    for part in location[:-1]:
        info = model.model_fields.get(part) if hasattr(model, "model_fields") else None
        model = info.annotation if info else None
    if not hasattr(model, "model_fields"):
        return ""
    close = difflib.get_close_matches(str(location[-1]), model.model_fields, n=1)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; expected one of {', '.join(sorted(model.model_fields))}"
