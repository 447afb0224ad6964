"""MCubeS's layout: lists, arrays, the NIR mask and the columns that are cut."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.datasets.mcubes import CUT_COLUMNS, MCUBES_CARD, McubesAdapter, McubesOptions
from pipeline.errors import ConfigError, DatasetError, SampleRefused
from pipeline.modalities import KINDS

HEIGHT, SEEN = 4, 5
WIDTH = CUT_COLUMNS + SEEN
SPECS = {kind: KINDS[kind] for kind in ("rgb", "aolp", "dolp", "nir")}
Save = Callable[[Path, np.ndarray], Path]


def write_set(root: Path, name: str, seed: int, save: Save) -> dict[str, np.ndarray]:
    """One image set; what lies in the columns that are cut would be refused if it were read."""
    rng = np.random.default_rng([3, seed])
    angle = rng.uniform(0, 2 * np.pi, (HEIGHT, WIDTH))
    parts = {
        "polL_color": rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8),
        "polL_aolp_sin": np.sin(angle),
        "polL_aolp_cos": np.cos(angle),
        "polL_dolp": rng.uniform(0, 1, (HEIGHT, WIDTH)),
        "NIR_warped": rng.integers(1, 256, (HEIGHT, WIDTH), dtype=np.uint8),
        "NIR_warped_mask": (rng.random((HEIGHT, WIDTH)) < 0.3).astype(np.uint8) * 255,
        "GT": rng.choice(np.array([*range(20), 255], np.uint8), (HEIGHT, WIDTH)),
    }
    for folder, array in parts.items():
        ending = "npy" if array.dtype.kind == "f" else "png"
        save(root / folder / f"{name}.{ending}", array)
    return parts


def write_lists(folder: Path, **splits: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for split, names in splits.items():
        (folder / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))


@pytest.fixture
def sets(tmp_path: Path, save: Save) -> tuple[Path, dict[str, dict[str, np.ndarray]]]:
    root = tmp_path / "multimodal_dataset"
    names = ("outscene1208_2_0000000150", "outscene1208_2_0000000180", "in_1", "in_2")
    written = {name: write_set(root, name, seed, save) for seed, name in enumerate(names)}
    write_lists(
        root / "list_folder",
        all=list(names),
        train=[names[1], names[0]],
        val=[names[2]],
        test=[names[3]],
    )
    return root, written


def adapter(root: Path, specs: dict = SPECS, **options: object) -> McubesAdapter:
    return McubesAdapter(McubesOptions.model_validate({"root": root, **options}), specs)


def test_the_lists_give_splits_and_order(sets: tuple) -> None:
    root, written = sets
    opened = adapter(root)
    assert opened.splits() == ("train", "val", "test")
    names = list(written)
    assert [s.key for s in opened.samples("train")] == [f"train_{names[1]}", f"train_{names[0]}"]
    assert [s.key for s in opened.samples("test")] == ["test_in_2"]


def test_every_modality_without_the_cut_columns(sets: tuple) -> None:
    root, written = sets
    parts = {name: array[:, CUT_COLUMNS:] for name, array in written["in_1"].items()}
    loaded = adapter(root).load(adapter(root).samples("val")[0])
    np.testing.assert_array_equal(loaded.arrays["rgb"], parts["polL_color"])
    np.testing.assert_array_equal(loaded.label, parts["GT"])
    sine, cosine = parts["polL_aolp_sin"], parts["polL_aolp_cos"]
    decoded = loaded.arrays["aolp"] / 127.5 - 1
    np.testing.assert_allclose(decoded, np.dstack([sine, cosine, sine]), atol=0.5 / 127.5 + 1e-9)
    dolp = loaded.arrays["dolp"]
    assert dolp.dtype == np.uint16
    np.testing.assert_allclose(dolp / 65_535, parts["polL_dolp"], atol=0.5 / 65_535 + 1e-9)
    masked = parts["NIR_warped_mask"] > 0
    np.testing.assert_array_equal(loaded.arrays["nir"], np.where(masked, 0, parts["NIR_warped"]))


def test_the_mask_may_mean_the_opposite(sets: tuple) -> None:
    root, written = sets
    opened = adapter(root, nir_mask_white="valid")
    nir = opened.load(opened.samples("val")[0]).arrays["nir"]
    masked = written["in_1"]["NIR_warped_mask"][:, CUT_COLUMNS:] > 0
    np.testing.assert_array_equal(nir > 0, masked)


def test_16_bit_images_are_read_whole(sets: tuple, save: Save) -> None:
    root, _ = sets
    rng = np.random.default_rng(1)
    colour = rng.integers(0, 65_536, (HEIGHT, WIDTH, 3), dtype=np.uint16)
    near = rng.integers(0, 65_536, (HEIGHT, WIDTH), dtype=np.uint16)
    save(root / "polL_color/in_1.png", colour)
    save(root / "NIR_warped/in_1.png", near)
    save(root / "NIR_warped_mask/in_1.png", np.zeros((HEIGHT, WIDTH), np.uint8))
    opened = adapter(root, {"rgb": KINDS["rgb"], "nir": KINDS["nir"], "wide": KINDS["nir16"]})
    arrays = opened.load(opened.samples("val")[0]).arrays
    np.testing.assert_array_equal(arrays["rgb"], np.rint(colour[:, CUT_COLUMNS:] / 257))
    np.testing.assert_array_equal(arrays["nir"], np.rint(near[:, CUT_COLUMNS:] / 257))
    np.testing.assert_array_equal(arrays["wide"], near[:, CUT_COLUMNS:])


def test_the_folder_above_and_hostile_roots_serve(hostile_root: Path, save: Save) -> None:
    write_set(hostile_root / "multimodal_dataset", "a", 0, save)
    write_lists(hostile_root / "list_folder", train=["a"])
    opened = adapter(hostile_root)
    assert opened.load(opened.samples("train")[0]).label.shape == (HEIGHT, SEEN)


@pytest.mark.parametrize("folder", ["polL_aolp_sin", "polL_aolp_cos", "NIR_warped_mask", "GT"])
def test_a_missing_file_is_refused_by_name(sets: tuple, folder: str) -> None:
    root, _ = sets
    path = next((root / folder).glob("in_1.*"))
    before = adapter(root).samples("val")[0].version()
    path.unlink()
    opened = adapter(root)
    with pytest.raises(SampleRefused, match=folder):
        opened.load(opened.samples("val")[0])
    assert opened.samples("val")[0].version() != before


def test_a_listed_name_without_files_is_refused(sets: tuple) -> None:
    root, _ = sets
    write_lists(root / "list_folder", test=["in_2", "in_3"])
    opened = adapter(root)
    with pytest.raises(SampleRefused, match=r"no label: expected .*GT.* key test_in_3"):
        opened.load(opened.samples("test")[1])


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.full((HEIGHT, WIDTH), 1.5), "numbers from 0 to 1"),
        (np.full((HEIGHT, WIDTH), np.nan), "numbers from 0 to 1"),
        (np.zeros((HEIGHT, WIDTH, 3)), "numbers from 0 to 1"),
        (np.zeros((HEIGHT, CUT_COLUMNS)), "more than 192 columns"),
        (np.array([[{}]], dtype=object), "whole array"),
    ],
)
def test_bad_arrays_are_refused(sets: tuple, array: np.ndarray, expected: str) -> None:
    root, _ = sets
    np.save(root / "polL_dolp/in_1.npy", array)
    opened = adapter(root)
    with pytest.raises(SampleRefused, match=f"in_1.npy: expected.*{expected}"):
        opened.load(opened.samples("val")[0])


def test_missing_folders_and_lists_are_named(sets: tuple) -> None:
    root, _ = sets
    os.rename(root / "NIR_warped_mask", root / "mask")
    with pytest.raises(DatasetError, match="NIR_warped_mask: no such folder"):
        adapter(root).splits()
    os.rename(root / "list_folder", root / "lists")
    with pytest.raises(DatasetError, match=r"list_folder: expected train.txt"):
        adapter(root, {"rgb": KINDS["rgb"]}).splits()


def test_an_unknown_kind_names_those_there_are() -> None:
    with pytest.raises(ConfigError, match="'depth'; expected one of rgb, aolp, dolp, nir, nir16"):
        adapter(Path("x"), {"depth": KINDS["depth"]})


def test_the_card_has_the_published_counts() -> None:
    assert sum(MCUBES_CARD.expected.values()) == 500
