"""Synthetic street scenes, the embedded default data: one scene seen by four sensors.

`render_scene(seed, index)` gives a `Scene`; `SyntheticAdapter` serves scenes as a data set. The code reads
in this order: `primitives`, `objects`, `frontage`, `street` (the world), `raycast` (what each pixel sees),
`weather`, `textures`, `shade` (light), `sensors` (what each sensor makes of it), `render` (all together).
"""

from __future__ import annotations

from pipeline.datasets.synthetic.adapter import SyntheticAdapter, SyntheticOptions
from pipeline.datasets.synthetic.render import Scene, render_scene
from pipeline.datasets.synthetic.weather import CONDITIONS, CORNER_CASES, scene_attributes

__all__ = [
    "CONDITIONS",
    "CORNER_CASES",
    "Scene",
    "SyntheticAdapter",
    "SyntheticOptions",
    "render_scene",
    "scene_attributes",
]
