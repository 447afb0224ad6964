"""What a teacher is to this pipeline: a frozen model that turns stored images into embeddings.

    teacher = open_teacher("languagebind-tiny")              # config files only, no weights
    tower = teacher.tower("image")
    loaded = tower.load("float32", "cpu")
    output = loaded.encode(loaded.preprocess(images), patch=True)

`Teacher`, `TeacherTower` and `TeacherText` are light: they plan shapes and fingerprints without torch.
`LoadedTower` and `LoadedText` hold weights. `teacher.open` opens one by name; `teacher.families` has
the implementations. Two optional attributes are looked up by name, and a teacher may lack them:
`TeacherTower.shape` (a `VitShape`, for the operation count of `any2seg plan`) and `Loaded*.network` (a
torch module, whose parameters `any2seg teacher` counts).

Legend: B images, N texts, S pixels, E width of the pooled embedding, P patches, F width of a dense one
(equal to E where both lie in one space).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pipeline.modalities import TowerName

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from teacher.preprocessing.config import Sample


class Encoded(Protocol):
    """What a tower gives for B images: float32, on the tower's device."""

    @property
    def embedding(self) -> Tensor:
        """(B, E) unit norm."""

    @property
    def patch(self) -> Tensor | None:
        """(B, P, F) unit norm, patches row by row; None unless requested."""


class LoadedTower(Protocol):
    """A tower with its weights in memory."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""

    @property
    def embedding_dim(self) -> int:
        """E, the width of the pooled embedding."""

    def preprocess(self, samples: Sequence[Sample]) -> Tensor:
        """Stored samples to (B, 3, S, S) float32 on the tower's device.

        A sample is an array ((H, W) or (H, W, 3), uint8 or uint16) or an image file. Raises
        `ValueError` naming the position of a sample of another form.
        """

    def encode(self, pixel_values: Tensor, *, patch: bool = False) -> Encoded:
        """Encode what `preprocess` gave; `patch` adds the dense embeddings."""


class LoadedText(Protocol):
    """A text tower with its weights in memory."""

    @property
    def embedding_dim(self) -> int:
        """E, the width of the space shared with the images."""

    def encode(self, texts: Sequence[str]) -> Tensor:
        """(N, E) float32, unit norm."""


class TeacherTower(Protocol):
    """One vision tower, known without its weights."""

    @property
    def name(self) -> TowerName:
        """`image`, `depth` or `thermal`."""

    @property
    def input_px(self) -> tuple[int, int]:
        """Height and width of the pixel values."""

    def output_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of one row of each output: `embedding` (E,), `patch` (P, F)."""

    def identity(self, *, compute_dtype: str, cache: Path) -> dict[str, Any]:
        """Everything that an embedding depends on, JSON-ready; weight digests are kept in `cache`."""

    def load(self, dtype: str, device: str) -> LoadedTower:
        """Read the weights. Raises `CheckpointError`."""


class TeacherText(Protocol):
    """A text tower, known without its weights."""

    @property
    def embedding_dim(self) -> int:
        """E, the width of the space shared with the images."""

    def identity(self, *, compute_dtype: str, cache: Path) -> dict[str, Any]:
        """Everything that an embedded text depends on, JSON-ready."""

    def load(self, dtype: str, device: str) -> LoadedText:
        """Read the weights. Raises `CheckpointError`."""


class Teacher(Protocol):
    """An opened source: config files read, no weights."""

    @property
    def family(self) -> str:
        """For people: `LanguageBind`, `CLIP`, `SigLIP`, `DINOv2`, `timm`, ..."""

    @property
    def towers(self) -> tuple[TowerName, ...]:
        """The towers that it has; a model of ordinary images has `("image",)`."""

    @property
    def text(self) -> TeacherText | None:
        """Its text tower; None: it knows no words, so nothing that needs prompts can be taught."""

    def tower(self, name: TowerName, **options: object) -> TeacherTower:
        """One of `towers`. `options` are preprocessing options (`antialias`, `max_depth_m`, `holes`).

        Raises `CheckpointError` (no such tower, missing files) or `ConfigError` (options).
        """


@dataclass(frozen=True, slots=True)
class VitShape:
    """The shape of a plain vision transformer: what its operation count depends on."""

    hidden_size: int
    intermediate_size: int
    num_layers: int
    patch_px: int
    grid: tuple[int, int]
    num_prefix: int = 1
    """Tokens that are no patch: class token and registers."""
    projection_dim: int = 0
    """Width after the projection to the joint space; 0: there is none."""
    num_mlp_inputs: int = 1
    """Matrix products into the hidden layer of an MLP: 2 for a gated one."""
