"""The dataset adapters, by the name that a config gives in `dataset.adapter`."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.datasets.base import AdapterFactory, DatasetAdapter, DatasetOptions
from pipeline.datasets.card import DatasetCard
from pipeline.datasets.deliver import DELIVER_CARD, DeliverAdapter, DeliverOptions
from pipeline.datasets.folder import FolderAdapter, FolderOptions
from pipeline.datasets.mcubes import MCUBES_CARD, McubesAdapter, McubesOptions
from pipeline.datasets.muses import MUSES_CARD, MusesAdapter, MusesOptions
from pipeline.datasets.synthetic import SyntheticAdapter, SyntheticOptions
from pipeline.datasets.webdataset_input import WebdatasetAdapter, WebdatasetOptions
from pipeline.modalities import ModalitySpec

ADAPTERS: dict[str, tuple[type[DatasetOptions], AdapterFactory]] = {
    "deliver": (DeliverOptions, DeliverAdapter),
    "folder": (FolderOptions, FolderAdapter),
    "mcubes": (McubesOptions, McubesAdapter),
    "muses": (MusesOptions, MusesAdapter),
    "synthetic": (SyntheticOptions, SyntheticAdapter),
    "webdataset": (WebdatasetOptions, WebdatasetAdapter),
}
CARDS: dict[str, DatasetCard] = {
    "deliver": DELIVER_CARD,
    "mcubes": MCUBES_CARD,
    "muses": MUSES_CARD,
}
"""Cards of the published data sets that have their own adapter."""


def open_dataset(options: DatasetOptions, modalities: Mapping[str, ModalitySpec]) -> DatasetAdapter:
    """The adapter for validated options. `ConfigError` if they do not serve the modalities."""
    return ADAPTERS[options.adapter][1](options, modalities)
