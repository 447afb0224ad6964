"""Phase two: the image and the depth tower, against the frozen text tower.

Every batch holds crops of scenes, each seen by one of the tower's sensors. Terms, all ours: caption
InfoNCE; presence of every class (binary, on class prompts); KL to the root areas of the classes;
per-patch class shares along the dense path; and the condition. InfoNCE on whole scenes alone learns
only the weather.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import CLIPTextModelWithProjection

from pipeline.modalities import TowerName
from teacher.tiny.cache import Scenes, open_cache
from teacher.tiny.captions import MIN_AREA, describe
from teacher.tiny.layout import GRID, IMAGE_PX, TOWERS, encode_texts, vision_network
from teacher.tiny.progress import (
    Phase,
    contrastive_loss,
    make_optimizer,
    share_loss,
    take_step,
)
from teacher.tiny.scenes import (
    Box,
    Truth,
    pixel_values,
    random_box,
    truth_of,
)
from teacher.tiny.text_training import NUM_CLASSES, TAU, concept_embeddings, condition_loss
from teacher.towers.vision_network import TowerOutput, VisionNetwork

PEAK_RATE = 1.5e-3
WHOLE_SHARE = 0.4
PATCH_TAU = 0.05
KEPT_SHARE = 0.5
DROPOUT_UNTIL = 0.65
"""Share of the budget with patch dropout (as upstream): it nearly doubles the number of steps."""
PRESENCE_SCALE_INIT = 2.3
PRESENCE_BIAS_INIT = -2.0
SENSOR_SHARES: dict[TowerName, dict[str, float]] = {
    "image": {"rgb": 0.45, "grey": 0.15, "event": 0.4},
    "depth": {"depth": 0.5, "lidar": 0.5},
}
_COMMON = {"caption": 0.5, "presence": 4.0, "areas": 1.0, "patches": 1.0}
WEIGHTS: dict[TowerName, dict[str, float]] = {
    "image": {**_COMMON, "condition": 0.3},
    "depth": {**_COMMON, "condition": 0.05},
}
"""Depth hardly shows the weather (LiDAR drop-out does), so its condition weight is small."""


class TowerInTraining(nn.Module):
    """A vision tower with the parts that only training needs: patch dropout, presence scale and bias.

    `kept` are the indices of the patches that the tower sees.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tower = vision_network()
        self.presence_scale = nn.Parameter(torch.tensor(PRESENCE_SCALE_INIT))
        self.presence_bias = nn.Parameter(torch.full((NUM_CLASSES,), PRESENCE_BIAS_INIT))
        self.kept = torch.arange(GRID**2)
        embeddings = self.tower.vision_model.embeddings
        self._hook = embeddings.register_forward_hook(lambda _module, _args, out: self._drop(out))

    def drop_patches(self, some: bool, rng: np.random.Generator) -> None:
        """Keep a random half of the patches from now on, or all of them."""
        num_kept = int(GRID**2 * KEPT_SHARE) if some else GRID**2
        self.kept = torch.from_numpy(np.sort(rng.permutation(GRID**2)[:num_kept]))

    def _drop(self, tokens_BND: Tensor) -> Tensor:
        return torch.cat([tokens_BND[:, :1], tokens_BND[:, 1 + self.kept]], dim=1)

    def release(self) -> VisionNetwork:
        """The plain tower, in evaluation mode."""
        self._hook.remove()
        return self.tower.eval()


def train_vision(
    cache: Path,
    text: CLIPTextModelWithProjection,
    tokenizer: Any,
    phases: Mapping[TowerName, Phase],
    seed: int,
    batch: int,
) -> dict[TowerName, tuple[VisionNetwork, int]]:
    """Train the towers that `phases` names, one process each, on the scenes in `cache`.

    Returns, by tower, the network in eval mode and the number of steps it took.
    """
    work = partial(train_tower, cache, text, tokenizer, seed, batch)
    with multiprocessing.get_context("spawn").Pool(len(phases)) as pool:
        results = pool.starmap(work, phases.items())
    return dict(zip(phases, results, strict=True))


def train_tower(
    cache: Path,
    text: CLIPTextModelWithProjection,
    tokenizer: Any,
    seed: int,
    batch: int,
    name: TowerName,
    phase: Phase,
) -> tuple[VisionNetwork, int]:
    """Train one tower on one core."""
    torch.set_num_threads(1)
    rng = np.random.default_rng([seed, 2, list(TOWERS).index(name)])
    with torch.random.fork_rng():
        torch.manual_seed(int(rng.integers(2**31)))
        training = TowerInTraining().train()
    scenes = open_cache(cache)
    prompts = concept_embeddings(partial(encode_texts, text, tokenizer))
    optimizer = make_optimizer(training.parameters())
    while phase.fraction < 1.0:
        training.drop_patches(phase.fraction < DROPOUT_UNTIL, rng)
        rows = rng.choice(len(scenes), min(batch, len(scenes)), replace=False)
        boxes = [random_box(rng, WHOLE_SHARE) for _ in rows]
        truth = truth_of(scenes, rows, boxes)
        with torch.no_grad():
            caption_BD = encode_texts(text, tokenizer, captions_of(scenes, rows, boxes, truth, rng))
        pixels = mixed_pixels(scenes, SENSOR_SHARES[name], rows, boxes, rng)
        terms = loss_terms(training, pixels, truth, caption_BD, prompts)
        loss = torch.stack([WEIGHTS[name][key] * term for key, term in terms.items()]).sum()
        take_step(optimizer, loss, phase.learning_rate(PEAK_RATE))
        phase.advance({key: float(term.detach()) for key, term in terms.items()})
    return training.release(), phase.step


def captions_of(
    scenes: Scenes,
    rows: NDArray[np.intp],
    boxes: list[Box],
    truth: Truth,
    rng: np.random.Generator,
) -> list[str]:
    """A composed caption per crop; half of the whole scenes keep their own caption."""
    captions = [describe(content, rng) for content in truth.contents]
    for index, box in enumerate(boxes):
        if box.whole and rng.random() < 0.5:
            captions[index] = scenes.captions[rows[index]]
    return captions


def mixed_pixels(
    scenes: Scenes,
    shares: Mapping[str, float],
    rows: NDArray[np.intp],
    boxes: list[Box],
    rng: np.random.Generator,
) -> Tensor:
    """Pixel values of every sample in one sensor, drawn with the given shares, (B, 3, 64, 64)."""
    drawn = rng.choice(list(shares), len(rows), p=list(shares.values()))
    pixels = torch.zeros(len(rows), 3, IMAGE_PX, IMAGE_PX)
    for sensor in shares:
        picked = np.flatnonzero(drawn == sensor)
        if len(picked):
            source, grey = ("rgb", rng) if sensor == "grey" else (sensor, None)
            crops = [boxes[i] for i in picked]
            pixels[picked] = pixel_values(scenes, source, rows[picked], crops, grey)
    return pixels


def loss_terms(
    training: TowerInTraining, pixels: Tensor, truth: Truth, caption_BD: Tensor, prompts: Tensor
) -> dict[str, Tensor]:
    """The unweighted loss terms of one batch; `prompts` are from `concept_embeddings`."""
    output: TowerOutput = training.tower(pixels, patch=True)
    assert output.patch is not None
    class_KD, embedding_BD = prompts[:NUM_CLASSES], output.embedding
    logits_BK = training.presence_scale.exp() * embedding_BD @ class_KD.T + training.presence_bias
    present_BK = (truth.areas >= MIN_AREA).float()
    root_BK = truth.areas.sqrt()
    share_BK = root_BK / root_BK.sum(dim=1, keepdim=True).clamp_min(1e-6)
    patch_ND, patch_NK = (
        output.patch.flatten(0, 1),
        truth.patch_shares[:, training.kept].flatten(0, 1),
    )
    return {
        "caption": contrastive_loss(embedding_BD, caption_BD, training.tower.logit_scale),
        "presence": nn.functional.binary_cross_entropy_with_logits(logits_BK, present_BK),
        "areas": share_loss(embedding_BD, class_KD, share_BK, TAU),
        "patches": share_loss(patch_ND, class_KD, patch_NK, PATCH_TAU),
        "condition": condition_loss(embedding_BD, prompts, list(truth.contents)),
    }
