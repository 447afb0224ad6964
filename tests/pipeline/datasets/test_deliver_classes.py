"""DELIVER's table: 25 names, ids and colours that agree with each other."""

from __future__ import annotations

from pipeline.datasets.deliver_classes import DELIVER_CLASSES, DELIVER_PALETTE, Deliver


def test_ids_and_names_are_in_the_same_order():
    spelled = [member.name.replace("_", "").lower() for member in Deliver]
    assert spelled == [name.lower() for name in DELIVER_CLASSES]
    assert [int(member) for member in Deliver] == list(range(25))


def test_colours_are_distinct_bytes():
    assert len(set(DELIVER_PALETTE)) == 25
    assert all(0 <= value <= 255 for color in DELIVER_PALETTE for value in color)


def test_anchors_of_the_published_table():
    table = dict(zip(DELIVER_CLASSES, DELIVER_PALETTE, strict=True))
    assert table["Sky"] == (70, 130, 180)
    assert table["Pedestrian"] == (220, 20, 60)
    assert table["Truck"] == (0, 0, 70)
    assert DELIVER_CLASSES[12] == "Sky"
    assert DELIVER_CLASSES[24] == "Truck"
