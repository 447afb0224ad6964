"""The statistics that a student's inputs are normalised with."""

from __future__ import annotations

import pytest

from pipeline.shards.manifest import Manifest
from pipeline.workspace import Workspace
from student.model.input_statistics import input_specs
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
    found, measured = input_specs(config, manifest), manifest.statistics("train").modalities
    assert found["depth"].mean == pytest.approx(measured["depth"].mean * 3)
    assert found["event"].mean == pytest.approx(measured["event"].mean)
    assert all(value > 0 for spec in found.values() for value in spec.std)
    assert found["depth"] != config.specs()["depth"]


def test_the_choice_makes_another_run(scenes, make_config):
    configs = [make_config(scenes, student={"normalise": n}) for n in ("registry", "dataset")]
    assert len({identify(config, Workspace.of(config)).id for config in configs}) == 2
