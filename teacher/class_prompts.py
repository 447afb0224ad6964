"""The class prompts of a config: found, or embedded by the text tower once.

    embed_prompts(config, workspace, classes) -> bool

Writes a prompt store (see `pipeline.prompts_store`) and the index entry that leads to it. No vision
tower is loaded and no picture is looked at; with nothing to do no torch is imported either. Fails
with `CheckpointError` (text weights) or `ConfigError` (an unknown set of templates).
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.config import Config
from pipeline.prompts_store import PromptStore, point_to_prompts
from pipeline.workspace import Workspace
from teacher.device import choose_device
from teacher.identity import prompt_identity
from teacher.prompts import embed_classes, templates
from teacher.source import find_text_tower


def embed_prompts(
    config: Config, workspace: Workspace, classes: Sequence[str], device: str | None = None
) -> bool:
    """Make the class prompts if they are missing; True if they were made.

    `device` overrides `teacher.device`.
    """
    teacher = config.teacher
    files = find_text_tower(teacher.name, teacher.revision)
    identity = prompt_identity(
        files,
        classes,
        templates(teacher.templates),
        compute_dtype=teacher.dtype,
        cache=workspace.cache,
    )
    store = PromptStore.find(workspace.prompts, teacher.name, identity)
    made = store is None
    if store is None:
        from teacher.text import load_text_tower

        text = load_text_tower(
            teacher.name,
            revision=teacher.revision,
            dtype=teacher.dtype,
            device=choose_device(device or teacher.device),
        )
        prompts = embed_classes(text, classes, teacher.templates)
        store = PromptStore.create(
            workspace.prompts,
            teacher.name,
            identity,
            prompts.class_embedding,
            prompts.prompt_embedding,
        )
    point_to_prompts(config, workspace, store)
    return made
