"""Scene descriptions: composed from labels, embedded, made once."""

from __future__ import annotations

import numpy as np
import pytest

import teacher
from pipeline.config.config import Config
from pipeline.config.teacher import DescriptionsConfig
from pipeline.errors import ConfigError, DatasetError, MissingTarget
from pipeline.shards.manifest import Manifest
from pipeline.targets.descriptions import resolve_descriptions
from pipeline.workspace import Workspace
from teacher.encoding.describe import describe, sentence

FROM_LABELS = DescriptionsConfig(source="from_labels")


def from_labels(config: Config) -> Config:
    """`config` with descriptions composed from labels."""
    return config.model_copy(update={"descriptions": FROM_LABELS})


@pytest.mark.parametrize(
    ("pixels", "condition", "expected"),
    [
        ([50, 45, 4, 1], "night", "a night scene with mostly sky and road, some traffic sign, a little car."),
        ([0, 0, 0, 0], "", "a scene with nothing labelled."),
        ([0, 1, 0, 9_999], "", "a scene with mostly car."),
    ],
)  # fmt: skip
def test_sentences_name_classes_by_their_share(
    pixels: list[int], condition: str, expected: str
) -> None:
    classes = ["Sky", "Road", "Traffic_Sign", "Car"]
    assert sentence(classes, pixels, condition) == expected


def test_training_scenes_are_described_and_embedded_once(config: Config) -> None:
    workspace = Workspace.of(config)
    first = describe(from_labels(config), workspace, progress=False)
    assert (first.done, first.skipped) == (3, 0)
    second = describe(from_labels(config), workspace, progress=False)
    assert (second.done, second.skipped) == (0, 3)

    manifest = Manifest.load(workspace.dataset(config))
    store = resolve_descriptions(config, workspace, FROM_LABELS, "scene")
    text = teacher.load_text_tower(config.teacher.name)
    rows = {row["key"]: row for row in manifest.rows("train")}
    for shard in manifest.shards("train"):
        texts = [sentence(manifest.classes, rows[k]["class_pixels"], "") for k in shard.keys]
        expected = text.encode(texts).numpy()
        np.testing.assert_allclose(store.read(shard, "embedding"), expected, atol=6e-4)
    with pytest.raises(MissingTarget):
        store.read(manifest.shards("val")[0], "embedding")


def test_a_new_text_tower_embeds_the_kept_texts_again(config: Config) -> None:
    workspace = Workspace.of(config)
    describe(from_labels(config), workspace, progress=False)
    texts = sorted((workspace.root / "descriptions").rglob("*.parquet"))
    before = [path.stat().st_mtime_ns for path in texts]
    half = config.teacher.model_copy(update={"dtype": "bfloat16"})
    changed = from_labels(config).model_copy(update={"teacher": half})
    report = describe(changed, workspace, progress=False)
    assert report.done == 3
    assert sorted((workspace.root / "descriptions").rglob("*.parquet")) == texts
    assert [path.stat().st_mtime_ns for path in texts] == before


def test_a_damaged_text_file_is_written_again(config: Config) -> None:
    workspace = Workspace.of(config)
    describe(from_labels(config), workspace, progress=False)
    path = min((workspace.root / "descriptions").rglob("*.parquet"))
    whole = path.read_bytes()
    path.write_bytes(whole[:50])
    assert describe(from_labels(config), workspace, progress=False).done == 1
    assert path.read_bytes() == whole


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="model: expected one with source = captioner"):
        DescriptionsConfig(source="captioner")
    with pytest.raises(ValueError, match="model: expected one with source = captioner"):
        DescriptionsConfig(source="from_labels", model="x")


def test_an_unprepared_dataset_is_named(config: Config) -> None:
    other = config.model_copy(update={"store": config.store.model_copy(update={"shard_size": 5})})
    with pytest.raises(DatasetError, match="any2seg prepare CONFIG"):
        describe(from_labels(other), Workspace.of(other), progress=False)


def test_a_config_without_descriptions_is_refused(config: Config) -> None:
    with pytest.raises(ConfigError, match="descriptions: not set"):
        describe(config, Workspace.of(config), progress=False)
