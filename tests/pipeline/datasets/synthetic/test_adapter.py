"""The adapter: keys, splits, growth, and the arrays of the scenes themselves."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from pydantic import ValidationError

from pipeline.datasets import ADAPTERS, open_dataset
from pipeline.datasets.deliver_classes import DELIVER_CLASSES, DELIVER_PALETTE
from pipeline.datasets.synthetic import SyntheticAdapter, SyntheticOptions, render_scene
from pipeline.datasets.synthetic.adapter import scene_index
from pipeline.errors import ConfigError, DatasetError
from pipeline.modalities import check_array, spec_for

KINDS = ("rgb", "depth", "event", "lidar")
SPECS = {kind: spec_for(kind, kind) for kind in KINDS}


def _options(**changes) -> SyntheticOptions:
    return SyntheticOptions(
        **{"num_train": 5, "num_val": 2, "num_test": 0, "size_px": 32, "seed": 3, **changes}
    )


def _adapter(**changes) -> SyntheticAdapter:
    return SyntheticAdapter(_options(**changes), SPECS)


def test_registered_under_its_name():
    assert ADAPTERS["synthetic"] == (SyntheticOptions, SyntheticAdapter)
    assert isinstance(open_dataset(_options(), SPECS), SyntheticAdapter)


def test_classes_and_palette_are_delivers():
    adapter = _adapter()
    assert (adapter.classes, adapter.palette) == (DELIVER_CLASSES, DELIVER_PALETTE)


def test_keys_name_split_number_and_attributes():
    adapter = _adapter(num_train=40)
    for number, sample in enumerate(adapter.samples("train")):
        parts = ["train", f"{number:06d}", sample.condition, *filter(None, [sample.corner_case])]
        assert sample.key == "_".join(parts)
        assert "." not in sample.key
        assert sample.version() == ""


def test_empty_splits_are_not_listed_and_refused():
    adapter = _adapter()
    assert adapter.splits() == ("train", "val")
    with pytest.raises(DatasetError, match="dataset.num_test"):
        adapter.samples("test")
    with pytest.raises(DatasetError, match="unknown split 'dev'"):
        adapter.samples("dev")


def test_splits_never_share_a_scene():
    indices = [scene_index(split, n) for split in ("train", "val", "test") for n in range(500)]
    assert len(set(indices)) == 1500


def test_growth_appends_and_keeps_the_identity():
    small, large = _adapter(), _adapter(num_train=9)
    assert large.samples("train")[:5] == small.samples("train")
    assert _options().identity() == _options(num_train=9, num_val=7, num_test=4).identity()


@pytest.mark.parametrize("change", [{"seed": 4}, {"size_px": 64}])
def test_what_changes_pixels_changes_the_identity(change):
    assert _options().identity() != _options(**change).identity()
    assert "renderer" in _options().identity()


def test_load_gives_the_rendered_scene_in_stored_form():
    adapter = _adapter()
    sample = adapter.samples("val")[1]
    loaded = adapter.load(sample)
    scene = render_scene(3, scene_index("val", 1), 32)
    assert tuple(loaded.arrays) == KINDS
    assert np.array_equal(loaded.label, scene.label)
    for kind in KINDS:
        assert check_array(loaded.arrays[kind], SPECS[kind]) is None
        assert np.array_equal(loaded.arrays[kind], getattr(scene, kind))


def test_adapters_can_be_sent_to_worker_processes():
    assert b"SyntheticAdapter" in pickle.dumps(_adapter())


def test_modalities_may_be_renamed_and_left_out():
    adapter = SyntheticAdapter(_options(), {"camera": SPECS["rgb"]})
    assert list(adapter.load(adapter.samples("train")[0]).arrays) == ["camera"]


def test_unknown_kind_is_a_config_error_that_names_the_field():
    with pytest.raises(
        ConfigError, match=r"modalities\.heat: .*'thermal'.*depth, event, lidar, rgb"
    ):
        SyntheticAdapter(_options(), {"heat": spec_for("thermal", "heat")})


@pytest.mark.parametrize("bad", [{"num_train": -1}, {"size_px": 0}, {"weather": "sun"}])
def test_bad_options_are_refused(bad):
    with pytest.raises(ValidationError):
        _options(**bad)
