"""The configuration: one TOML file becomes one frozen, validated `Config`.

Validation covers every field and what the tables ask of each other, before anything runs;
`pipeline.config.load` reads the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import (
    Field,
    NonNegativeInt,
    SerializeAsAny,
    field_validator,
    model_validator,
)

from pipeline.config.data import ModalityConfig, PrepareConfig, StoreConfig
from pipeline.config.operations import NotifyConfig, ScaleConfig, ScheduleConfig
from pipeline.config.presets import PRESETS, with_preset
from pipeline.config.student import StudentConfig
from pipeline.config.teacher import DescriptionsConfig, TeacherConfig
from pipeline.config.train import EvaluateConfig, TrainConfig
from pipeline.core.frozen_model import Frozen
from pipeline.datasets import ADAPTERS
from pipeline.datasets.base import DatasetOptions
from pipeline.errors import ConfigError
from pipeline.modalities import LABEL, ModalitySpec, spec_for
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
    descriptions: DescriptionsConfig | None = None
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
        return Path(value).expanduser() if isinstance(value, str | Path) else value

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
            if not name.isidentifier() or name in {LABEL, "meta"}:
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
