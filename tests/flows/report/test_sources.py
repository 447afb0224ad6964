"""What the report reads: exactly the arrays that the adapter gives, from verified shards."""

import numpy as np
import pytest

from flows.report.sources import (
    fingerprints,
    input_files,
    read_metrics,
    read_samples,
    scored_rows,
    target_stores,
)
from pipeline.config.config import Config
from pipeline.config.load import load_config
from pipeline.datasets import open_dataset
from pipeline.errors import Any2SegError
from pipeline.shards.manifest import Manifest
from pipeline.storage.files import read_json, write_json
from pipeline.targets.lookup import resolve
from pipeline.workspace import Workspace
from student.runs.inputs import RunInputs, identify, open_inputs
from tests.flows.made_up_run import prepare_all, write_run

CONFIG = """
name = "streets"
workspace = "./workspace"
dataset = { adapter = "synthetic", num_train = 3, num_val = 0, num_test = 5, size_px = 32 }
modalities = { rgb = {}, depth = {}, event = {}, lidar = {} }
store = { shard_size = 2 }
prepare = { workers = 1 }
train = { steps = 40, batch_size = 2 }
evaluate = { split = "test", num_pictures = 4 }
compare = { later = ["seed=3"] }
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    path = tmp_path_factory.mktemp("streets") / "streets.toml"
    path.write_text(CONFIG)
    config = load_config(path)
    write_run(config, prepare_all(config))
    return config


@pytest.fixture(scope="module")
def inputs(config: Config) -> RunInputs:
    return open_inputs(config, Workspace.of(config))


@pytest.fixture(scope="module")
def manifest(inputs: RunInputs) -> Manifest:
    return inputs.manifest


def test_read_samples_equal_what_the_adapter_renders(
    config: Config, inputs: RunInputs, manifest: Manifest
) -> None:
    adapter = open_dataset(config.dataset, config.specs())
    sources = {sample.key: sample for sample in adapter.samples("test")}
    rows, _ = scored_rows(inputs)
    samples = list(read_samples(rows[0], manifest))
    assert [sample.key for sample in samples] == list(sources)[:4]
    for sample in samples:
        loaded = adapter.load(sources[sample.key])
        assert sample.condition == sources[sample.key].condition
        assert sample.corner_case == sources[sample.key].corner_case
        np.testing.assert_array_equal(sample.label, loaded.label)
        for name, array in loaded.arrays.items():
            np.testing.assert_array_equal(sample.arrays[name], array)


def test_predictions_of_singles_and_of_all_are_read(
    config: Config, inputs: RunInputs, manifest: Manifest
) -> None:
    rows, _ = scored_rows(inputs)
    sample = next(read_samples(rows[0], manifest))
    names = list(config.modalities)
    assert set(sample.predictions) == {frozenset([n]) for n in names} | {frozenset(names)}
    counted = sample.label != 255
    for predicted in sample.predictions.values():
        assert (predicted == sample.label)[counted].mean() > 0.9


def test_rows_that_are_not_scored_are_named(inputs: RunInputs) -> None:
    rows, unfinished = scored_rows(inputs)
    assert [row.name for row in rows] == ["main"]
    assert unfinished == ["later"]


def test_metrics_without_a_value_are_nan(config: Config) -> None:
    metrics = read_metrics(identify(config, Workspace.of(config)))
    assert np.isnan(metrics["intra"]).all()
    np.testing.assert_allclose(metrics["ce"], 2 / np.arange(1, 41))


def test_scores_of_an_older_schema_do_not_count(config: Config, inputs: RunInputs) -> None:
    evaluation = identify(config, Workspace.of(config)).evaluation
    scores = read_json(evaluation)
    write_json(evaluation, scores | {"schema": 1})
    with pytest.raises(Any2SegError, match=r"of schema 2.*any2seg evaluate CONFIG"):
        scored_rows(inputs)
    write_json(evaluation, scores)


def test_input_files_are_scores_curves_images_and_costs(
    config: Config, inputs: RunInputs, manifest: Manifest
) -> None:
    workspace = Workspace.of(config)
    rows, _ = scored_rows(inputs)
    files = [
        file.relative_to(workspace.root)
        for file in input_files(rows, inputs, target_stores(inputs))
    ]
    names = [file.name for file in files]
    assert {"dataset.json", "manifest.parquet", "evaluation.json", "metrics.parquet"} <= set(names)
    assert names.count("label.png") == 4
    assert sum("cost" in file.parts for file in files) == 4 * len(manifest.all_shards)


def test_fingerprints_are_those_of_the_stores(
    config: Config, inputs: RunInputs, manifest: Manifest
) -> None:
    workspace = Workspace.of(config)
    rows, _ = scored_rows(inputs)
    printed = {line["name"]: line["value"] for line in fingerprints(rows[0])}
    assert printed["manifest"] == manifest.digest()
    for name in config.modalities:
        assert (
            printed[f"tower of {name}"]
            == resolve(config, workspace, name).provenance.tower_fingerprint
        )
