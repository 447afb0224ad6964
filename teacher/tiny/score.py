"""Zero-shot scores of a tiny teacher on held-out scenes.

Per sensor: class presence (area under the ROC curve of the cosine with each class prompt),
condition retrieval, class per patch along the dense path; each with its chance level. Then how much
the 4 x 4 similarity matrix between sensors varies from scene to scene.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from teacher.tiny.cache import Scenes
from teacher.tiny.layout import TOWERS
from teacher.tiny.lexicon import CLASSES, CONDITIONS
from teacher.tiny.scenes import SENSORS, Box, Truth, truth_of
from teacher.tiny.text_training import NUM_CLASSES, concept_embeddings
from teacher.towers.text_tower import load_text_tower
from teacher.towers.vision_tower import Tower, load_tower

PRESENT_AREA = 0.005
"""Share of the pixels from which a class is present; it is absent only without any pixel."""
MIN_CASES = 5
TAU = 0.1
BATCH = 64


@dataclass(frozen=True, slots=True)
class Encoded:
    """One sensor's embeddings of N scenes: (N, D) and, per patch, (N, P, D)."""

    embedding: Tensor
    patches: Tensor


def score_directory(directory: Path, scenes: Scenes) -> dict[str, Any]:
    """All scores of the towers in `directory` on all given scenes, as plain numbers.

    Raises `CheckpointError` if a tower cannot be loaded.
    """
    source = str(directory)
    towers = {name: load_tower(source, name) for name in TOWERS}
    truth = truth_of(scenes, np.arange(len(scenes)), [Box()] * len(scenes))
    prompts = concept_embeddings(load_text_tower(source).encode)
    encoded = {name: encode(scenes, name, towers[tower]) for name, tower in SENSORS.items()}
    return {
        "num_scenes": len(scenes),
        "sensors": {
            name: _sensor_scores(out, scenes, truth, prompts) for name, out in encoded.items()
        },
        "chance": _chance(scenes, truth),
        "between_sensors": between_sensors({n: out.embedding for n, out in encoded.items()}),
        "prompt_cosines": _prompt_cosines(prompts),
    }


def encode(scenes: Scenes, sensor: str, tower: Tower) -> Encoded:
    """Encode whole scenes of one sensor with its tower."""
    embeddings, patches = [], []
    for start in range(0, len(scenes), BATCH):
        pixels = tower.preprocess(list(scenes.arrays[sensor][start : start + BATCH]))
        output = tower.encode(pixels, patch=True)
        assert output.patch is not None
        embeddings.append(output.embedding)
        patches.append(output.patch)
    return Encoded(torch.cat(embeddings), torch.cat(patches))


def area_under_curve(score_N: NDArray[np.floating], positive_N: NDArray[np.bool_]) -> float:
    """Probability that a positive scores above a negative; ties count half (Mann-Whitney)."""
    higher = score_N[positive_N][:, None] - score_N[~positive_N][None, :]
    return float((higher > 0).mean() + 0.5 * (higher == 0).mean())


def between_sensors(embeddings: dict[str, Tensor], tau: float = TAU) -> dict[str, Any]:
    """Statistics of the cosines between sensors, and how much they vary between scenes.

    `kl_nats`: mean KL of a scene's softmax rows (self masked, temperature tau) to their mean row.
    `row_std`: mean over entries of the standard deviation over scenes of those softmax rows.
    `cosine_mean`, `cosine_std`: per pair of sensors, over scenes.
    """
    names = list(embeddings)
    stacked_NMD = torch.stack([embeddings[name] for name in names], dim=1)
    cosine_NMM = stacked_NMD @ stacked_NMD.transpose(1, 2)
    self_MM = torch.eye(len(names), dtype=torch.bool)
    row_NMM = torch.softmax((cosine_NMM / tau).masked_fill(self_MM, -torch.inf), dim=-1)
    ratio_NMM = row_NMM / row_NMM.mean(dim=0).clamp_min(1e-9)
    kl_NM = torch.special.xlogy(row_NMM, ratio_NMM).sum(dim=-1)
    pairs = {f"{a}-{b}": (i, j) for i, a in enumerate(names) for j, b in enumerate(names) if i < j}
    return {
        "kl_nats": _round(kl_NM.mean()),
        "row_std": _round(row_NMM.std(dim=0)[~self_MM].mean()),
        "cosine_mean": {name: _round(cosine_NMM[:, i, j].mean()) for name, (i, j) in pairs.items()},
        "cosine_std": {name: _round(cosine_NMM[:, i, j].std()) for name, (i, j) in pairs.items()},
    }


def _sensor_scores(out: Encoded, scenes: Scenes, truth: Truth, prompts: Tensor) -> dict[str, Any]:
    class_KD = prompts[:NUM_CLASSES]
    weather_CD = prompts[NUM_CLASSES : NUM_CLASSES + len(CONDITIONS)]
    predicted_N = (out.embedding @ weather_CD.T).argmax(dim=1)
    true_N = torch.tensor([list(CONDITIONS).index(name) for name in scenes.conditions])
    curves = _presence_curves((out.embedding @ class_KD.T).numpy(), truth.areas.numpy())
    counted_NP, label_NP = _patch_labels(truth)
    hit_NP = (out.patches @ class_KD.T).argmax(dim=-1) == label_NP
    return {
        "presence_auc": curves,
        "presence_auc_mean": round(float(np.mean(list(curves.values()))), 4) if curves else None,
        "condition_accuracy": _round((predicted_N == true_N).float().mean()),
        "patch_accuracy": _round(hit_NP[counted_NP].float().mean()),
        "patch_accuracy_class_mean": _class_mean(hit_NP[counted_NP], label_NP[counted_NP]),
    }


def _presence_curves(
    score_NK: NDArray[np.float32], area_NK: NDArray[np.float32]
) -> dict[str, float]:
    curves = {}
    for index, concept in enumerate(CLASSES):
        present, absent = area_NK[:, index] >= PRESENT_AREA, area_NK[:, index] == 0
        if min(present.sum(), absent.sum()) >= MIN_CASES:
            counted = present | absent
            value = area_under_curve(score_NK[counted, index], present[counted])
            curves[concept.names[0]] = round(value, 4)
    return curves


def _patch_labels(truth: Truth) -> tuple[Tensor, Tensor]:
    """Patches that one class fills by half or more, (N, P) bool, and that class, (N, P)."""
    share_NP, label_NP = truth.patch_shares.max(dim=-1)
    return share_NP >= 0.5, label_NP


def _class_mean(hit_C: Tensor, label_C: Tensor) -> float:
    """Accuracy per occurring class, averaged over the classes."""
    rates = [hit_C[label_C == index].float().mean() for index in torch.unique(label_C)]
    return _round(torch.stack(rates).mean())


def _chance(scenes: Scenes, truth: Truth) -> dict[str, float]:
    """Chance levels: the most frequent class or condition, or a coin."""
    counted_NP, label_NP = _patch_labels(truth)
    counts = torch.bincount(label_NP[counted_NP], minlength=NUM_CLASSES).float()
    most_frequent = max(scenes.conditions.count(name) for name in CONDITIONS) / len(scenes)
    return {
        "presence_auc_mean": 0.5,
        "condition_accuracy": round(most_frequent, 4),
        "patch_accuracy": _round(counts.max() / counts.sum()),
        "patch_accuracy_class_mean": _round(1.0 / (counts > 0).sum()),
    }


def _prompt_cosines(prompts: Tensor) -> dict[str, float]:
    """Cosines of a few pairs of class prompts, similar pairs first."""
    names = [concept.names[0] for concept in CLASSES]
    pairs = [("car", "truck"), ("bus", "truck"), ("road", "sidewalk"), ("vegetation", "terrain")]
    pairs += [("car", "sky"), ("road", "building")]
    return {f"{a}-{b}": _round(prompts[names.index(a)] @ prompts[names.index(b)]) for a, b in pairs}


def _round(value: Tensor) -> float:
    return round(float(value), 4)
