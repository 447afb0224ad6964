"""Images: the right colours, missing returns dark, nothing sparse lost when an image is reduced."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from flows.report.images import MAX_SIDE_PX, EmbeddedImage, class_image, modality_image
from pipeline.modalities import KINDS

PALETTE = [(200, 10, 10), (10, 200, 10), (10, 10, 200)]


def decoded(embedded: EmbeddedImage, mode: str = "RGB") -> np.ndarray:
    head, _, text = embedded.uri.partition(",")
    assert head == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(text))) as image:
        assert image.size == (embedded.width, embedded.height)
        return np.array(image.convert(mode))


def test_classes_have_the_palettes_colours_and_unlabelled_pixels_are_clear() -> None:
    ids = np.array([[0, 1, 2], [2, 255, 0]], np.uint8)
    pixels = decoded(class_image(ids, PALETTE), "RGBA")
    for (row, column), number in np.ndenumerate(ids):
        if number == 255:
            assert pixels[row, column, 3] == 0
        else:
            assert tuple(pixels[row, column]) == (*PALETTE[number], 255)


def test_a_large_class_map_is_reduced_without_mixing_classes() -> None:
    ids = np.random.default_rng(0).integers(0, 3, (700, 1500)).astype(np.uint8)
    image = class_image(ids, PALETTE)
    assert max(image.width, image.height) <= MAX_SIDE_PX
    colours = {tuple(colour) for colour in decoded(image).reshape(-1, 3)}
    assert colours == set(PALETTE)


@pytest.mark.parametrize("kind", ["depth", "lidar"])
def test_near_is_brighter_than_far_and_holes_are_dark(kind: str) -> None:
    array = np.array([[0, 2_000], [20_000, 60_000]], np.uint16)
    image = modality_image(array, KINDS[kind])
    light = decoded(image).astype(int).sum(axis=2)
    assert light[0, 1] > light[1, 0] > light[1, 1] > light[0, 0]
    assert image.note.endswith(" m")


def test_a_lidar_image_without_returns_is_dark() -> None:
    image = modality_image(np.zeros((5, 9), np.uint16), KINDS["lidar"])
    assert image.note == "no return"
    assert decoded(image).max() < 30


def test_a_single_return_survives_downscaling() -> None:
    array = np.zeros((1000, 1400), np.uint16)
    array[503, 707] = 5_000
    light = decoded(modality_image(array, KINDS["lidar"])).astype(int).sum(axis=2)
    assert (light > light.min()).sum() == 1


def test_events_are_red_and_blue_on_black() -> None:
    events = np.zeros((4, 4, 3), np.uint8)
    events[0, 0, 0] = 40
    events[3, 3, 2] = 40
    pixels = decoded(modality_image(events, KINDS["event"]))
    assert pixels[0, 0].argmax() == 0
    assert pixels[3, 3].argmax() == 2
    assert pixels[1:3].max() == 0


def test_a_single_event_survives_downscaling() -> None:
    events = np.zeros((999, 999, 3), np.uint8)
    events[998, 998, 2] = 9
    assert (decoded(modality_image(events, KINDS["event"])).max(axis=2) > 0).sum() == 1


def test_a_colour_image_is_shown_unchanged() -> None:
    image = np.random.default_rng(0).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    np.testing.assert_array_equal(decoded(modality_image(image, KINDS["rgb"])), image)


@pytest.mark.parametrize(("kind", "top"), [("nir", 255), ("gray16", 65_535)])
def test_one_channel_is_grey_and_its_largest_value_white(kind: str, top: int) -> None:
    array = np.array([[0, top]], np.uint8 if top == 255 else np.uint16)
    pixels = decoded(modality_image(array, KINDS[kind]))
    assert pixels.tolist() == [[[0, 0, 0], [255, 255, 255]]]
