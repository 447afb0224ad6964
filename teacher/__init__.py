"""The teacher: LanguageBind towers, prompts, preprocessing and the encoding pass.

`import teacher` is light; the names below load torch and transformers on first use:

- `load_tower(path_or_name, modality) -> Tower`: `tower.preprocess(samples)` gives pixel values,
  `tower.encode(pixel_values)` gives a `TowerOutput`.
- `load_text_tower(path_or_name) -> TextTower`: `text.encode(texts)` gives (N, D) unit vectors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from teacher.towers.text_tower import TextOutput, TextTower, load_text_tower
    from teacher.towers.vision_tower import Tower, TowerOutput, load_tower

__all__ = [
    "TextOutput",
    "TextTower",
    "Tower",
    "TowerOutput",
    "load_text_tower",
    "load_tower",
]

_HOMES = {
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

    value: object = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    """The public names, whether they have been imported yet or not."""
    return sorted(__all__)
