"""Encoding samples: their members and facts, and checks that no adapter can get round."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.datasets.base import LoadedSample, SourceSample
from pipeline.errors import SampleRefused
from pipeline.formats.image_codec import decode_image, decode_label
from pipeline.modalities import KINDS
from pipeline.shards.sample_encoder import EncodedSample, Refused, SampleEncoder

SPECS = {"rgb": KINDS["rgb"], "depth": KINDS["depth"]}


def good(seed: int = 0) -> LoadedSample:
    rng = np.random.default_rng(seed)
    arrays = {
        "rgb": rng.integers(0, 256, (4, 5, 3), dtype=np.uint8),
        "depth": rng.integers(0, 60_000, (4, 5), dtype=np.uint16),
    }
    label = rng.choice(np.array([0, 1, 255], np.uint8), (4, 5))
    return LoadedSample(arrays, label)


@dataclass(frozen=True)
class FixedAdapter:
    """Loads what `make(key)` gives; crosses to worker processes."""

    make: Callable[[str], LoadedSample]
    classes: tuple[str, ...] = ("a", "b")

    def load(self, sample: SourceSample) -> LoadedSample:
        return self.make(sample.key)


def samples(number: int) -> list[SourceSample]:
    return [SourceSample(f"train_{n}", "train") for n in range(number)]


def refusal(loaded: LoadedSample, key: str = "train_0") -> str:
    encoder = SampleEncoder(FixedAdapter(lambda _: loaded), SPECS)  # type: ignore[arg-type]
    result = encoder(SourceSample(key, "train"))
    assert isinstance(result, Refused)
    assert result.key == key
    return result.reason


def test_members_and_facts_of_a_sample() -> None:
    loaded = good(3)
    encoder = SampleEncoder(FixedAdapter(lambda _: loaded), SPECS)  # type: ignore[arg-type]
    result = encoder(SourceSample("train_x", "train", condition="fog", corner_case="lidarjitter"))
    assert isinstance(result, EncodedSample)
    assert set(result.members) == {"rgb.npy.zst", "depth.npy.zst", "label.npy.zst", "meta.json"}
    for name, spec in SPECS.items():
        found = decode_image(result.members[f"{name}.npy.zst"], spec, "x")
        np.testing.assert_array_equal(found, loaded.arrays[name])
    np.testing.assert_array_equal(decode_label(result.members["label.npy.zst"], "x"), loaded.label)
    meta = json.loads(result.members["meta.json"])
    assert meta == {
        "key": "train_x",
        "split": "train",
        "condition": "fog",
        "corner_case": "lidarjitter",
        "modalities": ["rgb", "depth"],
        "height": 4,
        "width": 5,
    }
    counts = [int((loaded.label == n).sum()) for n in (0, 1, 255)]
    assert [*result.facts["class_pixels"], result.facts["ignored_pixels"]] == counts


def test_arrays_without_the_stored_form_are_refused() -> None:
    sample = good()
    arrays = dict(sample.arrays)
    float_depth = {**arrays, "depth": arrays["depth"].astype(np.float32)}
    small_rgb = {**arrays, "rgb": arrays["rgb"][:2]}
    bad_label = sample.label.copy()
    bad_label[1, 1] = 2
    assert "depth: expected (H, W) uint16" in refusal(replace(sample, arrays=float_depth))
    assert "rgb: expected the label's size (4, 5)" in refusal(replace(sample, arrays=small_rgb))
    assert "label id 2 is out of range" in refusal(replace(sample, label=bad_label))
    assert "label: expected (H, W) uint8" in refusal(replace(sample, label=sample.label[0]))
    assert "no modality is present" in refusal(replace(sample, arrays={}))
    assert "the key is too long" in refusal(sample, key="train_" + "k" * 90)


def test_a_defect_of_an_adapter_is_not_a_refusal() -> None:
    def broken(key: str) -> LoadedSample:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        SampleEncoder(FixedAdapter(broken), SPECS)(samples(1)[0])  # type: ignore[arg-type]


def test_a_refusal_has_the_version_from_before_the_attempt(tmp_path: Path) -> None:
    """A file that is fixed while it is being refused must be tried again."""
    path = tmp_path / "a.png"
    path.write_bytes(b"bad")
    sample = SourceSample("train_0", "train", {"rgb": str(path)})
    before = sample.version()

    def fix(key: str) -> LoadedSample:
        path.write_bytes(b"fixed")
        raise SampleRefused(key, "bad")

    result = SampleEncoder(FixedAdapter(fix), SPECS)(sample)  # type: ignore[arg-type]
    assert isinstance(result, Refused)
    assert result.version == before != sample.version()
