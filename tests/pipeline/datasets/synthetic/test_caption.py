"""Captions say only what the image shows."""

from __future__ import annotations

import pytest

from pipeline.datasets.deliver_classes import Deliver
from pipeline.datasets.synthetic.caption import describe
from pipeline.datasets.synthetic.primitives import Material, WorldBuilder
from pipeline.datasets.synthetic.raycast import Lens, Pose, cast
from pipeline.datasets.synthetic.render import render_scene
from pipeline.datasets.synthetic.weather import CONDITIONS

LENS = Lens.from_view(64, 72, 0.5)
WORDS = {
    "bus": Deliver.BUS,
    "truck": Deliver.TRUCK,
    "a car ": Deliver.CARS,
    "two-wheeler": Deliver.TWO_WHEELER,
    "pedestrian": Deliver.PEDESTRIAN,
    "traffic light": Deliver.TRAFFIC_LIGHT,
    "traffic sign": Deliver.TRAFFIC_SIGN,
    "water": Deliver.WATER,
    "bridge": Deliver.BRIDGE,
    "rail track": Deliver.RAIL_TRACK,
    "guard rail": Deliver.GROUND_RAIL,
}


def _describe(x: float, y: float, condition: str = "sun") -> str:
    world = WorldBuilder()
    world.slab(Deliver.BUS, (x - 1, x + 1), (y, y + 6), 3.0, Material.COACH, (1, 0, 0))
    table = world.build()
    return describe(table, cast(table, LENS, Pose(0, 0, 1.5, 0)), condition)


@pytest.mark.parametrize(
    ("x", "y", "phrase"),
    [
        (-3.5, 6, "a bus near on the left"),
        (0, 12, "a bus mid-way ahead"),
        (9, 26, "a bus far on the right"),
    ],
)
def test_captions_name_position_and_distance(x, y, phrase):
    assert phrase in _describe(x, y)


def test_every_condition_opens_its_own_way():
    openings = {_describe(0, 12, condition).split(" with ")[0] for condition in CONDITIONS}
    assert len(openings) == len(CONDITIONS)


def test_empty_world_is_just_weather():
    table = WorldBuilder().build()
    caption = describe(table, cast(table, LENS, Pose(0, 0, 1.5, 0)), "fog")
    assert caption == "A street in thick fog."


@pytest.mark.parametrize("index", range(12))
def test_named_classes_are_in_the_label(index):
    scene = render_scene(3, index, 96)
    present = set(scene.label.ravel().tolist())
    named = {label for word, label in WORDS.items() if word in scene.caption}
    assert {int(label) for label in named} <= present
    assert scene.caption.endswith(".")
