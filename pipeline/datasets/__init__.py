"""The dataset adapters, by the name that a config gives in `dataset.adapter`."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.datasets.base import AdapterFactory, DatasetAdapter, DatasetOptions
from pipeline.datasets.folder import FolderAdapter, FolderOptions
from pipeline.datasets.synthetic import SyntheticAdapter, SyntheticOptions
from pipeline.modalities import ModalitySpec

ADAPTERS: dict[str, tuple[type[DatasetOptions], AdapterFactory]] = {
    "folder": (FolderOptions, FolderAdapter),
    "synthetic": (SyntheticOptions, SyntheticAdapter),
}


def open_dataset(
    options: DatasetOptions, modalities: Mapping[str, ModalitySpec]
) -> DatasetAdapter:
    """The adapter for validated options. `ConfigError` if they do not serve the modalities."""
    return ADAPTERS[options.adapter][1](options, modalities)
