"""A prepared dataset with made-up targets and a made-up run in the form that the stages write."""

import itertools
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from flows.report.score_lines import AVERAGES
from pipeline.config.config import Config
from pipeline.config.load import load_config
from pipeline.formats.image_codec import decode_label
from pipeline.schemas import EVALUATION_SCHEMA
from pipeline.shards.manifest import Manifest, shard_path
from pipeline.shards.prepare import prepare
from pipeline.storage.files import write_json
from pipeline.targets.lookup import point_to_store
from pipeline.targets.prompts import PromptStore, point_to_prompts
from pipeline.targets.provenance import TargetProvenance
from pipeline.targets.store import TargetStore
from pipeline.workspace import Workspace
from student.runs.inputs import open_inputs, start_run

DIM = 8
CHANCE = 0.0421
COST_S = 0.25
"""Seconds that each shard's pass is said to have taken."""


def write_pictures(
    root: Path, kinds: dict[str, str], num_classes: int, height: int, width: int, num: int = 3
) -> None:
    """`<modality>/<split>/<n>.png` and labels with some pixels that count nowhere."""
    rng = np.random.default_rng([num_classes, height, width])
    for split, index in itertools.product(("train", "test"), range(num)):
        label = rng.integers(0, num_classes, (height, width), dtype=np.uint8)
        label[:2] = 255
        arrays = {"label": label}
        for name, kind in kinds.items():
            if kind == "depth":
                arrays[name] = rng.integers(0, 50_000, (height, width)).astype(np.uint16)
            else:
                shape = (height, width, 3) if kind in ("rgb", "event") else (height, width)
                arrays[name] = rng.integers(0, 255, shape, dtype=np.uint8)
        for name, array in arrays.items():
            (root / name / split).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(root / name / split / f"{index}.png")


def folder_config(
    root: Path,
    kinds: dict[str, str],
    classes: list[str],
    *,
    extra: str = "",
    num_pictures: int = 2,
    missing: str = "refuse",
) -> Config:
    """The config of the pictures in `root/source`."""
    tables = ", ".join(f'{name} = {{ kind = "{kind}" }}' for name, kind in kinds.items())
    names = ", ".join(f"'{name}'" for name in classes)
    (root / "made-up.toml").write_text(
        f"""
name = "made-up"
workspace = "./workspace"
dataset = {{ adapter = "folder", root = "./source", classes = [{names}], missing = "{missing}" }}
modalities = {{ {tables} }}
store = {{ shard_size = 2 }}
prepare = {{ workers = 1, max_refused = 0.5 }}
evaluate = {{ split = "test", num_pictures = {num_pictures} }}
train = {{ steps = 40, batch_size = 2 }}
{extra}
"""
    )
    return load_config(root / "made-up.toml")


def prepare_all(config: Config) -> Manifest:
    """Shards, targets and prompts of the config."""
    workspace = Workspace.of(config)
    prepare(config, workspace, progress=False)
    manifest = Manifest.load(workspace.dataset(config))
    rng = np.random.default_rng(7)
    for modality, spec in config.specs().items():
        provenance = TargetProvenance(
            modality=modality,
            teacher=config.teacher.name,
            spec=spec.identity(),
            tower={"name": spec.tower},
            outputs={"embedding": (DIM,)},
            shard_size=config.store.shard_size,
        )
        store = TargetStore.create(workspace.targets(config), provenance)
        for shard in manifest.all_shards:
            rows = rng.normal(size=(shard.num_rows, DIM))
            rows[~np.array(shard.present[modality])] = np.nan
            store.commit(shard, {"embedding": rows}, {"seconds": COST_S})
        point_to_store(config, workspace, store)
    num_classes = len(manifest.classes)
    prompts = rng.normal(size=(num_classes, 1, DIM)).astype(np.float32)
    store = PromptStore.create(workspace.prompts, "made-up", {}, prompts[:, 0], prompts)
    point_to_prompts(config, workspace, store)
    return manifest


def write_run(config: Config, manifest: Manifest, *, base: float = 0.3) -> Path:
    """A finished, scored run of the config; returns its folder."""
    inputs = open_inputs(config, Workspace.of(config), manifest)
    start_run(inputs)
    run = inputs.run
    scores = evaluation(config, manifest, base) | {"run_id": run.id}
    rows = manifest.rows("test")[: config.evaluate.num_pictures]
    for row in rows:
        _write_predictions(config, manifest, row, run.pictures / row["key"])
        scores["pictures"].append({name: row[name] for name in ("key", "condition", "corner_case")})
    steps = np.arange(1, config.train.steps + 1)
    terms = {"loss": 3 / steps, "ce": 2 / steps, "lr": 1e-3 * steps, "intra": None, "inter": 0.1}
    table = {name: [None] * len(steps) if v is None else v + 0 * steps for name, v in terms.items()}
    times = {"step_s": np.full(len(steps), 0.3), "data_s": np.full(len(steps), 0.1)}
    pq.write_table(pa.table({"step": steps} | table | times), run.metrics)
    write_json(run.evaluation, scores)
    return run.folder


def evaluation(config: Config, manifest: Manifest, base: float) -> dict[str, Any]:
    """evaluation.json with a score for every subset that grows with its size."""
    names = list(config.modalities)
    support = [int(n) for n in manifest.class_pixels("test")]
    conditions = Counter(r["condition"] for r in manifest.rows("test") if r["condition"])
    corner_cases = Counter(r["corner_case"] for r in manifest.rows("test") if r["corner_case"])
    subsets = []
    for size in range(1, len(names) + 1):
        for subset in itertools.combinations(names, size):
            miou = base + 0.05 * size + 0.011 * names.index(subset[0])
            subsets.append(
                {
                    "modalities": list(subset),
                    "num_samples": len(manifest.rows("test")),
                    "miou": miou,
                    "miou_absent_zero": miou / 2,
                    "per_class": [miou if pixels else None for pixels in support],
                    "per_condition": _groups(conditions, miou),
                    "per_corner_case": _groups(corner_cases, miou),
                }
            )
    worst = min(subsets, key=lambda s: s["miou"])
    return {
        "schema": EVALUATION_SCHEMA,
        "conditions": {name: {"num_samples": num} for name, num in conditions.items()},
        "corner_cases": {name: {"num_samples": num} for name, num in corner_cases.items()},
        "seed": config.seed,
        "absent_zero": {
            "all": subsets[-1]["miou_absent_zero"],
            "mean": CHANCE,
            "worst": {"modalities": ["rgb"], "miou": CHANCE},
        },
        "robustness": damage(subsets) if config.evaluate.robustness else None,
        "split": "test",
        "protocol": "absent modalities are skipped",
        "step": config.train.steps,
        "checkpoint_sha256": "ab" * 32,
        "num_samples": len(manifest.rows("test")),
        "classes": list(manifest.classes),
        "support": support,
        "subsets": subsets,
        "all": subsets[-1]["miou"],
        "mean": float(np.mean([s["miou"] for s in subsets])),
        "singles_mean": float(np.mean([s["miou"] for s in subsets[: len(names)]])),
        "worst": {name: worst[name] for name in ("modalities", "miou")},
        "majority_class_miou": CHANCE,
        "pictures": [],
        "settings": {"window_px": config.evaluate.window_px},
    }


def _groups(names: Iterable[str], miou: float) -> dict[str, dict[str, float]]:
    return {n: {"miou": miou + 0.01 * i} for i, n in enumerate(sorted(names))}


def damage(subsets: list[dict[str, Any]]) -> dict[str, Any]:
    """Robustness whose tables lie 1, 2, 3, ... points below the undamaged figures."""
    rows = [{n: row[n] for n in ("modalities", "miou", "miou_absent_zero")} for row in subsets]
    labels = [
        ("EMM skipped", 1.0, "skips"),
        ("EMM zero-filled", 1.0, "fills"),
        ("RMM 25 %", 0.25, "quarter"),
    ]
    missing = []
    for points, (name, lost, protocol) in enumerate(labels):
        lower = [row | {"miou": row["miou"] - points / 100} for row in rows]
        figures = dict.fromkeys(AVERAGES, 0.1234 - points / 100)
        missing.append(
            {"name": name, "lost": lost, "protocol": protocol, **figures}
            | {"worst": min(lower, key=lambda row: row["miou"]), "subsets": lower}
            | {"absent_zero": figures}
        )
    noise = [
        {"name": f"NM {level}", "protocol": f"{level} noise"}
        | {"miou": 0.0567 - points / 100, "miou_absent_zero": 0.0432}
        for points, level in enumerate(("low", "mid", "high"))
    ]
    return {"seed": 9, "missing": missing, "noise": noise}


def _write_predictions(
    config: Config, manifest: Manifest, row: dict[str, Any], folder: Path
) -> None:
    """Predictions that are the label, but for the first column."""
    span = next(m for m in row["members"] if m["name"] == "label.npy.zst")
    tar = shard_path(manifest.folder, row["split"], row["shard"]).read_bytes()
    label = decode_label(tar[span["offset"] : span["offset"] + span["num_bytes"]], "label")
    predicted = np.where(label == 255, 0, label)
    predicted[:, 0] = (predicted[:, 0] + 1) % len(manifest.classes)
    folder.mkdir(parents=True)
    Image.fromarray(label).save(folder / "label.png")
    names = list(config.modalities)
    for subset in [[name] for name in names] + [names]:
        Image.fromarray(predicted).save(folder / f"{'+'.join(subset)}.png")
