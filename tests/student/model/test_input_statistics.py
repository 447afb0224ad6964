"""The statistics that a student's inputs are normalised with."""

from __future__ import annotations

import pytest
import torch

from pipeline.modalities import KINDS
from pipeline.shards.manifest import Manifest
from pipeline.workspace import Workspace
from student.model.input_statistics import InputStatistics, input_specs
from student.runs.inputs import identify


@pytest.fixture
def manifest(scenes, make_config):
    config = make_config(scenes)
    return Manifest.load(Workspace.of(config).dataset(config))


def test_the_registry_is_the_default(scenes, make_config, manifest):
    config = make_config(scenes)
    assert input_specs(config, manifest) == config.specs()


def test_the_datasets_own_are_those_of_the_training_split(scenes, make_config, manifest):
    config = make_config(scenes, student={"normalise": "dataset"})
    specs, measured = input_specs(config, manifest), manifest.statistics("train").modalities
    assert specs["depth"].mean == pytest.approx(measured["depth"].mean * 3)
    assert specs["event"].mean == pytest.approx(measured["event"].mean)
    assert all(value > 0 for spec in specs.values() for value in spec.std)
    assert specs["depth"] != config.specs()["depth"]


def test_the_choice_makes_another_run(scenes, make_config):
    configs = [make_config(scenes, student={"normalise": n}) for n in ("registry", "dataset")]
    assert len({identify(config, Workspace.of(config)).id for config in configs}) == 2


def test_every_channel_is_normalised_and_colour_by_the_pretraining():
    statistics = InputStatistics(
        {"rgb": KINDS["rgb"], "depth": KINDS["depth"]}, (0.1, 0.2, 0.3), (0.5, 0.25, 0.125)
    )
    inputs = {"rgb": torch.full((2, 3, 1, 1), 0.6), "depth": torch.full((2, 1, 1, 1), 0.6)}
    normalised = statistics(inputs)
    assert normalised.shape == (2, 2, 3, 1, 1)
    assert normalised[0, 1].flatten().tolist() == pytest.approx([1.0, 1.6, 2.4])
    depth = KINDS["depth"]
    expected = [(0.6 - m) / s for m, s in zip(depth.mean, depth.std, strict=True)]
    assert normalised[1, 0].flatten().tolist() == pytest.approx(expected)
    assert not statistics.state_dict()
