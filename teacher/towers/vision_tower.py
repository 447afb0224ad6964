"""A vision tower: its files located, its weights loaded strictly, preprocessing and encoding together.

tower = load_tower("LanguageBind/LanguageBind_Depth", "depth", device="cuda", dtype="bfloat16")
output = tower.encode(tower.preprocess([depth_mm_HW]))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.formats.weight_files import StateDict
from pipeline.modalities import TowerName
from teacher.checkpoints.hub_config import HubConfig
from teacher.checkpoints.locate import TowerFiles, find_tower
from teacher.checkpoints.read import read_checkpoint
from teacher.checkpoints.tensors import plain_state, require_exact, split_halves, torch_dtype
from teacher.preprocessing.config import Preprocessing, Sample, preprocessing_for
from teacher.preprocessing.images import to_pixels
from teacher.towers.text_tower import expected_text_tensors
from teacher.towers.vision_network import TowerOutput, VisionNetwork, network_of

__all__ = ["Tower", "TowerOutput", "load_from_files", "load_network", "load_tower"]


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
        """Encode (B, 3, H, W) pixel values; `patch` adds the dense embeddings.

        (B, 3, T, H, W) is accepted as upstream does: the T frames are averaged. Raises `ValueError`
        for other shapes.
        """
        output: TowerOutput = self.network(pixel_values.to(self.device), patch=patch)
        return output

    @property
    def embedding_dim(self) -> int:
        """Width E of the joint space."""
        return self.network.layout.projection_dim

    @property
    def logit_scale(self) -> float:
        """The learned log temperature: upstream multiplies cosines by its exponential."""
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

    `options` are fields of `teacher.preprocessing.config.Preprocessing` (`antialias`, `max_depth_m`, ...).
    Raises `CheckpointError` (files, tensors) or `ConfigError` (options, `dtype`).
    """
    files = find_tower(str(path_or_name), modality, revision)
    return load_from_files(files, preprocessing_for(files.config, **options), dtype, device)


def load_from_files(
    files: TowerFiles, preprocessing: Preprocessing, dtype: str, device: str | torch.device
) -> Tower:
    """Load a tower whose files have been located. Raises `CheckpointError`."""
    network = load_network(files).to(device=device, dtype=torch_dtype(dtype))
    return Tower(files, network, preprocessing, torch.device(device))


def load_network(
    files: TowerFiles,
    build: Callable[[HubConfig, StateDict, str], VisionNetwork] = network_of,
) -> VisionNetwork:
    """The network in evaluation mode, with its weights. Raises `CheckpointError`.

    `build` makes the network for a config and the vision tensors; the last argument names the file.
    """
    where = files.where
    state = plain_state(read_checkpoint(files.directory)[0], files.config, where)
    vision, text = split_halves(state)
    # Without storage: the checkpoint's tensors take the place of the parameters.
    with torch.device("meta"):
        network = build(files.config, vision, where)
    require_exact(vision, network.state_dict(), where)
    if text:
        require_exact(text, expected_text_tensors(files.config, where), where)
    network.load_state_dict(vision, strict=True, assign=True)
    return network.eval().requires_grad_(False)
