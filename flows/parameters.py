"""What a flow takes: the config file and dotted overrides, validated before anything runs.

The patterns are part of the parameter schema, so a server refuses a bad value before it stores it.
Overrides are stored in the open (in a scheduler's database, in logs): one that carries a credential
is refused, and the error does not repeat it.

Imports no Prefect, so the command line shares it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Annotated

from pydantic import AfterValidator, Field

from flows.redact import redacted
from pipeline.errors import ConfigError

COMMANDS: Mapping[str, str] = {
    "any2seg": "run",
    "refresh-teacher": "refresh-teacher",
    "retrain": "retrain",
    "evaluate": "evaluate",
    "audit": "audit",
}
"""Name of each flow to the `any2seg` command that does the same. The functions of `flows.flows` have these
names (with `_` for `-`)."""

OVERRIDE = (
    r"^(?![\s\S]*://[^/\s]*@)"
    r"(?![\s\S]*[?&]([Xx]-[Aa]mz-|[Ss]ig|[Tt]oken|[Pp]assword|[Kk]ey|[Ss]ecret))"
    r"[A-Za-z_][A-Za-z0-9_.-]*\s*=[\s\S]*$"
)
"""FIELD=VALUE without `user:password@` and without signed query parts."""
CONFIG_PATH = r"^(?![\s\S]*://)[\s\S]*\.toml$"


def _override(value: str) -> str:
    if not re.match(OVERRIDE, value) or redacted(value) != value:
        field = value.partition("=")[0][:40]
        raise ValueError(
            f"override of {field!r}: expected FIELD=VALUE without credentials, e.g. train.steps=100. "
            "Credentials are read from the environment only."
        )
    return value


def _config_path(value: str) -> str:
    if not re.match(CONFIG_PATH, value):
        raise ValueError(f"expected the path of a .toml file, found {value!r}")
    return value


ConfigPath = Annotated[
    str, AfterValidator(_config_path), Field(json_schema_extra={"pattern": CONFIG_PATH})
]
Override = Annotated[str, AfterValidator(_override), Field(json_schema_extra={"pattern": OVERRIDE})]
Overrides = list[Override]


def checked(overrides: Iterable[str] | None) -> list[str]:
    """Overrides of a command line, before they are stored. `ConfigError` for a credential."""
    try:
        return [_override(value) for value in overrides or ()]
    except ValueError as error:
        raise ConfigError(f"--set: {error}") from None


def command_line(flow_name: str, config_path: str, overrides: Iterable[str] = ()) -> str:
    """The `any2seg COMMAND CONFIG --set ...` that does what a flow run does, quoted for a shell."""
    words = ["any2seg", COMMANDS[flow_name], config_path]
    for override in overrides:
        words += ["--set", override]
    return shlex.join(words)
