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
from typing import Any, Literal

import tomli_w
from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SerializeAsAny,
    ValidationError,
    field_validator,
    model_validator,
)

from pipeline.datasets import ADAPTERS
from pipeline.datasets.base import DatasetOptions
from pipeline.errors import ConfigError
from pipeline.frozen import Frozen
from pipeline.modalities import ModalitySpec, TowerName, spec_for

Name = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=64)
Device = Literal["auto", "cpu", "cuda", "mps"]


class ModalityConfig(Frozen):
    """One sensor of the data set."""

    kind: str = ""
    """Row of the modality registry (`any2seg kinds` lists them); empty: the modality's own name."""
    tower: TowerName | None = None
    """LanguageBind tower that embeds it; default: the registry's."""
    max_value: PositiveFloat | None = None
    """Stored value that the student sees as 1.0 (for `depth` and `lidar`: millimetres)."""


class StoreConfig(Frozen):
    """How shards and targets are laid out."""

    shard_size: PositiveInt = 256
    """Samples a shard and rows a chunk; one writer owns a whole chunk."""
    dtype: Literal["float16", "float32"] = "float16"
    """Stored type of the embeddings."""


class PrepareConfig(Frozen):
    """Reading the source data."""

    workers: NonNegativeInt = 0
    """Processes that decode and encode samples; 0: one per processor."""
    max_refused: float = Field(default=0.05, ge=0.0, le=1.0)
    """Share of a split's samples that may be quarantined before the stage fails."""


class TeacherConfig(Frozen):
    """Which LanguageBind, and how it looks at the data."""

    name: str = "languagebind-tiny"
    """`languagebind-tiny` (packaged), a hub name (`LanguageBind` for the released towers) or a folder."""
    revision: str | None = None
    """Git revision of a hub checkpoint."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Arithmetic of the towers."""
    device: Device = "auto"
    batch_size: PositiveInt = 64
    outputs: tuple[Literal["embedding", "patch"], ...] = ("embedding",)
    """`embedding`: one vector a sample and modality; `patch`: dense per-patch embeddings too."""
    templates: str = "photo"
    """Named set of prompt templates for the class prompts."""
    max_depth_m: NonNegativeFloat | None = None
    """Metres at which the depth tower saturates; default: the checkpoint's own."""
    depth_holes: Literal["upstream", "far"] = "upstream"
    """What the depth tower sees where nothing was measured: 0.01 m as upstream, or the largest depth."""
    antialias: bool = False
    """Antialiased resizing. Off as upstream; on deviates from the released numbers."""

    @field_validator("outputs")
    @classmethod
    def _embedding_is_always_made(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "embedding" not in value or len(set(value)) != len(value):
            raise ValueError('expected ["embedding"] or ["embedding", "patch"]')
        return tuple(sorted(value))


class LscdConfig(Frozen):
    """Weights and temperatures of language-guided semantic correlation distillation; weight 0 is off."""

    inter: NonNegativeFloat = 0.05
    """Inter-modal correlation. Above about 0.1 it pulls the modalities together and costs accuracy."""
    language: NonNegativeFloat = 0.0
    """Modality to class-prompt correlation."""
    intra: NonNegativeFloat = 0.1
    """Class-wise pixel features to class prompts."""
    dense: NonNegativeFloat = 0.0
    """Cosine to the teacher's patch embeddings; needs `patch` in `teacher.outputs`."""
    tau: PositiveFloat = 0.1
    """Temperature of all correlation rows."""

    @property
    def active(self) -> bool:
        """Whether any term has weight."""
        return bool(self.inter or self.language or self.intra or self.dense)


class StudentConfig(Frozen):
    """The model that is trained."""

    backbone: str = "tf_efficientnet_lite0"
    """Any timm model with features at strides 4, 8, 16 and 32."""
    weights: str = "hub"
    """`hub` (timm's pretrained), `package` (ImageNet weights of the `demo` extra), `none`, or a file."""
    fusion: Literal["mff", "mean"] = "mff"
    """How the features of the modalities become one map."""
    head_channels: PositiveInt = 128
    normalise: Literal["registry", "dataset"] = "registry"
    """Mean and std of the sensors other than colour: the registry's, or the training split's own."""
    lscd: LscdConfig = LscdConfig()


class TrainConfig(Frozen):
    """The training loop."""

    steps: PositiveInt = 20_000
    batch_size: PositiveInt = 8
    lr: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = 0.01
    warmup_steps: NonNegativeInt = 50
    crop_px: PositiveInt | None = None
    """Side of the random square crop; default: whole pictures."""
    flip: float = Field(default=0.5, ge=0.0, le=1.0)
    """Probability of a horizontal flip of all modalities and the label."""
    subset_weight: NonNegativeFloat = 1.0
    """Weight of the second pass on a random subset of the modalities; 0 switches it off."""
    class_weight_power: float = Field(default=-0.5, ge=-1.0, le=0.0)
    """Class weights are frequency ** power, normalised to mean 1 over pixels; 0: unweighted."""
    checkpoint_every: PositiveInt = 100
    workers: NonNegativeInt = 0
    """Loader processes; 0 decodes in the training process."""
    threads: NonNegativeInt = 0
    """Threads of one training process; 0: PyTorch's default."""
    device: Device = "auto"


class EvaluateConfig(Frozen):
    """Scoring every non-empty subset of the modalities."""

    split: str = "val"
    batch_size: PositiveInt = 16
    num_pictures: NonNegativeInt = 5
    """Samples whose predictions are kept for the report."""


class DescriptionOptions(Frozen):
    """Where descriptions come from."""

    source: Literal["from_labels", "captioner"]
    """`from_labels`: composed from label content and condition, training split only."""
    model: str = ""
    """Captioning model of the `captioner`: a hub name or a folder with safetensors weights."""
    revision: str | None = None
    """Git revision of a hub model."""
    prompt: str = "Describe the scene."
    """What the captioning model is asked."""
    modalities: tuple[str, ...] = ()
    """Modalities that are captioned; empty: all."""
    max_new_tokens: PositiveInt = 40
    """Tokens of a caption at most."""

    @model_validator(mode="after")
    def _captioner_has_a_model(self) -> DescriptionOptions:
        if (self.source == "captioner") != bool(self.model):
            raise ValueError("model: expected one with source = captioner, and only then")
        return self


class Config(Frozen):
    """Everything that a run depends on."""

    name: str = Name
    """Name of the experiment; begins the run's folder."""
    workspace: Path = Path("workspace")
    """Where everything is written."""
    seed: NonNegativeInt = 0
    dataset: SerializeAsAny[DatasetOptions]
    modalities: dict[str, ModalityConfig] = Field(min_length=1)
    store: StoreConfig = StoreConfig()
    prepare: PrepareConfig = PrepareConfig()
    teacher: TeacherConfig = TeacherConfig()
    student: StudentConfig = StudentConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    descriptions: DescriptionOptions | None = None
    """Scene descriptions, written and embedded by `any2seg describe`; off if left out."""
    compare: dict[str, tuple[str, ...]] = {}
    """Further rows of the report: a name, and the overrides that make it differ from this config."""

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
        if self.train.crop_px and (self.student.lscd.inter or self.student.lscd.language):
            raise ValueError(
                "train.crop_px: student.lscd.inter and .language compare whole pictures with the "
                "teacher's; leave train.crop_px out, or set both to 0 (intra and dense follow a crop)"
            )
        for row, overrides in self.compare.items():
            touched = [o for o in overrides if not o.startswith(("student.", "train.", "seed="))]
            if touched:
                raise ValueError(
                    f"compare.{row}: {touched[0]!r}; expected overrides of student.*, train.* or seed"
                )
        return self

    def specs(self) -> dict[str, ModalitySpec]:
        """Resolved registry row of each modality, in the config's order."""
        return {
            name: spec_for(
                m.kind or name, f"modalities.{name}.kind", tower=m.tower, max_value=m.max_value
            )
            for name, m in self.modalities.items()
        }

    def row(self, name: str) -> Config:
        """The config of a comparison row: this one with the row's overrides, named `<name>-<row>`."""
        overrides = [f"name={self.name}-{name}", *self.compare[name]]
        data = self.model_dump(mode="json", exclude={"compare"}, exclude_none=True)
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
    return f"{field}: {message}" + ("" if isinstance(found, dict) else f" (found {found!r})")


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
