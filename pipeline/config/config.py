"""`Config`: the root of the configuration, with the checks across its tables.

Every field and every combination of fields is validated before anything runs; `pipeline.config.load`
reads the TOML file.
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
from pipeline.config.teacher import (
    DENSE_TEACHER,
    TEACHER,
    DenseTeacherConfig,
    DescriptionsConfig,
    TeacherConfig,
)
from pipeline.config.train import EvaluateConfig, TrainConfig
from pipeline.core.frozen_model import Frozen
from pipeline.datasets import ADAPTERS
from pipeline.datasets.base import DatasetOptions
from pipeline.errors import ConfigError
from pipeline.modalities import LABEL, ModalitySpec, allowed_renderings, spec_for
from pipeline.storage.remote_path import RemotePath

Name = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=64)


class Config(Frozen):
    """One experiment."""

    name: str = Name
    """Name of the experiment; begins the run's folder."""
    workspace: Path | str = Path("workspace")
    """Where everything is written: a folder, or `s3://BUCKET/PREFIX` (`gs://`, `az://`)."""
    seed: NonNegativeInt = 0
    preset: str | None = None
    """`any2seg-paper` or `robust`: values of the method's fields that are left out here (see
    `pipeline.config.presets`)."""
    dataset: SerializeAsAny[DatasetOptions]
    modalities: dict[str, ModalityConfig] = Field(min_length=1)
    store: StoreConfig = StoreConfig()
    prepare: PrepareConfig = PrepareConfig()
    teacher: TeacherConfig = TeacherConfig()
    dense_teacher: DenseTeacherConfig | None = None
    """A second teacher for `student.lscd.dense`; `[teacher]` alone if left out."""
    student: StudentConfig = StudentConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    scale: ScaleConfig = ScaleConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    notify: NotifyConfig = NotifyConfig()
    descriptions: DescriptionsConfig | None = None
    """Scene descriptions, generated and embedded by `any2seg describe`; off if left out."""
    compare: dict[str, tuple[str, ...]] = {}
    """Comparison rows of the report: name to overrides of this config."""

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
        self._check_renderings()
        self._check_dense()
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
            if touched:  # a row with other data or another teacher would compare two things at once
                raise ValueError(
                    f"compare.{row}: {touched[0]!r}; expected overrides of student.*, train.*, seed "
                    "or preset"
                )
        return self

    def _check_dense(self) -> None:
        second, lscd = self.dense_teacher, self.student.lscd
        if second is None:
            if lscd.dense and "patch" not in self.teacher.outputs:
                raise ValueError(
                    'student.lscd.dense > 0 needs teacher.outputs = ["embedding", "patch"], or a '
                    "table [dense_teacher]"
                )
            return
        both = self.teacher.model_copy(update={"outputs": ("embedding", "patch")})
        if second.beside(self.teacher) == both:
            raise ValueError(
                f"dense_teacher.name = {second.name!r} is the teacher itself; leave [dense_teacher] "
                'out and set teacher.outputs = ["embedding", "patch"]'
            )
        if lscd.dense and lscd.dense_distance == "kl":
            raise ValueError(
                "student.lscd.dense_distance = 'kl' compares with class prompts, which are not "
                "embedded with [dense_teacher]; set it to 'cosine', or leave [dense_teacher] out"
            )

    def _check_renderings(self) -> None:
        for name, spec in self.specs().items():
            rendering = self.modalities[name].rendering
            allowed = allowed_renderings(spec)
            if rendering is not None and rendering not in allowed:
                raise ValueError(
                    f"modalities.{name}.rendering = {rendering!r}: kind {spec.kind!r} has {spec.channels} "
                    f"channel(s) of {spec.unit}s; expected one of {', '.join(allowed)}"
                )

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

    def teachers(self) -> dict[str, Config]:
        """Name of each teacher (of its table) to this config with that teacher alone."""
        names = (TEACHER,) if self.dense_teacher is None else (TEACHER, DENSE_TEACHER)
        return {name: self.for_teacher(name) for name in names}

    def for_teacher(self, name: str) -> Config:
        """This config with one of its teachers as `teacher`, and no second one."""
        if self.dense_teacher is None:
            return self
        teacher = self.teacher if name == TEACHER else self.dense_teacher.beside(self.teacher)
        return self.model_copy(update={"teacher": teacher, "dense_teacher": None})

    def specs(self) -> dict[str, ModalitySpec]:
        """Registry row of each modality with the config's overrides, in the config's order."""
        return {
            name: spec_for(
                m.kind or name, f"modalities.{name}.kind", tower=m.tower, max_value=m.max_value
            )
            for name, m in self.modalities.items()
        }
