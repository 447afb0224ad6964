"""Which mean and standard deviation a student's inputs are normalised with. Writes nothing.

`registry`: the modality's own, whatever the data. `dataset`: measured on the training split by `prepare`
(values of millimetre kinds over measured pixels only). Colour pictures always keep the statistics of the
backbone's pretraining (see `student.model.student`).
"""

from __future__ import annotations

from dataclasses import replace

from pipeline.config.config import Config
from pipeline.core.splits import TRAIN_SPLIT
from pipeline.modalities import ModalitySpec
from pipeline.shards.manifest import Manifest

MIN_STD = 1e-3
"""A sensor that always reads the same must not be divided by zero."""


def input_specs(config: Config, manifest: Manifest) -> dict[str, ModalitySpec]:
    """The config's modalities with the mean and std that the student applies to their [0, 1] values."""
    specs = config.specs()
    if config.student.normalise == "registry":
        return specs
    measured = manifest.statistics(TRAIN_SPLIT).modalities
    return {
        name: replace(
            spec,
            mean=_three(measured[name].mean),
            std=_three(tuple(max(value, MIN_STD) for value in measured[name].std)),
        )
        if measured[name].num_samples
        else spec
        for name, spec in specs.items()
    }


def _three(values: tuple[float, ...]) -> tuple[float, float, float]:
    """One value a channel of the network's input: a single channel is repeated."""
    first, *others = values
    return (first, *others) if len(others) == 2 else (first, first, first)  # type: ignore[return-value]
