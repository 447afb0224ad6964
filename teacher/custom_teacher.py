"""A base class for a teacher of your own that reads ordinary images and knows no text.

    class MyTeacher(CustomTeacher):
        input_px, embedding_dim, patch_shape = 64, 24, (16, 24)
        def identity(self): ...
        def load(self, dtype, device): ...

`teacher.name = "my_package.my_module:MyTeacher"` in a config uses it (`teacher.own`). Sensors other than
cameras reach it as images of three channels. No torch until weights are loaded.

Legend: B images, S pixels a side, E width of the embedding, P patches, F width of a patch embedding.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pipeline.errors import CheckpointError, ConfigError
from pipeline.modalities import TowerName
from pipeline.targets.provenance import EMBEDDING, PATCH
from teacher.preprocessing.config import CLIP_MEAN, CLIP_STD, FIELDS, Preprocessing, Sample

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Network = Callable[["Tensor"], "tuple[Tensor, Tensor | None]"]
"""(B, 3, S, S) float32 RGB, 0 to 1, on the device, to (B, E) and (B, P, F) or None; of any norm."""


class CustomTeacher(ABC):
    """Satisfies `teacher.contract.Teacher`; subclass it and give the two methods and the shapes.

    It is constructed without arguments, in every process that plans or encodes; keep that cheap.
    """

    input_px: ClassVar[int] = 224
    """S. The shorter side is resized to it, the longer one cropped at the centre."""
    embedding_dim: ClassVar[int]
    """E."""
    patch_shape: ClassVar[tuple[int, int] | None] = None
    """(P, F), P a square number, row by row; None: no dense output."""

    family = "own"
    towers: tuple[TowerName, ...] = ("image",)
    text = None

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What the numbers depend on, JSON-ready: a version of the code, a digest of the weights.

        Part of the targets' fingerprint: another identity makes targets of its own.
        """

    @abstractmethod
    def load(self, dtype: str, device: str) -> Network:
        """The network on `device` in `dtype` arithmetic, in evaluation mode."""

    def tower(self, name: TowerName, **options: object) -> CustomTower:
        """See `teacher.contract.Teacher`."""
        if name != "image":
            raise CheckpointError(
                f"{type(self).__name__}: expected the image tower, found a request for the {name} "
                'tower. Set the modality\'s tower to "image".'
            )
        self._check_shapes()
        given = {key: value for key, value in options.items() if value is not None}
        unknown = sorted(given.keys() - set(FIELDS["image"]))
        if unknown:
            raise ConfigError(
                f"preprocessing of {type(self).__name__}: no option {unknown[0]!r}; expected one of "
                f"{', '.join(FIELDS['image'])}"
            )
        values: dict[str, Any] = {"size_px": self.input_px, **given}
        return CustomTower(self, Preprocessing("image", **values))

    def _check_shapes(self) -> None:
        patches = self.patch_shape[0] if self.patch_shape else 1
        if not hasattr(self, "embedding_dim") or round(patches**0.5) ** 2 != patches:
            raise ConfigError(
                f"{type(self).__name__}: expected embedding_dim, and patch_shape = (P, F) with a square "
                f"number P; found {getattr(self, 'embedding_dim', 'no embedding_dim')} and "
                f"{self.patch_shape}"
            )


@dataclass(frozen=True, slots=True)
class CustomTower:
    """The one tower of an `CustomTeacher`."""

    teacher: CustomTeacher
    preprocessing: Preprocessing
    name: TowerName = "image"

    @property
    def input_px(self) -> tuple[int, int]:
        """See `TeacherTower`."""
        return self.preprocessing.size_px, self.preprocessing.size_px

    def output_shapes(self) -> dict[str, tuple[int, ...]]:
        """See `TeacherTower`."""
        patch = self.teacher.patch_shape
        dense: dict[str, tuple[int, ...]] = {PATCH: patch} if patch else {}
        return {EMBEDDING: (self.teacher.embedding_dim,), **dense}

    def identity(self, *, compute_dtype: str, cache: Path) -> dict[str, Any]:
        """See `TeacherTower`."""
        return {
            "identity": self.teacher.identity(),
            "preprocessing": self.preprocessing.identity(),
            "compute_dtype": compute_dtype,
        }

    def load(self, dtype: str, device: str) -> LoadedCustomTower:
        """See `TeacherTower`."""
        import torch

        function = self.teacher.load(dtype, device)
        return LoadedCustomTower(self, function, torch.device(device))


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Satisfies `teacher.contract.Encoded`."""

    embedding: Tensor
    patch: Tensor | None


@dataclass(frozen=True, slots=True)
class LoadedCustomTower:
    """An `CustomTower` with its network; satisfies `teacher.contract.LoadedTower`."""

    source: CustomTower
    function: Network
    device: torch.device

    @property
    def embedding_dim(self) -> int:
        """E."""
        return self.source.teacher.embedding_dim

    @property
    def network(self) -> Any:
        """The torch module; `AttributeError` for a plain function, which has no parameters."""
        if not hasattr(self.function, "parameters"):
            raise AttributeError("a plain function has no parameters")
        return self.function

    def preprocess(self, samples: Sequence[Sample]) -> Tensor:
        """Stored samples to (B, 3, S, S) RGB values, 0 to 1."""
        import torch

        from teacher.preprocessing.images import to_pixels

        pixels = to_pixels(samples, self.source.preprocessing, self.device)
        mean, std = (
            torch.tensor(v, device=self.device)[:, None, None] for v in (CLIP_MEAN, CLIP_STD)
        )
        return (pixels * std + mean).clamp(0.0, 1.0)

    def encode(self, pixel_values: Tensor, *, patch: bool = False) -> Embeddings:
        """Unit-norm outputs. `CheckpointError` if the network gives other shapes than it states."""
        import torch
        from torch.nn import functional

        with torch.inference_mode():
            embedding, dense = self.function(pixel_values.to(self.device))
            self._require(EMBEDDING, embedding)
            if patch:
                self._require(PATCH, dense)
            return Embeddings(
                functional.normalize(embedding.float(), dim=-1),
                functional.normalize(dense.float(), dim=-1)
                if patch and dense is not None
                else None,
            )

    def _require(self, output: str, values: Tensor | None) -> None:
        stated = self.source.output_shapes().get(output)
        actual = None if values is None else tuple(values.shape[1:])
        if actual != stated:
            name = type(self.source.teacher).__name__
            raise CheckpointError(
                f"{name}: expected {output} rows of shape {stated}, found {actual}. Correct "
                "embedding_dim or patch_shape of the class, or what its network returns."
            )
