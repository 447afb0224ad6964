"""The teacher: LanguageBind towers, prompts, preprocessing and the encoding pass.

`import teacher` is light; the names below load torch and transformers on first use:

- `load_tower(path_or_name, modality) -> Tower`: `tower.preprocess(samples)` gives pixel values,
  `tower.encode(pixel_values)` gives a `TowerOutput`.
- `load_text_tower(path_or_name) -> TextTower`: `text.encode(texts)` gives (N, D) unit vectors.
- `load_container({modality: source, ...}) -> Container`: several towers and a text tower as one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from teacher.towers.container import Container, load_container
    from teacher.towers.text_tower import TextOutput, TextTower, load_text_tower
    from teacher.towers.vision_tower import Tower, TowerOutput, load_tower

__all__ = [
    "Container",
    "TextOutput",
    "TextTower",
    "Tower",
    "TowerOutput",
    "load_container",
    "load_text_tower",
    "load_tower",
]

_HOMES = {
    "Container": "teacher.towers.container",
    "load_container": "teacher.towers.container",
    "TextOutput": "teacher.towers.text_tower",
    "TextTower": "teacher.towers.text_tower",
    "load_text_tower": "teacher.towers.text_tower",
    "Tower": "teacher.towers.vision_tower",
    "TowerOutput": "teacher.towers.vision_tower",
    "load_tower": "teacher.towers.vision_tower",
}


def __getattr__(name: str) -> object:
    """Import the public names on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'teacher' has no attribute {name!r}")
    from importlib import import_module

    home: object = getattr(import_module(_HOMES[name]), name)
    return home
