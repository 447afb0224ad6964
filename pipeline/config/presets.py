"""Named sets of student and training fields; `preset = "robust"` at the top of a config.

A preset sets the fields that the config leaves out: a field that is written wins, and the resolved
config shows every value. All presets set the same fields, so two of them differ in nothing else.

- `any2seg-paper`: the published method alone: MFF and LSCD, every sample with all its modalities.
  The paper's loss weights and temperatures are not public; these are our defaults.
- `robust`, the default: for predictions from any subset of the sensors; the reason for each term is in
  `student.losses.objective`, the measurements behind it are in `docs/log.md`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    "any2seg-paper": {
        "student.fusion": "mff",
        "student.lscd.inter": 0.05,
        "student.lscd.intra": 0.1,
        "student.lscd.weak_power": 0.0,
        "train.subset_weight": 0.0,
        "train.subset_draw": "uniform",
        "train.consistency_weight": 0.0,
        "train.auxiliary_weight": 0.0,
    },
    "robust": {
        "student.fusion": "concat",
        "student.lscd.inter": 0.05,
        "student.lscd.intra": 0.1,
        "student.lscd.weak_power": 1.0,
        "train.subset_weight": 1.0,
        "train.subset_draw": "weak_first",
        "train.consistency_weight": 0.0,
        "train.auxiliary_weight": 0.5,
    },
}
"""Name to dotted fields and their values."""


def with_preset(data: Mapping[str, Any]) -> dict[str, Any]:
    """The config's values, and the preset's for the fields that it leaves out.

    An unknown preset, or a value where a table is expected, is left for validation to report.
    """
    filled = copy.deepcopy(dict(data))
    name = filled.get("preset")
    for dotted, value in PRESETS.get(name, {}).items() if isinstance(name, str) else ():
        *parents, last = dotted.split(".")
        table: Any = filled
        for parent in parents:
            table = table.setdefault(parent, {}) if isinstance(table, dict) else None
        if isinstance(table, dict):
            table.setdefault(last, value)
    return filled


def without_preset_fields(data: Mapping[str, Any]) -> dict[str, Any]:
    """The config's values without the fields that presets set, so that another preset can set them."""
    kept = copy.deepcopy(dict(data))
    for dotted in {field for fields in PRESETS.values() for field in fields}:
        *parents, last = dotted.split(".")
        table: Any = kept
        for parent in parents:
            table = table.get(parent, {})
        table.pop(last, None)
    return kept
