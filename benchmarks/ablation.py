"""What each part of the method adds, on rendered scenes.

    python -m benchmarks.ablation FOLDER [--seeds 0 1 2] [--split val] [--rows mean mff ...]

Prepares scenes with four sensors in FOLDER, encodes them once with the packaged teacher and once with the
same teacher with shuffled weights, trains a student for each row and seed (one thread each, `--jobs` at a
time), scores all subsets of the modalities on `--split`, and prints for each row the mIoU of all modalities,
the mean of all subsets, the mean of the single modalities and the worst subset, in per cent: mean and
standard deviation over the seeds, and the difference to the first row, paired by seed. Absent modalities
are skipped. The scores of every subset go to `FOLDER/ablation-<split>.json`.

Trained students are kept: a second call does only what is missing, so rows and seeds can be added and
another split can be scored. Tune rows on `val`; score `test` once.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import statistics
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config.config import Config
from pipeline.core.progress import progress_bar
from pipeline.shards.prepare import prepare
from pipeline.storage.files import write_json
from pipeline.workspace import Workspace

Fields = dict[str, Any]
"""Dotted config fields to their values."""

PLAIN: Fields = {
    "student.lscd.inter": 0.0,
    "student.lscd.intra": 0.0,
    "train.subset_weight": 0.0,
    "train.subset_draw": "uniform",
    "train.auxiliary_weight": 0.0,
    "student.fusion": "mff",
    "student.lscd.weak_power": 0.0,
}
PAPER: Fields = {"preset": "any2seg-paper"}
TWO_PASSES: Fields = PLAIN | {"train.subset_weight": 1.0}
ROBUST: Fields = {"preset": "robust"}
SHUFFLED = "shuffled-teacher"
DENSE: Fields = {"student.lscd.dense": 0.1}
NO_LSCD: Fields = {"student.lscd.inter": 0.0, "student.lscd.intra": 0.0}
LSCD: Fields = {"student.lscd.inter": 0.05, "student.lscd.intra": 0.1}
CONCAT: Fields = {"student.fusion": "concat"}

ROWS: dict[str, Fields] = {
    # Fusions, every sample with all its modalities.
    "mean": PLAIN | {"student.fusion": "mean"},
    "concat": PLAIN | CONCAT,
    "rgb-only": PLAIN | {"student.fusion": "rgb_only"},
    "cmnext": PLAIN | {"student.fusion": "cmnext"},
    "mff": PLAIN,
    # LSCD, term by term; inter and intra together are the published method as we read it.
    "mff+inter": PLAIN | {"student.lscd.inter": 0.05},
    "mff+intra": PLAIN | {"student.lscd.intra": 0.1},
    "mff+dense": PLAIN | DENSE,
    "paper": PAPER,
    "paper+dense": PAPER | DENSE,
    # Does it matter what the teacher knows?
    "paper, shuffled teacher": PAPER | {"teacher.name": SHUFFLED},
    "paper, one-hot prompts": PAPER | {"student.lscd.prompts": "one_hot"},
    # A second pass on a random subset, without and with LSCD in its forms.
    "two passes": TWO_PASSES,
    "two passes, concat": TWO_PASSES | CONCAT,
    "two passes+lscd": TWO_PASSES | LSCD,
    "two passes+lscd, weak rows": TWO_PASSES | LSCD | {"student.lscd.weak_power": 1.0},
    "two passes+dense": TWO_PASSES | DENSE,
    "two passes+lscd+dense": TWO_PASSES | LSCD | DENSE,
    # The robust recipe and its parts.
    "two passes, concat, weak first": TWO_PASSES | CONCAT | {"train.subset_draw": "weak_first"},
    "two passes, concat, auxiliary": TWO_PASSES | CONCAT | {"train.auxiliary_weight": 0.5},
    "two passes, concat, dense": TWO_PASSES | CONCAT | DENSE,
    "robust": ROBUST,
    "robust, consistency": ROBUST | {"train.consistency_weight": 0.5},
    "robust, no lscd": ROBUST | NO_LSCD,
    "robust+dense": ROBUST | DENSE,
    "robust, mff": ROBUST | {"student.fusion": "mff"},
    "robust, averaged": ROBUST | {"train.ema": 0.99},
}
METRICS = ("all", "mean", "singles_mean", "worst")


def main(options: argparse.Namespace) -> None:
    """Prepare, encode, train and score what is missing; print the table."""
    folder = Path(options.folder).resolve()
    teacher = folder / SHUFFLED
    if not teacher.exists():
        shuffle_teacher(teacher)
    base = base_config(folder, options)
    encode(base, teacher)
    rows = options.rows or list(ROWS)
    configs = {
        (row, seed): config_of(base, row, seed, teacher) for seed in options.seeds for row in rows
    }
    scores = run_all(configs, options.jobs, folder / f"ablation-{options.split}.json")
    print(f"\n{options}\n")
    print(*table(scores, options.seeds), sep="\n")


def run_all(
    configs: Mapping[tuple[str, int], Config], num_jobs: int, path: Path
) -> dict[str, dict[int, Any]]:
    """The scores by row and seed; `path` is rewritten after each student."""
    scores: dict[str, dict[int, Any]] = {row: {} for row, _ in configs}
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(num_jobs, context) as pool,
        progress_bar("students", len(configs), "run", True) as advance,
    ):
        jobs = {pool.submit(train_and_score, config): key for key, config in configs.items()}
        for job in as_completed(jobs):
            row, seed = jobs[job]
            scores[row][seed] = job.result()
            write_json(path, scores)
            advance(1, row)
    return scores


def base_config(folder: Path, options: argparse.Namespace) -> Fields:
    """The fields that all rows share."""
    return {
        "name": "ablation",
        "workspace": str(folder / "workspace"),
        "dataset.adapter": "synthetic",
        "dataset.num_train": options.train,
        "dataset.num_val": options.val,
        "dataset.num_test": options.test,
        "dataset.size_px": options.size,
        **{f"modalities.{name}": {} for name in ("rgb", "depth", "event", "lidar")},
        "teacher.outputs": ["embedding", "patch"],
        "student.backbone": "tf_efficientnet_lite0",
        "student.weights": "package",
        "train.steps": options.steps,
        "train.batch_size": options.batch,
        "train.threads": 1,
        "train.tracker": "none",
        "train.device": options.device,
        "teacher.device": options.device,
        "evaluate.split": options.split,
        "evaluate.num_pictures": 0,
    }


def config_of(base: Fields, row: str, seed: int, shuffled: Path) -> Config:
    """The config of one run."""
    fields = base | ROWS[row] | {"seed": seed}
    if fields.get("teacher.name") == SHUFFLED:
        fields["teacher.name"] = str(shuffled)
    return Config.model_validate(nested(fields))


def nested(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted fields as tables."""
    config: dict[str, Any] = {}
    for dotted, value in fields.items():
        *parents, last = dotted.split(".")
        table = config
        for parent in parents:
            table = table.setdefault(parent, {})
        table[last] = value
    return config


def shuffle_teacher(folder: Path) -> None:
    """Write the packaged teacher with the elements of each weight tensor in random order.

    Its outputs carry no knowledge, while the scale of its weights is unchanged.
    """
    from safetensors.numpy import load_file, save_file

    shutil.copytree(str(files("teacher") / "assets" / "languagebind-tiny"), folder)
    for number, path in enumerate(sorted(folder.rglob("model.safetensors"))):
        rng = np.random.default_rng([20, number])
        tensors = {
            name: rng.permutation(value.ravel()).reshape(value.shape)
            if value.dtype.kind == "f"
            else value
            for name, value in sorted(load_file(path).items())
        }
        save_file(tensors, path)


def encode(base: Fields, shuffled: Path) -> None:
    """Shards, and the targets of both teachers."""
    from teacher.encoding.precompute import precompute

    for row in ("paper", "paper, shuffled teacher"):
        config = config_of(base, row, 0, shuffled)
        workspace = Workspace.of(config)
        prepare(config, workspace, progress=True)
        precompute(config, workspace, progress=True)


def train_and_score(config: Config) -> dict[str, Any]:
    """The scores of one student."""
    from student.evaluation.evaluate import current_scores, evaluate
    from student.runs.inputs import identify
    from student.training.train import train

    workspace = Workspace.of(config)
    train(config, workspace, progress=False)
    evaluate(config, workspace, progress=False)
    scores = current_scores(identify(config, workspace), config)
    assert scores is not None
    subsets = {"+".join(row["modalities"]): row["miou"] for row in scores["subsets"]}
    metrics = {name: scores[name] for name in METRICS[:3]} | {"worst": scores["worst"]["miou"]}
    return metrics | {"run": scores["run_id"], "subsets": subsets}


def table(scores: Mapping[str, Mapping[int, Any]], seeds: Sequence[int]) -> Iterable[str]:
    """Lines of Markdown."""
    first = next(iter(scores))
    titles = ("all four", "mean of 15", "mean of singles", "worst")
    head = ["row", *titles, *(f"{title} - {first}" for title in titles)]
    yield "| " + " | ".join(head) + " |"
    yield "|---" * len(head) + "|"
    for row, by_seed in scores.items():
        runs = [by_seed[seed] for seed in seeds]
        others = [scores[first][seed] for seed in seeds]
        cells = [spread([run[name] for run in runs], "") for name in METRICS]
        pairs = list(zip(runs, others, strict=True))
        cells += [spread([run[name] - other[name] for run, other in pairs]) for name in METRICS]
        yield "| " + " | ".join([row, *cells]) + " |"


def spread(values: Sequence[float], sign: str = "+") -> str:
    """Mean and standard deviation in per cent."""
    deviation = statistics.stdev(values) if len(values) > 1 else float("nan")
    return f"{100 * statistics.mean(values):{sign}.1f} ± {100 * deviation:.1f}"


def parser(rows: Iterable[str] = ROWS, text: str | None = __doc__) -> argparse.ArgumentParser:
    """The command line for a choice of rows; `text` is the docstring of the benchmark."""
    parser = argparse.ArgumentParser(description=(text or "").split("\n", 1)[0])
    parser.add_argument("folder")
    parser.add_argument("--rows", nargs="*", choices=list(rows), help="default: all")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--split", default="val")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=6)
    parser.add_argument("--size", type=int, default=64, help="side of the scenes, pixels")
    parser.add_argument("--train", type=int, default=1000, help="number of training scenes")
    parser.add_argument("--val", type=int, default=150)
    parser.add_argument("--test", type=int, default=300)
    parser.add_argument("--jobs", type=int, default=2, help="students trained at a time")
    parser.add_argument("--device", default="cpu")
    return parser


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(parser().parse_args())
