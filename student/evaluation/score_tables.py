"""From confusion matrices to the scores of `evaluation.json` (see storage_layout.md and
docs/evaluation.md).

Every mIoU comes twice: strict (`miou`: classes without label pixels are skipped) and compatible with
published code (`miou_absent_zero`: they count as 0). A score without any labelled pixel is None.

Legend: S subsets, G groups of samples, K classes, T tables and L levels of corruption.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from student.evaluation.corruptions import LOST_SHARES, NOISE_LEVELS
from student.evaluation.iou import class_iou, majority_miou, miou, miou_absent_zero
from student.evaluation.robustness_scores import summary

SKIPPED = "absent modalities are skipped"
ZERO_FILLED = "absent modalities are 0 after normalisation"
LOST = "of absent modalities {:g} % of the elements are 0 after normalisation"
NOISY = "salt and pepper on {:g} % of the elements, Gaussian noise of sigma {:g} (not on events)"

Subset = tuple[str, ...]
Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class CorruptedCounts:
    """Counts from corrupted inputs (`student.evaluation.corrupted_counts`)."""

    missing: Counts
    """(T, S, K, K): EMM zero-filled, then RMM by share lost."""
    noisy: Counts
    """(L, K, K): NM by level, from all modalities."""
    seed: int


@dataclass(frozen=True, slots=True)
class Scores:
    """Counts over a split."""

    subsets: tuple[Subset, ...]
    groups: tuple[tuple[str, str], ...]
    """Condition and corner case of each group."""
    confusion: Counts
    """(S, G, K, K) pixels, rows by label."""
    num_samples: Counts
    """(S, G) samples that have a modality of the subset."""
    corrupted: CorruptedCounts | None = None


def all_subsets(modalities: Sequence[str]) -> tuple[Subset, ...]:
    """The 2^M - 1 non-empty subsets, small ones first, in the config's order."""
    sizes = range(1, len(modalities) + 1)
    return tuple(subset for size in sizes for subset in combinations(modalities, size))


def summarise(scores: Scores) -> dict[str, Any]:
    """Scores of every subset: overall, per condition and per corner case; and under corruption if
    counted."""
    kinds = {"condition": _members(scores, 0), "corner_case": _members(scores, 1)}
    rows = [_subset_row(scores, s, kinds) for s in range(len(scores.subsets))]
    support = scores.confusion[-1].sum(axis=(0, 2))
    singles = [r["miou"] for r in rows if len(r["modalities"]) == 1 and r["miou"] is not None]
    return {
        "support": support.tolist(),
        "conditions": _group_rows(scores, kinds["condition"]),
        "corner_cases": _group_rows(scores, kinds["corner_case"]),
        "subsets": rows,
        **all_mean_worst(rows, "miou"),
        "singles_mean": float(np.mean(singles)),
        "absent_zero": all_mean_worst(rows, "miou_absent_zero"),
        "majority_class_miou": majority_miou(support),
        "robustness": _robustness(scores, rows) if scores.corrupted else None,
    }


def all_mean_worst(rows: Sequence[Mapping[str, Any]], metric: str) -> dict[str, Any]:
    """The scores of a table of subsets that are always reported together: all, mean and worst."""
    scored = [row for row in rows if row[metric] is not None]
    worst = min(scored, key=lambda row: row[metric])
    return {
        "all": rows[-1][metric],
        "mean": float(np.mean([row[metric] for row in scored])),
        "worst": {"modalities": worst["modalities"], "miou": worst[metric]},
    }


def _members(scores: Scores, kind: int) -> dict[str, list[int]]:
    """Each condition (kind 0) or corner case (1) that has a name, and its groups."""
    names = sorted({group[kind] for group in scores.groups} - {""})
    return {n: [g for g, group in enumerate(scores.groups) if group[kind] == n] for n in names}


def _group_rows(scores: Scores, groups: Mapping[str, list[int]]) -> dict[str, Any]:
    return {
        name: {
            "num_samples": int(scores.num_samples[-1, own].sum()),
            "support": scores.confusion[-1, own].sum(axis=(0, 2)).tolist(),
        }
        for name, own in groups.items()
    }


def _subset_row(
    scores: Scores, s: int, kinds: Mapping[str, Mapping[str, list[int]]]
) -> dict[str, Any]:
    counts = scores.confusion[s].sum(axis=0)
    per_kind = {
        f"per_{kind}": {
            name: _mious(scores.confusion[s, own].sum(axis=0)) for name, own in groups.items()
        }
        for kind, groups in kinds.items()
    }
    return {
        "modalities": list(scores.subsets[s]),
        "num_samples": int(scores.num_samples[s].sum()),
        "support": counts.sum(axis=1).tolist(),
        **_mious(counts),
        "per_class": [_or_none(float(iou)) for iou in class_iou(counts)],
        **per_kind,
    }


def _mious(counts_KK: Counts) -> dict[str, float | None]:
    iou_K = class_iou(counts_KK)
    compatible = miou_absent_zero(iou_K) if counts_KK.any() else None
    return {"miou": _or_none(miou(iou_K)), "miou_absent_zero": compatible}


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else value


def _robustness(scores: Scores, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """EMM in both protocols, RMM, and NM by level."""
    assert scores.corrupted is not None
    names = ("modalities", "miou", "miou_absent_zero")
    tables = [[{name: row[name] for name in names} for row in rows]]
    for counts_SKK in scores.corrupted.missing:
        pairs = zip(scores.subsets, counts_SKK, strict=True)
        tables.append([{"modalities": list(subset), **_mious(own)} for subset, own in pairs])
    labels = [("EMM skipped", 1.0, SKIPPED), ("EMM zero-filled", 1.0, ZERO_FILLED)]
    labels += [(f"RMM {100 * share:g} %", share, LOST.format(100 * share)) for share in LOST_SHARES]
    noise = [
        {
            "name": f"NM {level.name}",
            "protocol": NOISY.format(100 * level.density, level.sigma),
        }
        | _mious(counts_KK)
        for level, counts_KK in zip(NOISE_LEVELS, scores.corrupted.noisy, strict=True)
    ]
    missing = [_missing_table(*label, table) for label, table in zip(labels, tables, strict=True)]
    return {"seed": scores.corrupted.seed, "missing": missing, "noise": noise}


def _missing_table(
    name: str, lost: float, protocol: str, rows: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "name": name,
        "lost": lost,
        "protocol": protocol,
        **_averages(rows, "miou"),
        "worst": all_mean_worst(rows, "miou")["worst"],
        "absent_zero": _averages(rows, "miou_absent_zero"),
        "subsets": rows,
    }


def _averages(rows: Sequence[Mapping[str, Any]], metric: str) -> dict[str, float | None]:
    """See `student.evaluation.robustness_scores`; None where a subset has no score."""
    table = {tuple(row["modalities"]): row[metric] for row in rows}
    # Filled for the names alone: with a missing score every average is None.
    filled = {subset: 0.0 if value is None else value for subset, value in table.items()}
    return {name: v if None not in table.values() else None for name, v in summary(filled).items()}
