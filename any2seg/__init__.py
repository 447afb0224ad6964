"""The public Python interface of Any2Seg.

    from any2seg import Segmenter                     # a trained student on images
    project = any2seg.open("field-robot.toml")        # a config and its workspace
    project.train()                                   # stages, as the command `any2seg` runs them
    tower = any2seg.load_tower("languagebind-tiny", "depth")
    class MyTeacher(any2seg.CustomTeacher): ...        # a teacher of one's own

`import any2seg` is light: each name below is imported on first use (PEP 562). The packages `pipeline`,
`teacher`, `student` and `flows` hold the code; only the names listed here are meant to stay stable.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from pipeline import VERSION as __version__  # noqa: N811

if TYPE_CHECKING:
    from any2seg.project import Project, open
    from pipeline.config.config import Config
    from student.inference.segmenter import Segmenter
    from teacher import load_text_tower, load_tower
    from teacher.custom_teacher import CustomTeacher

__all__ = [
    "Config",
    "CustomTeacher",
    "Project",
    "Segmenter",
    "__version__",
    "load_text_tower",
    "load_tower",
    "open",
]

_HOMES = {
    "Config": "pipeline.config.config",
    "CustomTeacher": "teacher.custom_teacher",
    "Project": "any2seg.project",
    "Segmenter": "student.inference.segmenter",
    "load_text_tower": "teacher",
    "load_tower": "teacher",
    "open": "any2seg.project",
}


def __getattr__(name: str) -> object:
    """Import a public name on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'any2seg' has no attribute {name!r}")
    value: object = getattr(import_module(_HOMES[name]), name)
    # Kept, so that the next access is a plain attribute and `any2seg.open is any2seg.open`.
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, whether they have been imported yet or not."""
    return sorted(__all__)
