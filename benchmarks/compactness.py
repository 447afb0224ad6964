"""What a smaller target store costs the student.

    python -m benchmarks.compactness [scenes] [seed]

Embeds rendered scenes (300 by default, four sensors) with the packaged teacher, stores the numbers in
several forms, and prints for each form: bytes per sample and modality; mean and largest 1 - cosine; and
the change of the terms of the student's loss, as a share of the loss itself (inter, dense; intra reads
no teacher rows). Principal components are fitted on one half of the scenes, everything is scored on the
other. A second table does the same for synthetic pooled and dense rows of 768 numbers, the width of the
released towers, with the spectrum of the real ones (singular values interpolated over the width); it
shows the trend only.

Forms: f32; f16 (the store's); bf16 (upper half of f32, rounded to nearest even, stored as uint16); int8
with one float16 scale per row; PCA-k: rows minus the mean, k float16 coefficients, and a basis shared by
all rows. The student is synthetic too: its rows are the teacher's with noise, at cosine 0.7, so that
losses are about as large as in training. One thread, two minutes.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.config.config import Config
from pipeline.shards.manifest import Manifest
from pipeline.shards.prepare import prepare
from pipeline.targets.lookup import resolve
from pipeline.workspace import Workspace
from student.losses.correlation import dense_loss, inter_modal_loss
from teacher.encoding.precompute import precompute

Rows = NDArray[np.float32]
"""(N, D) unit-norm."""
TAU = 0.1
STUDENT_COSINE = 0.7
COMPONENTS = (16, 32, 64, 128)
WIDE = 768


@dataclass(frozen=True)
class Form:
    """A way to keep rows: what comes back, and bytes a row."""

    name: str
    keep: Callable[[Rows], Rows]
    row_bytes: float


@dataclass(frozen=True)
class Targets:
    """A teacher's targets: pooled (N, M, D), dense (N, M, P, D)."""

    pooled: Rows
    dense: Rows

    def half(self, first: bool) -> Targets:
        """One half of the scenes."""
        part = slice(None, len(self.pooled) // 2) if first else slice(len(self.pooled) // 2, None)
        return Targets(self.pooled[part], self.dense[part])


def as_bf16(rows: Rows) -> Rows:
    """Through the upper 16 bits, rounded to nearest even."""
    bits = rows.view(np.uint32)
    kept = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return (kept.astype(np.uint32) << 16).view(np.float32)


def as_int8(rows: Rows) -> Rows:
    """Through 8 bits and one float16 scale a row."""
    scale = (np.abs(rows).max(axis=-1, keepdims=True) / 127).astype(np.float16).astype(np.float32)
    return np.clip(np.rint(rows / scale), -127, 127).astype(np.int8) * scale


def components(rows: Rows) -> tuple[Rows, Rows]:
    """Mean (D,) and principal directions (D, D) of rows, the strongest first."""
    mean = rows.mean(axis=0)
    centred = (rows - mean).astype(np.float64)
    return mean, np.linalg.eigh(centred.T @ centred)[1][:, ::-1].T.astype(np.float32)


def pca(mean: Rows, basis: Rows) -> Callable[[Rows], Rows]:
    """Through float16 coefficients of these directions."""

    def keep(rows: Rows) -> Rows:
        coefficients = ((rows - mean) @ basis.T).astype(np.float16).astype(np.float32)
        return coefficients @ basis + mean

    return keep


def forms(train: Rows) -> Iterator[Form]:
    """All forms for rows like `train`."""
    width = train.shape[-1]
    yield Form("f32", lambda rows: rows, 4 * width)
    yield Form("f16", lambda rows: rows.astype(np.float16).astype(np.float32), 2 * width)
    yield Form("bf16", as_bf16, 2 * width)
    yield Form("int8", as_int8, width + 2)
    mean, basis = components(train)
    for k in (k for k in COMPONENTS if k < width):
        yield Form(f"PCA-{k}", pca(mean, basis[:k]), 2 * k)


def unit(rows: Rows) -> Rows:
    """Rows of length 1."""
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    return (rows / np.maximum(lengths, 1e-12)).astype(np.float32)


def student_rows(rows: Rows, rng: np.random.Generator) -> Rows:
    """Rows at about `STUDENT_COSINE` to the teacher's."""
    noise = unit(rng.standard_normal(rows.shape).astype(np.float32))
    return unit(STUDENT_COSINE * rows + (1 - STUDENT_COSINE**2) ** 0.5 * noise)


def losses(teacher: Targets, student: Targets) -> dict[str, float]:
    """The terms of the student's loss that read the teacher's rows."""
    pooled_s, pooled_t = (torch.from_numpy(rows) for rows in (student.pooled, teacher.pooled))
    present = torch.ones(pooled_t.shape[:2], dtype=torch.bool)
    maps_s, maps_t = (as_maps(targets.dense) for targets in (student, teacher))
    everywhere = torch.ones(maps_t.shape[:-1], dtype=torch.bool)
    return {
        "inter": float(inter_modal_loss(pooled_s, pooled_t, present, TAU)),
        "dense": float(dense_loss(maps_s, maps_t, everywhere, "cosine")),
    }


def as_maps(dense: Rows) -> torch.Tensor:
    """(N, M, P, D) rows as the (M, N, H, W, D) maps that the dense term compares."""
    return torch.from_numpy(dense).transpose(0, 1).unsqueeze(3)


def print_table(title: str, targets: Targets, seed: int) -> None:
    """One table: forms fitted on the first half, scored on the second."""
    train, test = targets.half(first=True), targets.half(first=False)
    width, patches = test.pooled.shape[-1], test.dense.shape[2]
    rng = np.random.default_rng(seed)
    student = Targets(student_rows(test.pooled, rng), student_rows(test.dense, rng))
    whole = losses(test, student)
    print(f"\n{title}: scored on {len(test.pooled)} scenes, D {width}, P {patches}")
    print("loss with f32 rows: " + ", ".join(f"{n} {value:.4f}" for n, value in whole.items()))
    print(
        "         bytes an image           pooled, 1 - cos         dense, 1 - cos   change of the loss"
    )
    print(
        "form       pooled     dense     mean      worst        mean      worst      inter    dense"
    )
    pooled_forms = forms(train.pooled.reshape(-1, width))
    dense_forms = forms(sample_rows(train.dense.reshape(-1, width)))
    for pooled, dense in zip(pooled_forms, dense_forms, strict=True):
        kept = Targets(pooled.keep(test.pooled), dense.keep(test.dense))
        changed = losses(kept, student)
        change = " ".join(f"{changed[n] / whole[n] - 1:+8.1e}" for n in whole)
        errors = "  ".join(
            f"{errors.mean():10.1e} {errors.max():10.1e}"
            for errors in (direction(test.pooled, kept.pooled), direction(test.dense, kept.dense))
        )
        sizes = f"{pooled.row_bytes:9.0f} {patches * dense.row_bytes:9.0f}"
        print(f"{pooled.name:7s} {sizes}  {errors}   {change}")


def sample_rows(rows: Rows, most: int = 20_000) -> Rows:
    """Enough rows to find components in."""
    return rows[:: max(1, len(rows) // most)]


def direction(rows: Rows, kept: Rows) -> Rows:
    """1 - cosine of each row, in double precision."""
    one, other = rows.astype(np.float64), kept.astype(np.float64)
    lengths = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
    return np.maximum(0, 1 - (one * other).sum(axis=-1) / lengths)


def real_targets(folder: Path, num_scenes: int, seed: int) -> Targets:
    """The packaged teacher's float32 targets for rendered scenes."""
    config = Config.model_validate(
        {
            "name": "compactness",
            "workspace": str(folder),
            "dataset": {
                "adapter": "synthetic",
                "seed": seed,
                "num_train": num_scenes,
                "num_val": 1,
                "num_test": 1,
                "size_px": 128,
            },
            "modalities": {"rgb": {}, "depth": {}, "event": {}, "lidar": {}},
            "store": {"dtype": "float32"},
            "teacher": {"outputs": ["embedding", "patch"], "device": "cpu"},
        }
    )
    workspace = Workspace.of(config)
    prepare(config, workspace)
    precompute(config, workspace)
    shards = Manifest.load(workspace.dataset(config)).shards("train")
    stores = [resolve(config, workspace, name) for name in config.modalities]

    def rows(output: str) -> Rows:
        parts = [np.stack([s.read(shard, output) for s in stores], axis=1) for shard in shards]
        return np.concatenate(parts)

    return Targets(rows("embedding"), rows("patch"))


def wide_targets(real: Targets, seed: int, num_scenes: int = 60, patches: int = 64) -> Targets:
    """Random rows of `WIDE` numbers with the spectrum of the real ones, interpolated over the width."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.standard_normal((WIDE, WIDE)))[0]

    def made(rows: Rows, *shape: int) -> Rows:
        flat = sample_rows(rows.reshape(-1, rows.shape[-1]))
        mean = np.linalg.norm(flat.mean(axis=0))
        centred = flat - flat.mean(axis=0)
        values = np.linalg.eigvalsh(centred.T @ centred / len(flat))[::-1].clip(0) ** 0.5
        positions = np.linspace(0, len(values) - 1, WIDE)
        spread = np.interp(positions, np.arange(len(values)), values)
        spread *= np.linalg.norm(values) / np.linalg.norm(spread)
        drawn = (rng.standard_normal((*shape, WIDE)) * spread) @ turn
        drawn += mean * turn[0]
        return unit(drawn)

    modalities = real.pooled.shape[1]
    return Targets(
        made(real.pooled, num_scenes, modalities),
        made(real.dense, num_scenes, modalities, patches),
    )


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenes", nargs="?", type=int, default=300, help="default: 300")
    parser.add_argument("seed", nargs="?", type=int, default=0)
    options = parser.parse_args()
    num_scenes, seed = options.scenes, options.seed
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        targets = real_targets(Path(folder), num_scenes, seed)
    print_table("languagebind-tiny", targets, seed)
    print_table("made up, 768 wide", wide_targets(targets, seed), seed)


if __name__ == "__main__":
    main()
