"""What the teacher adds where most scenes have no labels: a companion of `ablation`.

    python -m benchmarks.few_labels FOLDER [--labelled 50] [--rows ...] [options of the ablation in FOLDER]

FOLDER holds an ablation's scenes. Two data sets are made from its training shards, as folders of tars that
the `webdataset` adapter reads:

- `labelled`: the first `--labelled` scenes, each ten times;
- `mixed`: the same, and as many other scenes, once each, whose every pixel is ignored.

So half of a mixed batch has labels. The rows on `mixed` differ in distillation and consistency alone. `labels
only` is the recipe without distillation on `labelled`: as many steps, with twice the labelled samples a step.
Val and test are the ablation's. Prints the table of `ablation`; the scores of every subset go to
`FOLDER/few-labels-<split>.json`. A second call does only what is missing.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np

from benchmarks.ablation import NO_LSCD, Fields, base_config, nested, parser, run_all, table
from pipeline.config.config import Config
from pipeline.datasets.base import IGNORE_ID
from pipeline.datasets.deliver_classes import DELIVER_CLASSES
from pipeline.formats.image_codec import decode_label, encode_array
from pipeline.formats.shard_tar import image_member, read_shard, shard_name, write_shard
from pipeline.modalities import LABEL
from pipeline.shards.manifest import Manifest
from pipeline.shards.prepare import prepare
from pipeline.workspace import Workspace

REPEATS = 10
SHARD_SIZE = 256
LABEL_MEMBER = image_member(LABEL)
Scene = tuple[str, dict[str, bytes]]

DENSE: Fields = {"student.lscd.dense": 0.5}
BY_PROMPTS: Fields = {"student.lscd.dense_distance": "kl"}
ROWS: dict[str, tuple[str, Fields]] = {
    "labels only": ("labelled", NO_LSCD),
    "no distillation": ("mixed", NO_LSCD),
    "consistency": ("mixed", NO_LSCD | {"train.consistency_weight": 0.5}),
    "lscd": ("mixed", {}),
    "lscd+dense": ("mixed", DENSE),
    "lscd+dense, by prompts": ("mixed", DENSE | BY_PROMPTS),
}
"""Row to its data set and what differs from the preset `robust`."""


def main(options: argparse.Namespace) -> None:
    """Cut, prepare, encode, train and score what is missing; print the table."""
    from teacher.encoding.precompute import precompute

    folder = Path(options.folder).resolve()
    cut(folder, base_config(folder, options), options.labelled)
    rows = options.rows or list(ROWS)
    configs = {
        (row, seed): config_of(folder, options, row, seed) for seed in options.seeds for row in rows
    }
    for row in ("labels only", "no distillation"):
        config = config_of(folder, options, row, 0)
        workspace = Workspace.of(config)
        prepare(config, workspace, progress=True)
        precompute(config, workspace, progress=True)
    scores = run_all(configs, options.jobs, folder / f"few-labels-{options.split}.json")
    print(f"\n{options}\n")
    print(*table(scores, options.seeds), sep="\n")


def config_of(folder: Path, options: argparse.Namespace, row: str, seed: int) -> Config:
    """The config of one run."""
    dataset, different = ROWS[row]
    fields = {
        name: value
        for name, value in base_config(folder, options).items()
        if not name.startswith("dataset.")
    }
    fields |= {
        "name": "few-labels",
        "seed": seed,
        "preset": "robust",
        "dataset.adapter": "webdataset",
        "dataset.root": str(folder / f"{dataset}-{options.labelled}"),
        "dataset.classes": DELIVER_CLASSES,
    }
    return Config.model_validate(nested(fields | different))


def cut(folder: Path, base: Fields, num_labelled: int) -> None:
    """Make the two data sets from the ablation's shards, unless they exist."""
    config = Config.model_validate(nested(base))
    manifest = Manifest.load(Workspace.of(config).dataset(config))
    scenes = {
        split: [
            scene
            for shard in manifest.shards(split)
            for scene in read_shard(shard.path, shard.sha256)
        ]
        for split in manifest.splits
    }
    first, others = scenes["train"][:num_labelled], scenes["train"][num_labelled:]
    labelled = [(f"{key}-{n}", members) for n in range(REPEATS) for key, members in first]
    unlabelled = [without_label(scene) for scene in others[: len(labelled)]]
    mixed = [scene for pair in zip(labelled, unlabelled, strict=True) for scene in pair]
    for name, train in (("labelled", labelled), ("mixed", mixed)):
        root = folder / f"{name}-{num_labelled}"
        if not root.exists():
            write(root, {**scenes, "train": train})


def without_label(scene: Scene) -> Scene:
    """The scene with every pixel ignored."""
    key, members = scene
    label = decode_label(members[LABEL_MEMBER], key)
    return key, {**members, LABEL_MEMBER: encode_array(np.full_like(label, IGNORE_ID))}


def write(root: Path, scenes: dict[str, list[Scene]]) -> None:
    """Tars under `root/<split>`."""
    for split, samples in scenes.items():
        (root / split).mkdir(parents=True)
        for index, start in enumerate(range(0, len(samples), SHARD_SIZE)):
            path = root / split / f"{shard_name(split, index)}.tar"
            write_shard(path, samples[start : start + SHARD_SIZE])


def few_labels_parser() -> argparse.ArgumentParser:
    """The ablation's command line, with these rows, and the number of labelled scenes."""
    arguments = parser(ROWS, __doc__)
    arguments.add_argument("--labelled", type=int, default=50, help="training scenes with labels")
    return arguments


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(few_labels_parser().parse_args())
