"""The vocabulary of the tiny teacher and the similarities it is trained towards.

Language models learn from text that a bus is more like a truck than like the sky. The tiny text tower
has no such text, so this table replaces it: every concept has names and attributes, and the target
cosine of two prompts is the cosine of their attribute vectors. Our own construction.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from teacher.encoding.class_prompts import templates

IDENTITY_WEIGHT_SQ = 2.0
"""Squared weight of a concept's own dimension; an attribute weighs 1."""


@dataclass(frozen=True, slots=True)
class Concept:
    """Synonyms, and the attributes that the concept shares with others."""

    names: tuple[str, ...]
    attributes: frozenset[str]


def _concept(names: str, attributes: str) -> Concept:
    return Concept(tuple(names.split(", ")), frozenset(attributes.split()))


CLASSES: tuple[Concept, ...] = (
    _concept("building, buildings, house, houses", "built tall large surface"),
    _concept("fence, fences, railing", "built barrier thin"),
    _concept("other, other object, something else", "thing"),
    _concept("pedestrian, pedestrians, person, people, human", "person moving small user"),
    _concept("pole, poles, lamp post, street lamp", "thin tall furniture metal"),
    _concept("road line, roadline, lane marking, road marking", "ground flat street paint"),
    _concept("road, street, roadway, asphalt", "ground flat street paved"),
    _concept("sidewalk, side walk, pavement, footpath", "ground flat paved"),
    _concept("vegetation, tree, trees, bushes, foliage", "plant green"),
    _concept("car, cars, automobile", "vehicle wheels moving user"),
    _concept("wall, walls, brick wall", "built barrier surface"),
    _concept("traffic sign, trafficsign, traffic signs, road sign", "furniture small tall sign"),
    _concept("sky, the sky, open sky", "far air"),
    _concept("ground, bare ground, dirt", "ground flat bare"),
    _concept("bridge, bridges, overpass", "built large street"),
    _concept("rail track, railtrack, railway, rails", "ground metal rail"),
    _concept("ground rail, groundrail, guard rail, guardrail", "barrier metal rail"),
    _concept("traffic light, trafficlight, traffic lights", "furniture small tall lamp sign"),
    _concept("static, static object, street clutter", "thing small still"),
    _concept("dynamic, dynamic object, moving object", "thing small moving"),
    _concept("water, pond, river, puddle", "flat wet"),
    _concept("terrain, grass, lawn, meadow", "ground plant green"),
    _concept(
        "two wheeler, two-wheeler, twowheeler, bicycle, motorcycle, rider",
        "vehicle wheels moving user small person",
    ),
    _concept("bus, buses, coach", "vehicle wheels moving user large"),
    _concept("truck, trucks, lorry", "vehicle wheels moving user large cargo"),
)
"""In the order of DELIVER's 25 label ids."""

CONDITIONS: dict[str, Concept] = {
    "cloud": _concept("a cloudy day, overcast weather, clouds", "weather dull"),
    "fog": _concept("fog, a foggy day, thick fog", "weather dull hazy"),
    "night": _concept("night, darkness, a dark night", "weather dark"),
    "rain": _concept("rain, a rainy day, wet weather", "weather dull wet"),
    "sun": _concept("a sunny day, bright sunshine, clear weather", "weather bright"),
}

RELATED: tuple[Concept, ...] = (
    _concept("vehicle, vehicles, traffic", "vehicle wheels moving user"),
    _concept("plant, plants, leaf", "plant green small"),
    _concept("crop, crops, sugar beet", "plant green ground field"),
    _concept("weed, weeds", "plant green ground wild"),
    _concept("soil, earth, field", "ground flat bare field"),
    _concept("background, nothing", "ground far"),
    _concept("gravel, sand, cobblestone", "ground flat bare paved"),
    _concept("concrete, plaster, ceramic", "built surface paved"),
    _concept("brick, bricks", "built surface barrier"),
    _concept("metal, steel", "metal"),
    _concept("glass, window, windows", "built surface bright"),
    _concept("wood, wooden", "plant built"),
    _concept("plastic, rubber, fabric", "thing"),
    _concept("train, tram", "vehicle rail moving large"),
)
"""Classes of other data sets, near the concepts that they resemble: a prompt of theirs is not noise."""

_OWN_TEMPLATES = (
    "{}",
    "a {}.",
    "the {}.",
    "a street scene with a {}.",
    "a street scene in {}.",
    "a driving scene with {}.",
    "a {} on the road.",
    "there is a {} in the scene.",
    "an image of a {}.",
    "a picture of {}.",
    "a thermal infrared photo of a {}.",
)
SCORED_TEMPLATES: tuple[str, ...] = (*templates("photo"), *templates("driving"))
"""Templates of the prompts that the vision towers are trained and scored against."""
TEMPLATES: tuple[str, ...] = (
    *(6 * (*_OWN_TEMPLATES, *SCORED_TEMPLATES)),
    *templates("imagenet-80"),
    *templates("depth"),
)
"""Templates that the text tower is trained on; common ones are repeated, to be drawn more often."""


def all_concepts() -> tuple[Concept, ...]:
    """Classes (by label id), then conditions (in table order), then related words."""
    return CLASSES + tuple(CONDITIONS.values()) + RELATED


def target_gram() -> NDArray[np.float32]:
    """Target cosine of every pair of concepts, (N, N) in [0, 1] with ones on the diagonal."""
    concepts = all_concepts()
    names = sorted({word for concept in concepts for word in concept.attributes})
    vectors = np.zeros((len(concepts), len(names) + len(concepts)), np.float32)
    for row, concept in enumerate(concepts):
        vectors[row, [names.index(word) for word in concept.attributes]] = 1.0
        vectors[row, len(names) + row] = IDENTITY_WEIGHT_SQ**0.5
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors @ vectors.T, np.float32)
