"""What a target store's numbers depend on, and the names that all stores share.

`TargetProvenance` is `provenance.json` of a target store. Its fingerprint is part of the folder's name,
so targets computed in another way always go to another folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import PositiveInt, model_validator

from pipeline.core.fingerprint import fingerprint
from pipeline.core.frozen_model import Frozen
from pipeline.schemas import STORE_SCHEMA, STORE_WITH_PATCH_SCHEMA
from pipeline.targets.views import VIEW_BOX

PROVENANCE = "provenance.json"
"""File of every store (targets, prompts, texts): what it depends on. Without it there is no store."""
EMBEDDING = "embedding"
PATCH = "patch"
REMEDY = "Run `any2seg precompute CONFIG`."


def slug(name: str) -> str:
    """The last part of a teacher's name or folder, in lower-case letters, digits, `_` and `-`."""
    last = name.rstrip("/").rsplit("/", 1)[-1]
    return re.sub(r"[^a-z0-9_-]+", "-", last.lower()).strip("-")[:40] or "teacher"


def store_schema(outputs: Iterable[str]) -> int:
    """Version of a target store's layout.

    It is part of the fingerprint, so a store of an older layout is never mistaken for a newer one.
    """
    return STORE_WITH_PATCH_SCHEMA if PATCH in outputs else STORE_SCHEMA


class TargetProvenance(Frozen):
    """What a store's numbers depend on, and their layout."""

    schema_version: int = STORE_SCHEMA
    """Taken from `outputs` (`store_schema`) unless given."""
    modality: str
    teacher: str
    """Name of the teacher, for people; its weights' digest is in `tower`."""
    spec: dict[str, Any]
    """Identity of the modality's stored form (`ModalitySpec.identity()`)."""
    tower: dict[str, Any]
    """The teacher's part: tower, weights digest, preprocessing, views, arithmetic."""
    outputs: dict[str, tuple[PositiveInt, ...]]
    """Shape of one row of each output: `embedding` (D,), `patch` (P, D); with K views `embedding`
    (K, D), `patch` (K, P, D), `view_box` (K, 5)."""
    dtype: Literal["float16", "float32"] = "float16"
    shard_size: PositiveInt

    @model_validator(mode="before")
    @classmethod
    def _layout_of_outputs(cls, fields: dict[str, Any]) -> dict[str, Any]:
        return {"schema_version": store_schema(fields.get("outputs", ())), **fields}

    @property
    def tower_fingerprint(self) -> str:
        """Hex sha256 over everything that determines a number in the store."""
        return fingerprint(
            self.model_dump(mode="json", exclude={"modality", "teacher", "shard_size"})
        )

    @property
    def dim(self) -> int:
        """D, the width of an embedding."""
        return self.outputs[EMBEDDING][-1]

    def dims(self, output: str) -> tuple[str, ...]:
        """Dimension names of an output's row."""
        own = {EMBEDDING: ("dim",), PATCH: ("cell", "dim"), VIEW_BOX: ("box",)}[output]
        return own if len(own) == len(self.outputs[output]) else ("view", *own)

    def dtype_of(self, output: str) -> str:
        """Stored type of an output; view boxes need float32 to be exact."""
        return "float32" if output == VIEW_BOX else self.dtype
