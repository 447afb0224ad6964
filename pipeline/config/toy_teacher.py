"""What to say when the packaged toy would teach images that it has never seen the like of.

`plan`, `doctor`, `run` and the report page print this one line; no stage depends on it.
"""

from __future__ import annotations

from pipeline.config.config import Config
from pipeline.config.teacher import TOY_TEACHER

RENDERED = "synthetic"
"""The adapter whose scenes the toy was trained on."""


def toy_teacher_note(config: Config) -> str:
    """One line if `languagebind-tiny` is to teach anything but rendered scenes, else an empty string."""
    if config.teacher.name != TOY_TEACHER or config.dataset.adapter == RENDERED:
        return ""
    return (
        f"teacher {TOY_TEACHER} (2.3 M parameters) has seen rendered street scenes only, nothing like "
        f'{config.name}: set `teacher = {{ name = "LanguageBind" }}`, or name a CLIP, SigLIP or DINO '
        "folder (docs/teacher.md)"
    )
