"""The configuration: one TOML file becomes one frozen, validated `Config`.

`load_config(path, overrides)` reads the file, applies dotted overrides (`student.backbone=pvt_v2_b0`) and
validates everything before anything runs. A value that starts with `./` or `../` is a path relative to the
TOML file (in an override: to the current folder). Anything wrong is a `ConfigError` that names the field,
what was expected and what was found.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import (
    Field,
    NonNegativeInt,
    SerializeAsAny,
    ValidationError,
    field_validator,
    model_validator,
)

from pipeline.config.data import (
    DescriptionOptions,
    ModalityConfig,
    PrepareConfig,
    StoreConfig,
    TeacherConfig,
)
from pipeline.config.operations import ScaleConfig
from pipeline.config.presets import PRESETS, with_preset, without_preset_fields
from pipeline.config.schedule import NotifyConfig, ScheduleConfig
from pipeline.config.student import EvaluateConfig, StudentConfig, TrainConfig
from pipeline.core.frozen_model import Frozen
from pipeline.datasets import ADAPTERS
from pipeline.datasets.base import DatasetOptions
from pipeline.errors import ConfigError
from pipeline.modalities import ModalitySpec, spec_for
from pipeline.storage.object_store import hide_secrets
from pipeline.storage.remote_path import RemotePath

Name = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=64)


class Config(Frozen):
    """Everything that a run depends on."""

    name: str = Name
    """Name of the experiment; begins the run's folder."""
    workspace: Path | str = Path("workspace")
    """Where everything is written: a folder, or `s3://BUCKET/PREFIX` (`gs://`, `az://`)."""
    seed: NonNegativeInt = 0
    preset: str | None = None
    """`any2seg-paper` or `robust`: settings of the method that are not written here (see
    `pipeline.config.presets`)."""
    dataset: SerializeAsAny[DatasetOptions]
    modalities: dict[str, ModalityConfig] = Field(min_length=1)
    store: StoreConfig = StoreConfig()
    prepare: PrepareConfig = PrepareConfig()
    teacher: TeacherConfig = TeacherConfig()
    student: StudentConfig = StudentConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    scale: ScaleConfig = ScaleConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    notify: NotifyConfig = NotifyConfig()
    descriptions: DescriptionOptions | None = None
    """Scene descriptions, written and embedded by `any2seg describe`; off if left out."""
    compare: dict[str, tuple[str, ...]] = {}
    """Further rows of the report: a name, and the overrides that make it differ from this config."""

    @field_validator("workspace", mode="before")
    @classmethod
    def _folder_or_url(cls, value: object) -> object:
        if isinstance(value, str) and ":/" in value:
            try:
                return str(RemotePath.of(value))
            except ConfigError as error:
                raise ValueError(str(error)) from None
        return Path(value) if isinstance(value, str) else value

    @model_validator(mode="before")
    @classmethod
    def _fill_in_preset(cls, data: object) -> object:
        return with_preset(data) if isinstance(data, Mapping) else data

    @field_validator("preset")
    @classmethod
    def _known_preset(cls, value: str | None) -> str | None:
        if value is not None and value not in PRESETS:
            raise ValueError(f"expected one of {', '.join(PRESETS)}")
        return value

    @field_validator("dataset", mode="before")
    @classmethod
    def _dataset_by_adapter(cls, value: object) -> object:
        if isinstance(value, DatasetOptions):
            return value
        adapter = value.get("adapter") if isinstance(value, Mapping) else None
        if adapter not in ADAPTERS:
            raise ValueError(
                f"adapter = {adapter!r}; expected one of {', '.join(sorted(ADAPTERS))}"
            )
        return ADAPTERS[adapter][0].model_validate(value)

    @model_validator(mode="after")
    def _check_across(self) -> Config:
        for name in self.modalities:
            if not name.isidentifier() or name in {"label", "meta"}:
                raise ValueError(f"modalities.{name}: expected a plain word other than label, meta")
        self.specs()
        if self.student.lscd.dense and "patch" not in self.teacher.outputs:
            raise ValueError(
                'student.lscd.dense > 0 needs teacher.outputs = ["embedding", "patch"]'
            )
        described = self.descriptions is not None and self.descriptions.source == "from_labels"
        if self.student.lscd.scene_column and not described:
            raise ValueError(
                'student.lscd.scene_column = true needs descriptions = { source = "from_labels" }'
            )
        primary = self.student.primary
        if primary is not None and primary not in self.modalities:
            raise ValueError(
                f"student.primary = {primary!r}; expected one of {', '.join(self.modalities)}"
            )
        self._check_geometry()
        for row, overrides in self.compare.items():
            allowed = ("student.", "train.", "seed=", "preset=")
            touched = [o for o in overrides if not o.startswith(allowed)]
            if touched:
                raise ValueError(
                    f"compare.{row}: {touched[0]!r}; expected overrides of student.*, train.*, seed "
                    "or preset"
                )
        return self

    def _check_geometry(self) -> None:
        scales = self.train.scale != (1.0, 1.0)
        if scales and self.teacher.views:
            raise ValueError(
                "train.scale: with teacher.views a view is the only geometry; leave it out"
            )
        moved = "train.crop_px" if self.train.crop_px else "train.scale" if scales else ""
        if moved and self.student.lscd.inter and not self.teacher.views:
            raise ValueError(
                f"{moved}: student.lscd.inter compares whole images with the teacher's; set "
                "teacher.views (crops that the teacher saw too), leave it out, or set inter to 0 "
                "(intra and dense follow a crop)"
            )

    def specs(self) -> dict[str, ModalitySpec]:
        """Resolved registry row of each modality, in the config's order."""
        return {
            name: spec_for(
                m.kind or name, f"modalities.{name}.kind", tower=m.tower, max_value=m.max_value
            )
            for name, m in self.modalities.items()
        }

    def row(self, name: str) -> Config:
        """The config of a comparison row: this one with the row's overrides, named `<name>-<row>`.

        A row's preset decides every field that presets name, but for those the row writes itself.
        """
        overrides = [f"name={self.name}-{name}", *self.compare[name]]
        data = self.model_dump(mode="json", exclude={"compare"}, exclude_none=True)
        if any(override.startswith("preset=") for override in overrides):
            data = without_preset_fields(data)
        return _validate(_with_overrides(data, overrides), f"compare.{name}")


def load_config(path: str | Path, overrides: Iterable[str] = ()) -> Config:
    """Read and validate a TOML file with dotted overrides. Raises `ConfigError`."""
    path = Path(path)
    try:
        data = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no such file. Start from a copy of one in `configs/`."
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    data = _resolve_paths(data, path.resolve().parent)
    return _validate(_with_overrides(data, overrides), str(path))


def dump_config(config: Config) -> str:
    """The resolved config as TOML text; `load_config` of it gives an equal config."""
    return tomli_w.dumps(config.model_dump(mode="json", exclude_none=True))


def _resolve_paths(value: Any, folder: Path) -> Any:
    if isinstance(value, dict):
        return {key: _resolve_paths(item, folder) for key, item in value.items()}
    if isinstance(value, str) and value.startswith(("./", "../")):
        return os.path.normpath(folder / value)
    return value


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
        table[last] = _resolve_paths(_parse_value(text.strip()), Path.cwd())
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
    """One validation error as `field: what is wrong (found ...)`."""
    field = ".".join(str(part) for part in item["loc"]) or "config"
    if item["type"] == "extra_forbidden":
        return f"{field}: no such field{_suggestion(item['loc'])}"
    if item["type"] == "missing":
        return f"{field}: missing"
    message = item["msg"].removeprefix("Value error, ")
    found = item["input"]
    if isinstance(found, dict):
        return f"{field}: {message}"
    return f"{field}: {message} (found {hide_secrets(repr(found))})"


def _suggestion(location: tuple[int | str, ...]) -> str:
    """`; did you mean ...?` or the allowed fields of the table that holds a misspelt one."""
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
