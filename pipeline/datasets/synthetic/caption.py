"""A sentence or two that say what is in a scene, true to its pixels: weather, things, where, how far.

Made from the ray cast, not from any sensor.
"""

from __future__ import annotations

import numpy as np

from pipeline.datasets.deliver_classes import Deliver
from pipeline.datasets.synthetic.primitives import Primitives
from pipeline.datasets.synthetic.raycast import Hits

_OPENINGS = {
    "cloud": "A street under an overcast sky",
    "fog": "A street in thick fog",
    "night": "A street at night",
    "rain": "A street in the rain",
    "sun": "A street on a sunny day",
}
_THINGS: dict[Deliver, str] = {
    Deliver.BUS: "a bus",
    Deliver.TRUCK: "a truck",
    Deliver.CARS: "a car",
    Deliver.TWO_WHEELER: "a two-wheeler",
    Deliver.PEDESTRIAN: "a pedestrian",
    Deliver.TRAFFIC_LIGHT: "a traffic light",
    Deliver.TRAFFIC_SIGN: "a traffic sign",
    Deliver.STATIC: "street furniture",
    Deliver.DYNAMIC: "rubbish bins or a cart",
    Deliver.OTHER: "a market stall",
    Deliver.POLE: "a pole",
}
_SURROUNDINGS: dict[Deliver, str] = {
    Deliver.BUILDING: "buildings",
    Deliver.VEGETATION: "trees",
    Deliver.WATER: "water",
    Deliver.RAIL_TRACK: "a rail track",
    Deliver.BRIDGE: "a bridge",
    Deliver.WALL: "a wall",
    Deliver.FENCE: "a fence",
    Deliver.GROUND_RAIL: "a guard rail",
    Deliver.TERRAIN: "grass",
    Deliver.GROUND: "a paved square",
}
_NEAR_M, _FAR_M = 9.0, 22.0
_MIN_THING, _MIN_SURROUNDING = 0.0025, 0.02
_MAX_NAMED = 4


def describe(table: Primitives, hits: Hits, condition: str) -> str:
    """Weather, the largest things with place and distance, and what lines the street."""
    num_pixels = hits.primitive.size
    things = _things(table, hits, int(_MIN_THING * num_pixels))
    counts = np.bincount(table.label[hits.primitive].ravel(), minlength=len(Deliver))
    order = sorted(_SURROUNDINGS, key=lambda label: -int(counts[label]))
    around = [_SURROUNDINGS[k] for k in order if counts[k] >= _MIN_SURROUNDING * num_pixels]
    sentences = [_OPENINGS[condition]]
    if things:
        sentences[0] += " with " + _join(things[:_MAX_NAMED])
    if around:
        sentences.append("Around it are " + _join(around[:_MAX_NAMED]))
    return ". ".join(sentences) + "."


def _things(table: Primitives, hits: Hits, min_pixels: int) -> list[str]:
    """Phrases for the things that cover at least `min_pixels`, largest first."""
    instance = table.instance[hits.primitive].ravel()
    area = np.bincount(instance)
    size = hits.primitive.shape[1]
    column = np.bincount(instance, np.tile(np.arange(size), hits.primitive.shape[0]))
    distance = np.full(len(area), np.inf, np.float32)
    np.minimum.at(distance, instance, hits.depth.ravel())
    label_of = dict(zip(table.instance.tolist(), table.label.tolist(), strict=True))
    phrases: list[str] = []
    for number in np.argsort(-area, kind="stable").tolist():
        label = Deliver(label_of.get(number, Deliver.SKY))
        if area[number] >= max(min_pixels, 1) and label in _THINGS:
            where = _where(column[number] / area[number] / size, float(distance[number]))
            phrase = f"{_THINGS[label]} {where}"
            if phrase not in phrases:
                phrases.append(phrase)
    return phrases


def _where(across: float, distance: float) -> str:
    reach = "near" if distance < _NEAR_M else "far" if distance > _FAR_M else "mid-way"
    side = "on the left" if across < 0.38 else "on the right" if across > 0.62 else "ahead"
    return f"{reach} {side}"


def _join(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
