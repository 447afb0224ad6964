"""The values that the report's template prints, computed from a run's files.

Every number on the page is computed here or stands in `evaluation.json`; scores are fractions, which the
template prints in per cent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flows.report.charts import (
    MARKER_SIGNS,
    Curve,
    SubsetScores,
    curve_chart,
    row_colour,
    subset_chart,
    subset_order,
)
from flows.report.cost import RowStyle, cost_values
from flows.report.data_section import data_values
from flows.report.images import EmbeddedImage, class_image, modality_image
from flows.report.score_lines import view
from flows.report.sources import RunRow, SampleInputs, Sources
from flows.report.tables import group_tables, robust_values
from pipeline.config.config import Config
from pipeline.config.toy_teacher import toy_teacher_note
from pipeline.core.units_text import as_percent
from pipeline.datasets.base import IGNORE_ID, RGB

METRICS = {
    "loss": "Total loss",
    "ce": "Cross-entropy, all modalities",
    "subset_ce": "Cross-entropy, random subset",
    "inter": "LSCD: between modalities",
    "intra": "LSCD: classes within a modality",
    "dense": "LSCD: dense embeddings",
    "lr": "Learning rate",
}
"""Columns of metrics.parquet that are drawn, in this order, and their titles."""
NUM_REFUSED_SHOWN = 10
SECTIONS = (
    ("comparison", "Comparison"),
    ("subsets", "Subsets"),
    ("training", "Training"),
    ("classes", "Classes"),
    ("conditions", "Conditions"),
    ("robustness", "Robustness"),
    ("predictions", "Predictions"),
    ("data", "Data"),
    ("cost", "Cost"),
    ("refused", "Refused samples"),
    ("fingerprints", "Fingerprints"),
)


def page_values(sources: Sources) -> dict[str, Any]:
    """Everything that `report.html.j2` prints."""
    rows, main = sources.rows, sources.rows[0]
    styles = [style_of(i, row.name) for i, row in enumerate(rows)]
    singles = [(name,) for name in main.config.modalities]
    columns = list(dict.fromkeys([tuple(main.config.modalities), *singles]))
    return {
        "title": main.config.name,
        "sections": SECTIONS,
        "verdict": verdict(main),
        "tiles": _tiles(main),
        "setting": _setting(main),
        "teacher_note": toy_teacher_note(main.config),
        "split": main.evaluation["split"],
        "score_names": _score_names(main),
        "num_subsets": len(main.evaluation["subsets"]),
        "rows": [_comparison(row, style, main) for row, style in zip(rows, styles, strict=True)],
        "unfinished": sources.unfinished,
        "subset_svg": _subset_svg(rows),
        "subsets": _subset_lines(rows),
        "curves": _curves(rows),
        **_class_table(main, columns, sources.palette),
        "group_tables": group_tables(main, {subset_name(c, main.config): c for c in columns}),
        **robust_values(rows, styles),
        "samples": [sample_values(s, main.config, sources.palette) for s in sources.samples],
        **data_values(sources.statistics, sources.specs),
        **cost_values(sources, styles),
        "refused": sources.refused[:NUM_REFUSED_SHOWN],
        "num_refused": len(sources.refused),
        "num_seen": f"{sources.num_samples + len(sources.refused):,}",
        "fingerprints": sources.fingerprints,
        "config_text": sources.config_text,
        "run_id": main.evaluation["run_id"],
    }


def style_of(index: int, name: str) -> RowStyle:
    """Name, colour and mark of the run at this index in the report; 0 is the main run."""
    sign = "\u25ac" if index == 0 else MARKER_SIGNS[(index - 1) % len(MARKER_SIGNS)]
    return RowStyle(name, row_colour(index), sign)


def subset_name(subset: Iterable[str], config: Config) -> str:
    """`rgb + depth`, `rgb alone`, or `all 4`."""
    names = list(subset)
    if len(names) == len(config.modalities) > 1:
        return f"all {len(names)}"
    return " + ".join(names)


def verdict(main: RunRow) -> str:
    """The run's scores in one sentence."""
    scores, config = main.evaluation, main.config
    worst = scores["worst"]
    chance = _with_sign(scores["majority_class_miou"])
    floor = f"Predicting the most frequent class everywhere would give {chance}."
    if len(config.modalities) == 1:
        (only,) = config.modalities
        return f"From {only} alone the student reaches {_with_sign(scores['all'])} mIoU. {floor}"
    return (
        f"With all {len(config.modalities)} modalities the student reaches "
        f"{_with_sign(scores['all'])} mIoU, over all {len(scores['subsets'])} subsets "
        f"{_with_sign(scores['mean'])} on average, and with the worst of them "
        f"({' + '.join(worst['modalities'])}) {_with_sign(worst['miou'])}. {floor}"
    )


def _with_sign(fraction: float | None) -> str:
    """`37.3 %` that no line break splits."""
    return f"{as_percent(fraction)}\u00a0%"


def _tiles(main: RunRow) -> list[dict[str, str]]:
    scores, num = main.evaluation, len(main.config.modalities)
    entries = [
        ("All modalities", scores["all"], " + ".join(main.config.modalities)),
        ("Mean of subsets", scores["mean"], f"{len(scores['subsets'])} non-empty subsets"),
        ("Worst subset", scores["worst"]["miou"], " + ".join(scores["worst"]["modalities"])),
        ("Chance floor", scores["majority_class_miou"], "the most frequent class everywhere"),
    ]
    kept = entries if num > 1 else [entries[0], entries[3]]
    return [
        {"label": label, "value": as_percent(value), "unit": "% mIoU", "note": note}
        for label, value, note in kept
    ]


def _setting(main: RunRow) -> str:
    scores, config = main.evaluation, main.config
    present = sum(1 for pixels in scores["support"] if pixels)
    return (
        f"{scores['num_samples']:,} samples of the {scores['split']} split of {config.dataset.adapter}, "
        f"{present} of {len(scores['classes'])} classes occur; {scores['protocol']}; {view(scores)}; "
        f"{config.student.backbone} with {config.student.fusion} fusion after {scores['step']:,} steps "
        f"of {config.train.batch_size}, seed {config.seed}, teacher {config.teacher.name}."
    )


def _score_names(main: RunRow) -> list[str]:
    """Heads of the comparison's score columns; with one modality there is only one."""
    num_subsets, num = len(main.evaluation["subsets"]), len(main.config.modalities)
    if num == 1:
        return ["mIoU"]
    return [f"all {num}", f"mean of {num_subsets} subsets", "mean of singles", "worst subset"]


def _comparison(row: RunRow, style: RowStyle, main: RunRow) -> dict[str, Any]:
    def cell(value: float | None, base: float | None, note: str = "") -> dict[str, Any]:
        comparable = row is not main and value is not None and base is not None
        return {"value": value, "delta": value - base if comparable else None, "note": note}  # type: ignore[operator]

    own, base = row.evaluation, main.evaluation
    cells = [cell(own[name], base[name]) for name in ("all", "mean", "singles_mean")]
    worst_name = " + ".join(own["worst"]["modalities"])
    cells.append(cell(own["worst"]["miou"], base["worst"]["miou"], worst_name))
    if len(main.config.modalities) == 1:
        cells = cells[:1]
    return {
        "name": style.name,
        "colour": style.colour,
        "sign": style.sign,
        "cells": cells,
        "step": f"{own['step']:,}",
        "seed": row.config.seed,
        "split": own["split"],
        "protocol": own["protocol"],
        "overrides": row.overrides,
    }


def subset_scores(row: RunRow, field: str = "miou") -> dict[tuple[str, ...], float | None]:
    """One score of every subset, keyed by the subset in the config's order of modalities."""
    order = list(row.config.modalities)
    return {
        tuple(sorted(entry["modalities"], key=order.index)): entry[field]
        for entry in row.evaluation["subsets"]
    }


def _subset_svg(rows: Sequence[RunRow]) -> str:
    scores = [SubsetScores(row.name, subset_scores(row)) for row in rows]
    modalities = list(rows[0].config.modalities)
    return subset_chart(modalities, scores, rows[0].evaluation["majority_class_miou"])


def _subset_lines(rows: Sequence[RunRow]) -> list[dict[str, Any]]:
    scores = [subset_scores(row) for row in rows]
    absent_zero = subset_scores(rows[0], "miou_absent_zero")
    return [
        {
            "name": " + ".join(subset),
            "scores": [own.get(subset) for own in scores],
            "absent_zero": absent_zero[subset],
        }
        for subset in subset_order(list(scores[0]), scores[0])
    ]


def _curves(rows: Sequence[RunRow]) -> list[str]:
    """One chart for each metric with a finite value other than 0 in any row."""
    charts = []
    for metric, title in METRICS.items():
        curves = [
            Curve(row.name, index, row.metrics["step"], row.metrics[metric])
            for index, row in enumerate(rows)
            if metric in row.metrics and _has_values(row.metrics[metric])
        ]
        if curves:
            charts.append(curve_chart(metric, title, curves, smooth=metric != "lr"))
    return charts


def _has_values(values: NDArray[np.float64]) -> bool:
    return bool(values[np.isfinite(values)].any())


def _class_table(
    main: RunRow, columns: Sequence[tuple[str, ...]], palette: Sequence[RGB]
) -> dict[str, Any]:
    scores = main.evaluation
    entries = {tuple(sorted(entry["modalities"])): entry for entry in scores["subsets"]}
    chosen = [entries[tuple(sorted(subset))] for subset in columns]
    labelled = max(1, sum(scores["support"]))
    lines = [
        {
            "name": name,
            "colour": "#{:02x}{:02x}{:02x}".format(*palette[index]),
            "pixels": scores["support"][index],
            "share": share(scores["support"][index] / labelled),
            "scores": [entry["per_class"][index] for entry in chosen],
        }
        for index, name in enumerate(scores["classes"])
    ]
    return {
        "class_columns": [subset_name(subset, main.config) for subset in columns],
        "classes": lines,
        "class_means": [entry["miou"] for entry in chosen],
    }


def share(fraction: float) -> str:
    """`37 %`, `2.4 %`, `0.03 %`."""
    percent = 100 * fraction
    if percent < 0.005:
        return "< 0.01 %"
    digits = 0 if percent >= 10 else 1 if percent >= 1 else 2
    return f"{percent:.{digits}f} %"


def sample_values(sample: SampleInputs, config: Config, palette: Sequence[RGB]) -> dict[str, Any]:
    """A grid of figures: inputs and label above, the predictions from each input below.

    With one modality there is one line: input, label, prediction.
    """
    specs = config.specs()
    above = [
        _figure(name, modality_image(sample.arrays[name], spec), f"{name} input of {sample.key}")
        if name in sample.arrays
        else _figure(name, None, "no input")
        for name, spec in specs.items()
    ]
    above.append(_figure("label", class_image(sample.label, palette), f"label of {sample.key}"))
    subsets = list(dict.fromkeys([*((name,) for name in specs), tuple(specs)]))
    below = [_prediction(sample, subset, config, palette) for subset in subsets]
    return {
        "key": sample.key,
        "tags": [tag for tag in (sample.condition, sample.corner_case) if tag],
        "num_columns": len(above) if len(specs) > 1 else 3,
        "shape": "{1} / {0}".format(*sample.label.shape),
        "figures": above + below,
    }


def _figure(name: str, image: EmbeddedImage | None, alt: str, note: str = "") -> dict[str, Any]:
    note = note or (image.note if image else "")
    return {"name": name, "image": image, "alt": alt, "note": note}


def _prediction(
    sample: SampleInputs, subset: tuple[str, ...], config: Config, palette: Sequence[RGB]
) -> dict[str, Any]:
    name = subset_name(subset, config) if len(subset) > 1 else f"{subset[0]} alone"
    predicted = sample.predictions.get(frozenset(subset))
    if predicted is None:
        return _figure(name, None, "no prediction")
    accuracy = _pixel_accuracy(predicted, sample.label)
    note = "" if accuracy is None else f"{100 * accuracy:.0f} %"
    alt = f"prediction for {sample.key} from {' and '.join(subset)}"
    return _figure(name, class_image(predicted, palette), alt, note)


def _pixel_accuracy(predicted: NDArray[np.uint8], label: NDArray[np.uint8]) -> float | None:
    labelled = label != IGNORE_ID
    return float((predicted == label)[labelled].mean()) if labelled.any() else None
