"""One call from a seed to a scene: world, two exposures, four sensors, label and caption.

`render_scene` is a pure function of its arguments. Every sensor draws from a stream of its own, so weather
and corner cases change light and sensors but never the street. `DatasetError` on an unknown name.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.synthetic import sensors
from pipeline.datasets.synthetic.caption import describe
from pipeline.datasets.synthetic.shade import expose
from pipeline.datasets.synthetic.shadow import Sun, cast_shadows, no_shadows
from pipeline.datasets.synthetic.street import World, build_world
from pipeline.datasets.synthetic.weather import WEATHERS, check_attributes, scene_attributes

RENDERER_VERSION = 2
"""Goes up whenever the same seed would give other pixels; part of the dataset fingerprint."""
EVENT_WINDOW_S = 0.03
"""Time between the two exposures that the event camera compares."""
_WORLD, _SUN, _RGB, _RAIN, _DEPTH, _EVENT, _LIDAR = range(1, 8)


@dataclass(frozen=True, slots=True)
class Scene:
    """One rendered sample; all arrays have the same height and width."""

    rgb: NDArray[np.uint8]
    """(H, W, 3) sRGB."""
    depth: NDArray[np.uint16]
    """(H, W) millimetres along the camera axis; 0: no return (sky); 65535: that far or farther."""
    event: NDArray[np.uint8]
    """(H, W, 3) event counts x 51: channel 0 brighter, channel 2 darker, channel 1 empty."""
    lidar: NDArray[np.uint16]
    """(H, W) millimetres of range, 0 where no beam returned."""
    label: NDArray[np.uint8]
    """(H, W) DELIVER ids 0..24; 255 (ignored) does not occur."""
    condition: str
    corner_case: str
    """One of `CORNER_CASES`, or empty."""
    caption: str
    """What is in the image, in words."""


def render_scene(
    seed: int,
    index: int,
    size_px: int = 128,
    *,
    condition: str | None = None,
    corner_case: str | None = None,
) -> Scene:
    """Scene `index` of the endless data set `seed`; `condition` and `corner_case` override its own.

    Raises `DatasetError` on an unknown condition or corner case.
    """
    own = scene_attributes(seed, index)
    condition = own[0] if condition is None else condition
    corner_case = own[1] if corner_case is None else corner_case
    check_attributes(condition, corner_case)

    def stream(number: int) -> np.random.Generator:
        return np.random.default_rng([seed, index, number])

    world, weather = scene_world(seed, index), WEATHERS[condition]
    sun, lens = _draw_sun(stream(_SUN)), world.lens(size_px)
    shadows = cast_shadows(world.primitives, sun) if weather.sunny else no_shadows(sun)
    frame = expose(world, weather, shadows, lens, 0.0)
    before = expose(world, weather, shadows, lens, -EVENT_WINDOW_S)
    light, light_before = frame.radiance, before.radiance
    if weather.streaks:
        rain = stream(_RAIN)
        light = sensors.rain_streaks(light, weather.streaks, rain)
        light_before = sensors.rain_streaks(light_before, weather.streaks, rain)
    depth, table = frame.hits.depth, world.primitives
    return Scene(
        rgb=sensors.rgb_image(light, weather, corner_case, stream(_RGB)),
        depth=sensors.depth_image(depth, stream(_DEPTH)),
        event=sensors.event_image(
            sensors.luminance(light_before),
            sensors.luminance(light),
            weather.event_noise,
            corner_case == "eventlowres",
            stream(_EVENT),
        ),
        lidar=sensors.lidar_image(
            depth, lens, weather, corner_case == "lidarjitter", stream(_LIDAR)
        ),
        label=table.label[frame.hits.primitive],
        condition=condition,
        corner_case=corner_case,
        caption=describe(table, frame.hits, condition),
    )


def scene_world(seed: int, index: int) -> World:
    """The street of scene `index`, its camera and how it moves; weather has no say in it."""
    return build_world(np.random.default_rng([seed, index, _WORLD]))


def _draw_sun(rng: np.random.Generator) -> Sun:
    azimuth, elevation = rng.uniform(-math.pi, math.pi), rng.uniform(0.62, 1.05)
    return Sun(math.sin(azimuth), math.cos(azimuth), math.tan(elevation))
