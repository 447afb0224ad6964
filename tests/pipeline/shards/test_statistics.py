"""Statistics: a naive float computation agrees, sums are exact, resumed and grown datasets too."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.config import Config
from pipeline.errors import DatasetError
from pipeline.modalities import KINDS, to_unit_range
from pipeline.shards.manifest import Manifest
from pipeline.shards.prepare import prepare
from pipeline.shards.statistics import (
    MODALITY_COLUMNS,
    facts_table,
    measure,
    modality_rows,
    summarise,
)
from pipeline.workspace import Workspace

Prepared = tuple[Config, Workspace, Manifest]


def image(kind: str, seed: int, height: int = 9, width: int = 7) -> np.ndarray:
    """Random stored form, half of it 0."""
    spec = KINDS[kind]
    rng = np.random.default_rng([11, seed])
    shape = (height, width) if spec.channels == 1 else (height, width, 3)
    values = rng.integers(0, np.iinfo(spec.dtype).max + 1, shape).astype(spec.dtype)
    values[rng.random((height, width)) < 0.5] = 0
    return values


def row(kind: str, array: np.ndarray) -> dict:
    return {
        "height": array.shape[0],
        "width": array.shape[1],
        "modalities": [kind],
        "class_pixels": [3, 1],
        "ignored_pixels": 2,
        "statistics": [measure(kind, array, KINDS[kind])],
    }


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_moments_are_those_of_the_unit_values(kind: str) -> None:
    spec = KINDS[kind]
    arrays = [image(kind, 1), image(kind, 2, 5, 4)]
    measured = summarise(
        facts_table([row(kind, a) for a in arrays]), {kind: spec}, ("a", "b")
    ).modalities[kind]
    pixels = np.concatenate([a.reshape(-1, spec.channels) for a in arrays])
    unit = to_unit_range(pixels, spec).astype(np.float64)
    valid = pixels.any(axis=1)
    if spec.unit == "mm":
        unit = unit[valid]
    np.testing.assert_allclose(measured.mean, unit.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(measured.std, unit.std(axis=0), atol=1e-5)
    assert (measured.num_samples, measured.pixels, measured.valid_pixels) == (
        2,
        len(pixels),
        valid.sum(),
    )
    assert measured.valid_share == valid.mean()
    assert (measured.lowest, measured.highest) == (pixels[pixels > 0].min(), pixels.max())
    assert measured.saturated_pixels == (pixels >= spec.max_value).any(axis=1).sum()


@given(st.permutations(range(6)), st.integers(0, 6))
def test_statistics_do_not_depend_on_the_order(order: list[int], cut: int) -> None:
    rows = [row("depth", image("depth", seed)) for seed in range(6)]
    mixed = [rows[i] for i in order]
    specs = {"depth": KINDS["depth"]}
    whole = summarise(facts_table(rows), specs, ("a", "b"))
    assert summarise(facts_table(mixed[cut:] + mixed[:cut]), specs, ("a", "b")) == whole


def test_sums_of_a_large_split_do_not_overflow() -> None:
    white = np.full((4, 4, 3), 255, np.uint8)
    one = row("rgb", white)
    record = one["statistics"][0]
    record["squares"] = [2**62] * 3
    record["sums"] = [2**31] * 3
    rows = [{**one, "height": 2**20, "width": 2**20}] * 4
    measured = summarise(facts_table(rows), {"rgb": KINDS["rgb"]}, ("a", "b")).modalities["rgb"]
    expected = math.sqrt(2**62 / 2**40 - (2**31 / 2**40) ** 2) / 65_535
    assert measured.std == pytest.approx((expected,) * 3, rel=1e-12)


def test_saturation_follows_the_configured_limit() -> None:
    spec = replace(KINDS["depth"], max_value=1000.0)
    depth = np.array([[0, 999, 1000, 5000]], np.uint16)
    assert measure("depth", depth, spec)["saturated_pixels"] == 2
    assert measure("depth", depth, KINDS["depth"])["saturated_pixels"] == 0


def test_an_image_without_valid_pixels_has_no_range() -> None:
    empty = row("lidar", np.zeros((3, 3), np.uint16))
    specs = {"lidar": KINDS["lidar"]}
    measured = summarise(facts_table([empty]), specs, ("a", "b"))
    assert (measured.modalities["lidar"].lowest, measured.modalities["lidar"].valid_share) == (
        None,
        0.0,
    )
    assert math.isnan(measured.modalities["lidar"].mean[0])
    assert modality_rows(measured, specs)[0][3:5] == ("-", "mm")
    seen = row("lidar", image("lidar", 3))
    both = summarise(facts_table([empty, seen]), specs, ("a", "b")).modalities["lidar"]
    assert both.mean == summarise(facts_table([seen]), specs, ("a", "b")).modalities["lidar"].mean


def test_a_prepared_split_has_statistics(prepared: Prepared) -> None:
    config, _, manifest = prepared
    measured = manifest.statistics("train")
    assert measured.num_samples == 10
    assert set(measured.modalities) == {"rgb", "depth"}
    assert list(measured.class_pixels.values()) == manifest.class_pixels("train").tolist()
    assert sum(measured.class_shares().values()) == pytest.approx(1.0)
    assert sum(measured.class_pixels.values()) + measured.ignored_pixels == 10 * 12 * 10
    assert measured.availability == {("rgb", "depth"): 10}
    assert manifest.specs == config.specs()
    table = {line[0]: line for line in modality_rows(measured, manifest.specs)}
    assert [len(line) for line in table.values()] == [len(MODALITY_COLUMNS)] * 2
    assert table["depth"][1] == "10 of 10"
    with pytest.raises(DatasetError, match="no split 'test'; expected one of train, val"):
        manifest.statistics("test")


def test_absent_modalities_are_left_out(make_source, make_config) -> None:
    root: Path = make_source(train=4)
    (root / "depth/train/001.png").unlink()
    config = make_config("dataset.missing=allow")
    workspace = Workspace.of(config)
    prepare(config, workspace, progress=False)
    measured = Manifest.load(workspace.dataset(config)).statistics("train")
    assert measured.availability == {("rgb", "depth"): 3, ("rgb",): 1}
    assert measured.modalities["depth"].pixels == 3 * 12 * 10


def test_a_killed_and_a_grown_dataset_have_the_same_statistics(
    make_source: Callable[..., Path], make_config: Callable[..., Config], kill_at_step
) -> None:
    make_source(train=4)
    grown = make_config(workspace="grown")
    prepare(grown, Workspace.of(grown), progress=False)
    make_source(train=8)
    killed, whole = make_config(workspace="killed"), make_config(workspace="whole")
    for step in (20, 9):
        assert kill_at_step(lambda: prepare(killed, Workspace.of(killed), progress=False), step)
    figures = []
    for config in (whole, killed, grown):
        prepare(config, Workspace.of(config), progress=False)
        figures.append(Manifest.load(Workspace.of(config).dataset(config)).statistics("train"))
    assert figures[1] == figures[0]
    assert figures[2] == figures[0]
