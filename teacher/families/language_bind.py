"""LanguageBind as a teacher: image, depth and thermal towers that share one text tower.

A source is the packaged `languagebind-tiny`, a folder of towers, one tower, or hub repositories (see
`teacher.checkpoints.locate`). Files are located tower by tower, when a tower is requested.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.modalities import TowerName
from pipeline.targets.provenance import EMBEDDING, PATCH
from teacher.checkpoints.locate import TowerFiles, find_text_tower, find_tower, towers_in
from teacher.contract import VitShape
from teacher.families.language_bind_identity import text_identity, tower_identity
from teacher.preprocessing.config import Preprocessing, preprocessing_for

if TYPE_CHECKING:
    from teacher.towers.text_tower import TextTower
    from teacher.towers.vision_tower import Tower


@dataclass(frozen=True, slots=True)
class LanguageBindTower:
    """A LanguageBind tower whose files have been located."""

    files: TowerFiles
    preprocessing: Preprocessing

    @property
    def name(self) -> TowerName:
        """See `TeacherTower`."""
        return self.preprocessing.tower

    @property
    def input_px(self) -> tuple[int, int]:
        """See `TeacherTower`."""
        return self.files.config.input_px

    @property
    def shape(self) -> VitShape:
        """The tower's layout, from config.json."""
        vision = self.files.config.vision
        return VitShape(
            hidden_size=int(vision["hidden_size"]),
            intermediate_size=int(vision["intermediate_size"]),
            num_layers=int(vision["num_hidden_layers"]),
            patch_px=int(vision["patch_size"]),
            grid=self.files.config.grid,
            projection_dim=self.files.config.projection_dim,
        )

    def output_shapes(self) -> dict[str, tuple[int, ...]]:
        """See `TeacherTower`; both outputs lie in the joint space."""
        dim = self.files.config.projection_dim
        rows, columns = self.files.config.grid
        return {EMBEDDING: (dim,), PATCH: (rows * columns, dim)}

    def identity(self, *, compute_dtype: str, cache: Path) -> dict[str, Any]:
        """See `TeacherTower`."""
        return tower_identity(
            self.files, self.preprocessing, compute_dtype=compute_dtype, cache=cache
        )

    def load(self, dtype: str, device: str) -> Tower:
        """See `TeacherTower`."""
        from teacher.towers.vision_tower import load_from_files

        return load_from_files(self.files, self.preprocessing, dtype, device)


@dataclass(frozen=True)
class LanguageBindText:
    """The text half of a LanguageBind checkpoint; its files are located on first use."""

    source: str
    revision: str | None = None

    @cached_property
    def files(self) -> TowerFiles:
        """Where it lies. Raises `CheckpointError`."""
        return find_text_tower(self.source, self.revision)

    @property
    def embedding_dim(self) -> int:
        """See `TeacherText`."""
        return self.files.config.projection_dim

    def identity(self, *, compute_dtype: str, cache: Path) -> dict[str, Any]:
        """See `TeacherText`."""
        return text_identity(self.files, compute_dtype=compute_dtype, cache=cache)

    def load(self, dtype: str, device: str) -> TextTower:
        """See `TeacherText`."""
        from teacher.towers.text_tower import load_text_files

        return load_text_files(self.files, dtype=dtype, device=device)


@dataclass(frozen=True, slots=True)
class LanguageBind:
    """A source of LanguageBind towers."""

    source: str
    revision: str | None = None
    local_only: bool = False
    """Look for a hub name in the hub's cache alone."""
    family: str = "LanguageBind"

    @property
    def towers(self) -> tuple[TowerName, ...]:
        """See `Teacher`. Raises `CheckpointError` for a folder without towers."""
        return towers_in(self.source, self.revision, local_only=self.local_only)

    @property
    def text(self) -> LanguageBindText:
        """See `Teacher`."""
        return LanguageBindText(self.source, self.revision)

    def tower(self, name: TowerName, **options: object) -> LanguageBindTower:
        """See `Teacher`."""
        files = find_tower(self.source, name, self.revision, local_only=self.local_only)
        return LanguageBindTower(files, preprocessing_for(files.config, **options))
