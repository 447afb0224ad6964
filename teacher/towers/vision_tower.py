"""A tower ready to use: files found, weights loaded strictly, preprocessing and encoding together.

    tower = load_tower("LanguageBind/LanguageBind_Depth", "depth", device="cuda", dtype="bfloat16")
    output = tower.encode(tower.preprocess([depth_mm_HW]))

Writes nothing. Fails with `CheckpointError` (files, tensors) or `ConfigError` (options).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.errors import CheckpointError
from pipeline.modalities import TowerName
from teacher.checkpoints.locate import TowerFiles, find_tower
from teacher.checkpoints.tensors import (
    normalise,
    read_tensors,
    require_exact,
    split_halves,
    torch_dtype,
)
from teacher.preprocessing.images import to_pixels
from teacher.preprocessing.options import Preprocessing, Sample, preprocessing_for
from teacher.towers.load_count import count_load
from teacher.towers.text_tower import expected_text_tensors
from teacher.towers.vision_network import TowerOutput, VisionNetwork, layout_of

__all__ = ["Tower", "TowerOutput", "load_found", "load_tower"]


@dataclass(frozen=True, slots=True)
class Tower:
    """One loaded vision tower."""

    files: TowerFiles
    network: VisionNetwork
    preprocessing: Preprocessing
    device: torch.device

    def preprocess(self, samples: Sequence[Sample]) -> Tensor:
        """Stored samples or file paths to pixel values on the tower's device.

        See `teacher.preprocessing.images.to_pixels` for accepted forms and shapes.
        """
        return to_pixels(samples, self.preprocessing, self.device)

    @torch.inference_mode()
    def encode(self, pixel_values: Tensor, *, patch: bool = False) -> TowerOutput:
        """Encode (B, 3, H, W) pixel values, or (B, 3, T, H, W) clips; `patch` adds the dense ones.

        Without temporal attention T frames are averaged as upstream does; with it T must be the
        tower's frame count. Raises `ValueError` for other shapes.
        """
        output: TowerOutput = self.network(pixel_values.to(self.device), patch=patch)
        return output

    @property
    def embedding_dim(self) -> int:
        """Width E of the joint space."""
        return self.network.layout.projection_dim

    @property
    def logit_scale(self) -> float:
        """The learned log temperature; the container multiplies by its exponential."""
        return float(self.network.logit_scale)


def load_tower(
    path_or_name: str,
    modality: TowerName,
    *,
    revision: str | None = None,
    dtype: str = "float32",
    device: str | torch.device = "cpu",
    **options: object,
) -> Tower:
    """Load the `modality` tower of a hub name, a local directory or `languagebind-tiny`.

    `options` are fields of `teacher.preprocessing.options.Preprocessing` (`antialias`, `max_depth_m`, ...).
    Raises `CheckpointError` or `ConfigError`; see the module docstring.
    """
    files = find_tower(str(path_or_name), modality, revision)
    return load_found(files, preprocessing_for(files.config, **options), dtype, device)


def load_found(
    files: TowerFiles, preprocessing: Preprocessing, dtype: str, device: str | torch.device
) -> Tower:
    """Load the tower whose files were found already. Raises `CheckpointError`."""
    count_load(files.config.modality)
    network = _load_network(files).to(device=device, dtype=torch_dtype(dtype))
    return Tower(files, network, preprocessing, torch.device(device))


def _load_network(files: TowerFiles) -> VisionNetwork:
    where = str(files.weights)
    state = normalise(read_tensors(files.weights), files.config, where)
    vision, text = split_halves(state)
    layout = layout_of(files.config, vision, where)
    if layout.hidden_size % layout.num_heads:
        raise CheckpointError(f"{where}: width {layout.hidden_size} / {layout.num_heads} heads")
    with torch.device("meta"):
        network = VisionNetwork(layout)
    require_exact(vision, network.state_dict(), where)
    if text:
        require_exact(text, expected_text_tensors(files.config), where)
    network.load_state_dict(vision, strict=True, assign=True)
    return network.eval().requires_grad_(False)
