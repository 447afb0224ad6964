"""A trained student as people use it: `Segmenter.from_run` or `from_pretrained`, then `segment`.

    segmenter = Segmenter.from_pretrained("./crop-model")       # or ORG/NAME on the hub
    result = segmenter.segment({"nir": "a.png", "red": array})  # any subset of its modalities
    result.ids                                                  # (H, W) uint8 class ids

`save_pretrained(folder)` writes `config.json`, `model.safetensors` and a model card; `push_to_hub`
uploads them (huggingface_hub's mixin). The config holds all that reading a file and predicting
depends on, and names what the weights were trained on. Raises `CheckpointError` (nothing trained,
corrupt or unrelated files), `ConfigError` (a modality that the student does not have) and
`DatasetError` (a file or array that does not fit, by name).

Legend: M modalities, K classes, H W space.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from huggingface_hub import ModelCard, ModelCardData, ModelHubMixin
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import interpolate

from pipeline import VERSION
from pipeline.config.config import Config
from pipeline.config.load import load_config
from pipeline.config.student import StudentConfig
from pipeline.core.device import choose_device
from pipeline.core.frozen_model import Frozen
from pipeline.core.hub import fetch_snapshot
from pipeline.datasets import ADAPTERS, open_dataset
from pipeline.datasets.base import RGB, FileReader
from pipeline.datasets.resize import resize, target_size
from pipeline.errors import CheckpointError, ConfigError, DatasetError
from pipeline.formats.image_file import BadImageError, read_image
from pipeline.modalities import ModalitySpec, check_array, to_unit_range
from pipeline.schemas import SEGMENTER_SCHEMA
from pipeline.shards.manifest import DATASET, Manifest
from pipeline.storage.files import read_json
from pipeline.workspace import Workspace
from student.evaluation.count import load_student
from student.evaluation.evaluate import current_scores
from student.evaluation.sliding_window import Window, tiled
from student.model.input_statistics import input_specs
from student.model.student import Student
from student.runs.layout import CONFIG as RUN_CONFIG
from student.runs.layout import LAST, read_identity
from student.runs.run import Run

CONFIG, WEIGHTS = "config.json", "model.safetensors"
CARD = Path(__file__).with_name("model_card.md.jinja")

ImageInput = NDArray[Any] | Image.Image | str | PathLike[str]
"""An array in its modality's stored form; or a file, or a PIL image, which is read like its file."""


class Description(Frozen):
    """`config.json` of a saved student."""

    schema_version: int = SEGMENTER_SCHEMA
    name: str
    code_version: str = VERSION
    student: StudentConfig
    modalities: dict[str, dict[str, Any]]
    """Fields of each `ModalitySpec`, with the mean and std that this student applies."""
    classes: tuple[str, ...]
    palette: tuple[RGB, ...]
    dataset: dict[str, Any]
    """Options of the adapter, without folders: how files become stored forms."""
    trained_on: dict[str, Any]
    """The run's identity: dataset, manifest, tower and prompt fingerprints, config."""
    step: int
    scores: dict[str, Any] = {}
    """Split, protocol, mIoU of all modalities, mean and worst subset; empty if never evaluated."""

    @property
    def specs(self) -> dict[str, ModalitySpec]:
        """The modalities in the student's order."""
        return {name: ModalitySpec.from_json(fields) for name, fields in self.modalities.items()}


@dataclass(frozen=True, slots=True)
class Segmentation:
    """A student's prediction of one scene."""

    ids: NDArray[np.uint8]
    """(H, W) class ids."""
    logits: NDArray[np.float32]
    """(K, H, W)."""
    modalities: tuple[str, ...]
    """The modalities that it was predicted from."""


class Segmenter(ModelHubMixin):
    """A student with what reading its inputs from files depends on."""

    def __init__(self, model: Student, description: Description) -> None:
        self.model = model.eval()
        self.description = description
        self.specs = description.specs

    @classmethod
    def from_run(
        cls, folder: str | PathLike[str], device: str = "auto", checkpoint: str = LAST
    ) -> Segmenter:
        """The student of a run folder inside its workspace; `checkpoint`: `last`, `best`, `step-N`."""
        # Resolved, because the workspace is two folders above.
        folder = Path(folder).expanduser().resolve()
        if not (folder / RUN_CONFIG).exists():
            raise CheckpointError(f"{folder}: expected the folder of a run, found no {RUN_CONFIG}.")
        config = load_config(folder / RUN_CONFIG)
        config = config.model_copy(
            update={"train": config.train.model_copy(update={"device": device})}
        )
        manifest = Manifest.load(Workspace(folder.parent.parent).dataset(config))
        run = Run(folder.name, folder, read_identity(folder))
        grown = run.identity["manifest"] != manifest.digest()
        if grown and config.student.normalise == "dataset":
            raise CheckpointError(
                f"{folder}: its inputs are normalised with statistics of a dataset that has grown "
                "since. Use a student that `any2seg export` saved, or run `any2seg retrain CONFIG`."
            )
        model, step = load_student(config, manifest, run, checkpoint)
        # `any2seg evaluate` scores the last checkpoint only.
        scores = (current_scores(run, config) or {}) if checkpoint == LAST else {}
        kept = ("split", "protocol", "num_samples", "all", "mean", "worst")
        description = Description(
            name=config.name,
            student=config.student.model_copy(update={"weights": "none"}),
            modalities={n: asdict(s) for n, s in input_specs(config, manifest).items()},
            classes=manifest.classes,
            palette=read_json(manifest.folder / DATASET)["palette"],
            dataset=_portable(config),
            trained_on=run.identity,
            step=step,
            scores={key: scores[key] for key in kept if key in scores},
        )
        return cls(model, description)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; the index is the id."""
        return self.description.classes

    def segment(
        self, inputs: Mapping[str, ImageInput], window: Window | None = None
    ) -> Segmentation:
        """Predict one scene from any non-empty subset of the modalities.

        `inputs`: modality to an array in its stored form ((H, W) or (H, W, 3), uint8 or uint16), a
        file or a PIL image, all of one size. `window`: predict large images window by window.
        """
        arrays = self._load(inputs)
        size = next(iter(arrays.values())).shape[:2]
        height, width = target_size(size, self.description.dataset.get("size_px"))
        if (height, width) != size:
            arrays = {n: resize(a, (height, width), self.specs[n]) for n, a in arrays.items()}
        tensors = {
            name: self._tensor(name, arrays.get(name), (height, width)) for name in self.specs
        }
        present = torch.tensor([[name in arrays for name in self.specs]], device=self.device)
        with torch.inference_mode():
            logits = tiled(self.model, tensors, present, window)
            if (height, width) != size:
                logits = interpolate(logits, size=size, mode="bilinear")
        logits_KHW: NDArray[np.float32] = logits[0].float().cpu().numpy()
        return Segmentation(logits_KHW.argmax(0).astype(np.uint8), logits_KHW, tuple(arrays))

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.model.device

    def read(self, modality: str, image: Image.Image | str | PathLike[str]) -> NDArray[Any]:
        """A file or a PIL image in its modality's stored form, as the training dataset's adapter reads."""
        if not isinstance(image, Image.Image):
            return self._read_file(modality, Path(image).expanduser())
        # As a file, because adapters read files; some look for others beside them.
        with TemporaryDirectory() as folder:
            path = Path(folder) / f"image{_lossless_ending(image.mode)}"
            try:
                image.save(path, exif=image.getexif())
                return self._read_file(modality, path)
            except (OSError, ValueError, DatasetError) as error:
                reason = str(error).removeprefix(f"{modality}: ").replace(f"{path}: ", "")
                raise DatasetError(f"{modality}: {image.mode} PIL image: {reason}") from None

    def _read_file(self, modality: str, path: Path) -> NDArray[Any]:
        try:
            if isinstance(self._adapter, FileReader):
                return self._adapter.read(modality, path)
            return read_image(path, self.specs[modality])
        except BadImageError as error:
            raise DatasetError(f"{modality}: {error}") from None

    @cached_property
    def _adapter(self) -> object:
        options = dict(self.description.dataset)
        if "root" in ADAPTERS[options["adapter"]][0].model_fields:
            options["root"] = "."
        return open_dataset(
            ADAPTERS[options["adapter"]][0].model_validate(options), self.description.specs
        )

    def _load(self, inputs: Mapping[str, ImageInput]) -> dict[str, NDArray[Any]]:
        unknown = [name for name in inputs if name not in self.specs]
        if unknown or not inputs:
            actual = f"{unknown[0]!r}" if unknown else "none"
            raise ConfigError(f"modality: expected some of {', '.join(self.specs)}, found {actual}")
        arrays = {}
        for name in self.specs:
            if name in inputs:
                given = inputs[name]
                if not isinstance(given, np.ndarray | Image.Image | str | PathLike):
                    raise DatasetError(
                        f"{name}: expected a file, a PIL image or a NumPy array, found "
                        f"{type(given).__name__}"
                    )
                array = given if isinstance(given, np.ndarray) else self.read(name, given)
                problem = check_array(array, self.specs[name])
                if problem:
                    raise DatasetError(f"{name}: {problem}")
                arrays[name] = array
        sizes = {name: array.shape[:2] for name, array in arrays.items()}
        if len(set(sizes.values())) > 1:
            raise DatasetError(f"expected images of one size (height, width), found {sizes}")
        return arrays

    def _tensor(self, name: str, array: NDArray[Any] | None, size: tuple[int, int]) -> Tensor:
        """(1, 1 or 3, H, W) in [0, 1]; zeros for an absent modality."""
        spec = self.specs[name]
        if array is None:
            return torch.zeros(1, spec.channels, *size, device=self.device)
        unit = torch.from_numpy(to_unit_range(array, spec)).to(self.device)
        return unit[None, None] if spec.channels == 1 else unit.permute(2, 0, 1)[None]

    def _save_pretrained(self, save_directory: Path) -> None:
        tensors = {k: v.detach().cpu().contiguous() for k, v in self.model.state_dict().items()}
        save_file(tensors, save_directory / WEIGHTS, metadata={"format": "pt"})
        # Not sorted: the weights depend on the order of the modalities.
        text = json.dumps(self.description.model_dump(mode="json"), indent=2)
        (save_directory / CONFIG).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def _from_pretrained(cls, *, model_id: str, device: str = "auto", **hub: Any) -> Segmenter:
        folder = _fetch(model_id, hub)
        try:
            described = read_json(folder / CONFIG)
            description = Description.model_validate(described)
            model = Student(description.student, description.specs, len(description.classes))
            model.load_state_dict(load_file(folder / WEIGHTS), strict=True)
        except (OSError, ValueError, ValidationError, SafetensorError, RuntimeError) as error:
            raise CheckpointError(
                f"{model_id}: expected a saved student ({CONFIG}, {WEIGHTS}), found: "
                f"{str(error).splitlines()[0]}. Write one with `any2seg export RUN`."
            ) from None
        model.to(choose_device(device)).to(memory_format=torch.channels_last)
        return cls(model, description)

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """The README of a saved student: what it is, what it was trained on, how to use it."""
        del args, kwargs
        card: ModelCard = ModelCard.from_template(
            ModelCardData(
                library_name="any2seg",
                pipeline_tag="image-segmentation",
                tags=["any2seg", "multi-modal", "semantic-segmentation"],
            ),
            template_path=str(CARD),
            description=self.description,
            num_parameters=sum(p.numel() for p in self.model.parameters()),
        )
        return card


def _lossless_ending(mode: str) -> str:
    """Ending of a file format that holds every value of a PIL image of that mode."""
    return ".png" if mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16") else ".tif"


def _portable(config: Config) -> dict[str, Any]:
    """The adapter's options without those that are valid on this machine only."""
    options = config.dataset.model_dump(mode="json", exclude=set(config.dataset.growth_fields))
    fields = type(config.dataset).model_fields
    paths = {name for name, field in fields.items() if "Path" in str(field.annotation)}
    return {name: value for name, value in options.items() if name not in paths}


def _fetch(model_id: str, hub: Mapping[str, Any]) -> Path:
    local = Path(model_id).expanduser()
    if local.is_dir():
        return local
    options = {key: value for key, value in hub.items() if key != "resume_download"}
    return fetch_snapshot(model_id, (CONFIG, WEIGHTS), "the model's name", **options)
