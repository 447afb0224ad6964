"""The `synthetic` data set: scenes rendered on demand, nothing read from disk.

Scene numbers interleave the splits (train 0, 3, 6, ...; val 1, 4, 7, ...; test 2, 5, 8, ...), so splits
never share a scene and each may grow without touching the others. Raises `ConfigError` when a config asks
for a kind of modality that the renderer lacks, `DatasetError` on an empty or unknown split.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

from numpy.typing import NDArray
from pydantic import NonNegativeInt, PositiveInt

from pipeline.core.splits import SPLIT_ORDER
from pipeline.datasets.base import RGB, DatasetOptions, LoadedSample, SourceSample
from pipeline.datasets.deliver_classes import DELIVER_CLASSES, DELIVER_PALETTE
from pipeline.datasets.synthetic.render import RENDERER_VERSION, Scene, render_scene
from pipeline.datasets.synthetic.weather import scene_attributes
from pipeline.errors import ConfigError, DatasetError
from pipeline.modalities import ModalitySpec

SPLITS: tuple[str, ...] = SPLIT_ORDER

_ARRAYS: dict[str, Callable[[Scene], NDArray[Any]]] = {
    "rgb": lambda scene: scene.rgb,
    "depth": lambda scene: scene.depth,
    "event": lambda scene: scene.event,
    "lidar": lambda scene: scene.lidar,
}


class SyntheticOptions(DatasetOptions):
    """Rendered street scenes in DELIVER's 25 classes."""

    adapter: Literal["synthetic"] = "synthetic"
    num_train: NonNegativeInt = 1500
    num_val: NonNegativeInt = 150
    num_test: NonNegativeInt = 150
    size_px: PositiveInt = 128
    """Side of the square images."""
    seed: NonNegativeInt = 0
    """Another seed gives other streets."""

    growth_fields: ClassVar[frozenset[str]] = frozenset({"num_train", "num_val", "num_test"})

    def identity(self) -> dict[str, Any]:
        """As the base has it, and the renderer's version: a scene changes when its renderer does."""
        return {**super().identity(), "renderer": RENDERER_VERSION}

    def num_samples(self, split: str) -> int:
        """Scenes in a split. `DatasetError` on an unknown split."""
        return (self.num_train, self.num_val, self.num_test)[_split_number(split)]


class SyntheticAdapter:
    """Satisfies `pipeline.datasets.base.DatasetAdapter`."""

    def __init__(self, options: SyntheticOptions, modalities: Mapping[str, ModalitySpec]) -> None:
        for name, spec in modalities.items():
            if spec.kind not in _ARRAYS:
                raise ConfigError(
                    f"modalities.{name}: the synthetic data set has no kind {spec.kind!r}; expected one "
                    f"of {', '.join(sorted(_ARRAYS))}. Set modalities.{name}.kind, or drop the modality."
                )
        self._options = options
        self._kinds = {name: spec.kind for name, spec in modalities.items()}

    @property
    def classes(self) -> tuple[str, ...]:
        """DELIVER's 25 names."""
        return DELIVER_CLASSES

    @property
    def palette(self) -> tuple[RGB, ...]:
        """DELIVER's colours."""
        return DELIVER_PALETTE

    def splits(self) -> tuple[str, ...]:
        """The splits with at least one scene."""
        return tuple(split for split in SPLITS if self._options.num_samples(split))

    def samples(self, split: str) -> Sequence[SourceSample]:
        """Scenes of a split in the order of their numbers. `DatasetError` if there are none."""
        count = self._options.num_samples(split)
        if not count:
            raise DatasetError(
                f"synthetic: split {split!r} is empty. Set dataset.num_{split} above 0."
            )
        return [self._sample(split, number) for number in range(count)]

    def load(self, sample: SourceSample) -> LoadedSample:
        """Render the scene that a key names."""
        number = int(sample.key.split("_")[1])
        scene = render_scene(
            self._options.seed, scene_index(sample.split, number), self._options.size_px
        )
        arrays = {name: _ARRAYS[kind](scene) for name, kind in self._kinds.items()}
        return LoadedSample(arrays, scene.label)

    def _sample(self, split: str, number: int) -> SourceSample:
        condition, corner_case = scene_attributes(self._options.seed, scene_index(split, number))
        parts = [split, f"{number:06d}", condition, corner_case]
        key = "_".join(part for part in parts if part)
        return SourceSample(key, split, condition=condition, corner_case=corner_case)


def scene_index(split: str, number: int) -> int:
    """The renderer's index of scene `number` of a split; no two splits share one."""
    return number * len(SPLITS) + _split_number(split)


def _split_number(split: str) -> int:
    if split not in SPLITS:
        raise DatasetError(
            f"synthetic: unknown split {split!r}; expected one of {', '.join(SPLITS)}"
        )
    return SPLITS.index(split)
