"""Any vision transformer of timm as a teacher: `timm/NAME` or `timm/NAME@FILE`. No text tower.

`embedding` is what timm hands to a classifier (`forward_head(..., pre_logits=True)`: class token, mean or
attention pooling, as the model has it), unit norm; `patch` are the patch tokens after the last norm,
unit norm, without class token and registers. Pixels are made by timm's own evaluation transform.

The shape of a model is known by timm alone, so that planning with such a teacher imports torch. It is
built without storage for that.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.core.hub import fetch_first
from pipeline.errors import CheckpointError
from pipeline.modalities import TowerName
from pipeline.targets.provenance import EMBEDDING, PATCH
from teacher.checkpoints.digest import weights_digest
from teacher.contract import VitShape
from teacher.families.pretrained import FORWARD_VERSION, ImageTeacher

if TYPE_CHECKING:
    from teacher.contract import LoadedTower
    from teacher.towers.timm_vision import TimmModel

TIMM = "timm/"
"""What names of this family begin with."""
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class TimmTower:
    """One timm model, known by its name."""

    model: str
    """timm's name, e.g. `vit_small_patch14_dinov2.lvd142m`."""
    file: Path | None = None
    """Weights; None: those that timm's authors publish on the hub."""
    revision: str | None = None
    local_only: bool = False

    @property
    def name(self) -> TowerName:
        """See `TeacherTower`."""
        return "image"

    @property
    def input_px(self) -> tuple[int, int]:
        """See `TeacherTower`."""
        return self._facts.size_px, self._facts.size_px

    @property
    def shape(self) -> VitShape | None:
        """Its layout; None for one that is not built like a plain vision transformer."""
        return self._facts.shape

    def output_shapes(self) -> dict[str, tuple[int, ...]]:
        """See `TeacherTower`."""
        facts = self._facts
        patches = facts.grid[0] * facts.grid[1]
        return {EMBEDDING: (facts.embedding_dim,), PATCH: (patches, facts.patch_dim)}

    def identity(self, *, compute_dtype: str, cache: Path) -> dict[str, Any]:
        """See `TeacherTower`."""
        facts = self._facts
        return {
            "forward": FORWARD_VERSION,
            "family": "timm",
            "weights": weights_digest((self.weights,), cache),
            "architecture": {"model": self.model, "grid": list(facts.grid)},
            "preprocessing": facts.processing_identity(),
            "compute_dtype": compute_dtype,
        }

    def load(self, dtype: str, device: str) -> LoadedTower:
        """See `TeacherTower`."""
        from teacher.towers.timm_vision import load_timm

        return load_timm(self.model, self.weights, dtype, device)

    @cached_property
    def weights(self) -> Path:
        """The file of weights, fetched if it is the hub's. Raises `CheckpointError`."""
        if self.file is not None:
            return self.file
        repository = self._facts.hub_repository
        if not repository:
            raise CheckpointError(
                f"{TIMM}{self.model}: timm publishes no weights of this name on the hub. Give a tag that "
                f"has some (`timm.list_pretrained()`), or a file: {TIMM}{self.model}@FILE."
            )
        return fetch_first(
            repository, _WEIGHTS, "teacher.name", revision=self.revision, local_only=self.local_only
        )

    @cached_property
    def _facts(self) -> TimmModel:
        from teacher.towers.timm_vision import describe_timm

        return describe_timm(self.model)


def timm_teacher(
    name: str, revision: str | None = None, *, local_only: bool = False
) -> ImageTeacher:
    """The teacher `timm/NAME` or `timm/NAME@FILE`. Raises `CheckpointError` for a file that is not there."""
    model, _, file = name.removeprefix(TIMM).partition("@")
    if file and not Path(file).is_file():
        raise CheckpointError(
            f"teacher.name: {name}: expected a file of weights after @, found none at {file}."
        )
    tower = TimmTower(model, Path(file) if file else None, revision, local_only)
    return ImageTeacher(name, "timm", tower)
