"""A teacher that is one transformers checkpoint: an image tower, and a text tower if the family has one.

Light: shapes and fingerprints come from config.json. `teacher.towers.pretrained_vision` and
`teacher.towers.pretrained_text` hold the networks.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import CheckpointError, ConfigError
from pipeline.modalities import TowerName
from pipeline.targets.provenance import EMBEDDING, PATCH
from teacher.contract import TeacherText, TeacherTower, VitShape
from teacher.families.checkpoint import Checkpoint
from teacher.families.processing import Processing

if TYPE_CHECKING:
    from teacher.contract import LoadedText, LoadedTower

FORWARD_VERSION = 1
"""Increment it when the same weights and pixel values start to give other embeddings."""


@dataclass(frozen=True, slots=True)
class PretrainedTower:
    """The image tower of a checkpoint."""

    checkpoint: Checkpoint
    family: str
    model: str
    """Which network and outputs: a key of `teacher.towers.pretrained_vision.MODELS`."""
    shape: VitShape
    processing: Processing
    architecture: dict[str, Any]
    """Fields of config.json that change numbers but no tensor's shape."""
    embedding_dim: int
    patch_dim: int

    @property
    def name(self) -> TowerName:
        """See `TeacherTower`."""
        return "image"

    @property
    def revision(self) -> str | None:
        """Commit of a hub checkpoint."""
        return self.checkpoint.commit

    @property
    def input_px(self) -> tuple[int, int]:
        """See `TeacherTower`."""
        return self.processing.size_px, self.processing.size_px

    def output_shapes(self) -> dict[str, tuple[int, ...]]:
        """See `TeacherTower`."""
        rows, columns = self.shape.grid
        return {EMBEDDING: (self.embedding_dim,), PATCH: (rows * columns, self.patch_dim)}

    def identity(self, *, compute_dtype: str, cache: Path) -> dict[str, Any]:
        """See `TeacherTower`."""
        return {
            "forward": FORWARD_VERSION,
            "family": self.family,
            "weights": self.checkpoint.digest(cache),
            "architecture": {**self.architecture, "grid": list(self.shape.grid)},
            "preprocessing": self.processing.identity(),
            "compute_dtype": compute_dtype,
        }

    def load(self, dtype: str, device: str) -> LoadedTower:
        """See `TeacherTower`."""
        from teacher.towers.pretrained_vision import load_vision

        self.checkpoint.require_weights()
        return load_vision(
            self.checkpoint.folder,
            self.model,
            self.processing.squashes,
            self.input_px,
            dtype,
            device,
        )


@dataclass(frozen=True, slots=True)
class PretrainedText:
    """The text tower of a checkpoint, with its own tokenizer."""

    checkpoint: Checkpoint
    family: str
    model: str
    """A key of `teacher.towers.pretrained_text.MODELS`."""
    architecture: dict[str, Any]
    embedding_dim: int
    context_length: int

    @property
    def revision(self) -> str | None:
        """Commit of a hub checkpoint."""
        return self.checkpoint.commit

    def identity(self, *, compute_dtype: str, cache: Path) -> dict[str, Any]:
        """See `TeacherText`."""
        return {
            "forward": FORWARD_VERSION,
            "family": self.family,
            "weights": self.checkpoint.digest(cache),
            "tokenizer": self.checkpoint.tokenizer_digests(),
            "architecture": {**self.architecture, "context_length": self.context_length},
            "compute_dtype": compute_dtype,
        }

    def load(self, dtype: str, device: str) -> LoadedText:
        """See `TeacherText`."""
        from teacher.towers.pretrained_text import load_text

        self.checkpoint.require_weights()
        self.checkpoint.tokenizer_digests()  # fetches the files, or says that there are none
        return load_text(self.checkpoint.folder, self.model, self.context_length, dtype, device)


@dataclass(frozen=True, slots=True)
class ImageTeacher:
    """A teacher whose only vision tower reads ordinary images."""

    source: str
    family: str
    image: TeacherTower
    text: TeacherText | None = None

    @property
    def towers(self) -> tuple[TowerName, ...]:
        """See `Teacher`."""
        return ("image",)

    def tower(self, name: TowerName, **options: object) -> TeacherTower:
        """See `Teacher`. `antialias` is LanguageBind's: the checkpoint's own processor decides here."""
        if name != "image":
            raise CheckpointError(
                f"{self.source}: expected a {name} tower, found a {self.family} teacher, which has an "
                f"image tower only. Set the modality's tower to 'image', or teacher.name to one with "
                f"a {name} tower."
            )
        unknown = [k for k, v in options.items() if k != "antialias" and v is not None]
        if unknown:
            raise ConfigError(
                f"preprocessing of a {self.family} tower: no option {unknown[0]!r}; its checkpoint says "
                "how images are processed"
            )
        return self.image
