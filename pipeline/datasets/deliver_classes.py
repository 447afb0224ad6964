"""DELIVER's 25 classes: ids, display names and colours, in the order of its loader.

Source: `semseg/datasets/deliver.py` of the DELIVER / CMNeXt code.
"""

from __future__ import annotations

from enum import IntEnum

from pipeline.datasets.base import IGNORE_ID, RGB

RAW_IGNORE_ID = 0
"""Raw label value of ignored pixels in DELIVER's semantic images (255 is ignored too)."""


class Deliver(IntEnum):
    """Label ids as trained on (a semantic image stores id + 1)."""

    BUILDING = 0
    FENCE = 1
    OTHER = 2
    PEDESTRIAN = 3
    POLE = 4
    ROAD_LINE = 5
    ROAD = 6
    SIDEWALK = 7
    VEGETATION = 8
    CARS = 9
    WALL = 10
    TRAFFIC_SIGN = 11
    SKY = 12
    GROUND = 13
    BRIDGE = 14
    RAIL_TRACK = 15
    GROUND_RAIL = 16
    TRAFFIC_LIGHT = 17
    STATIC = 18
    DYNAMIC = 19
    WATER = 20
    TERRAIN = 21
    TWO_WHEELER = 22
    BUS = 23
    TRUCK = 24


DELIVER_CLASSES: tuple[str, ...] = (
    "Building",
    "Fence",
    "Other",
    "Pedestrian",
    "Pole",
    "RoadLine",
    "Road",
    "SideWalk",
    "Vegetation",
    "Cars",
    "Wall",
    "TrafficSign",
    "Sky",
    "Ground",
    "Bridge",
    "RailTrack",
    "GroundRail",
    "TrafficLight",
    "Static",
    "Dynamic",
    "Water",
    "Terrain",
    "TwoWheeler",
    "Bus",
    "Truck",
)
"""Names as DELIVER spells them; the index is the label id."""

DELIVER_PALETTE: tuple[RGB, ...] = (
    (70, 70, 70),
    (100, 40, 40),
    (55, 90, 80),
    (220, 20, 60),
    (153, 153, 153),
    (157, 234, 50),
    (128, 64, 128),
    (244, 35, 232),
    (107, 142, 35),
    (0, 0, 142),
    (102, 102, 156),
    (220, 220, 0),
    (70, 130, 180),
    (81, 0, 81),
    (150, 100, 100),
    (230, 150, 140),
    (180, 165, 180),
    (250, 170, 30),
    (110, 190, 160),
    (170, 120, 50),
    (45, 60, 150),
    (145, 170, 100),
    (0, 0, 230),
    (0, 60, 100),
    (0, 0, 70),
)
"""One sRGB colour a class."""

__all__ = [
    "DELIVER_CLASSES",
    "DELIVER_PALETTE",
    "IGNORE_ID",
    "RAW_IGNORE_ID",
    "Deliver",
]
