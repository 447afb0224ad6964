"""Describe the towers of a teacher and run their self-tests.

Checks on random pixel values: unit norm, determinism, independence of the batch, and that LoRA pairs
in the file have an effect. A text tower is checked the same way, on random token ids if it takes
those, else on sentences. A failed check is reported, not raised.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.modalities import TowerName
from pipeline.targets.provenance import EMBEDDING
from teacher.checkpoints.digest import weights_digest
from teacher.checkpoints.locate import TOKENIZER, TowerFiles
from teacher.checkpoints.read import read_checkpoint
from teacher.checkpoints.tensors import lora_updates
from teacher.contract import LoadedText, LoadedTower, TeacherText, TeacherTower
from teacher.open import open_teacher
from teacher.towers.text_tower import TextTower

BATCH = 4
SENTENCES = ("a road", "a photo of a car.", "two trees in the rain", "a sign at night")
"""What a text tower is checked on that takes no token ids; as many as `BATCH`."""
UNIT_NORM_ATOL = 1e-5
BATCH_ATOL = {"float32": 1e-5, "bfloat16": 3e-2, "float16": 5e-3}
"""Largest difference allowed between a unit vector encoded alone and in a batch: rounding only."""


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True, slots=True)
class TowerReport:
    """One tower and the results of its checks."""

    tower: str
    """`image`, `depth`, ..., or `text`."""
    source: str
    revision: str
    digest: str
    """Hex sha256 of the weights (`teacher.checkpoints.digest.weights_digest`); empty if not stated."""
    num_parameters: int | None
    """None: the teacher does not show its network."""
    dtype: str
    logit_scale: float
    """As stored, i.e. its logarithm; NaN where there is none."""
    input_px: tuple[int, int]
    """Height and width; text: 1 and the tokens of a sequence, 0 if not known."""
    embedding_dim: int
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)


def check_towers(
    name: str,
    *,
    cache: Path,
    revision: str | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    towers: Sequence[TowerName] | None = None,
) -> Iterator[TowerReport]:
    """Load and check each tower of a source (or those in `towers`), then its text tower if it has one.

    One tower is in memory at a time. `cache` keeps weight digests. Raises `CheckpointError` for a
    tower that cannot be loaded.
    """
    teacher = open_teacher(name, revision)
    for modality in towers or teacher.towers:
        source = teacher.tower(modality)
        yield _check_tower(name, source, source.load(dtype, device), dtype, cache)
    if teacher.text is not None:
        text = teacher.text
        yield _check_text_tower(name, text, text.load(dtype, device), dtype, cache)


def as_lines(report: TowerReport) -> list[str]:
    """The report as lines of text, one per check."""
    scale = "-" if np.isnan(report.logit_scale) else f"{report.logit_scale:.4f}"
    count = "unknown" if report.num_parameters is None else f"{report.num_parameters:,}"
    height, width = report.input_px
    return [
        f"{report.tower} tower: {report.source} (revision {report.revision})",
        f"  weights sha256 {report.digest}",
        f"  {count} parameters, {report.dtype}, log logit scale {scale}",
        f"  input {height} x {width}; D {report.embedding_dim}",
        *(
            f"  {'ok  ' if check.passed else 'FAIL'} {check.name}: {check.detail}"
            for check in report.checks
        ),
    ]


def _check_tower(
    name: str, source: TeacherTower, tower: LoadedTower, dtype: str, cache: Path
) -> TowerReport:
    shape = (BATCH, 3, *source.input_px)
    rng = np.random.default_rng([0, 1])
    pixels = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
    checks = [*_embedding_checks(lambda x: tower.encode(x).embedding, pixels, dtype)]
    files: TowerFiles | None = getattr(source, "files", None)
    if files is not None:
        checks += _lora_check(files)
    return TowerReport(
        tower=source.name,
        input_px=source.input_px,
        embedding_dim=source.output_shapes()[EMBEDDING][-1],
        logit_scale=float(getattr(tower, "logit_scale", float("nan"))),
        dtype=dtype,
        num_parameters=_num_parameters(tower),
        checks=tuple(checks),
        **_origin(name, source, dtype, cache),
    )


def _check_text_tower(
    name: str, source: TeacherText, text: LoadedText, dtype: str, cache: Path
) -> TowerReport:
    context_length = int(getattr(text, "context_length", 0))
    files: TowerFiles | None = getattr(source, "files", None)
    if isinstance(text, TextTower) and files is not None:
        _require_usable_tokenizer(text)
        checks = [*_id_checks(text, int(files.config.text["vocab_size"]), context_length, dtype)]
    else:
        checks = [*_embedding_checks(text.encode, SENTENCES, dtype)]
    return TowerReport(
        tower="text",
        input_px=(1, context_length),
        embedding_dim=source.embedding_dim,
        logit_scale=float("nan"),
        dtype=dtype,
        num_parameters=_num_parameters(text),
        checks=tuple(checks),
        **_origin(name, source, dtype, cache),
    )


def _origin(
    name: str, source: TeacherTower | TeacherText, dtype: str, cache: Path
) -> dict[str, Any]:
    """`source`, `revision` and `digest` of a report."""
    files = getattr(source, "files", None)
    if files is not None:
        weights = weights_digest(files.weights, cache)
    else:
        weights = str(source.identity(compute_dtype=dtype, cache=cache).get("weights", ""))
    return {
        "source": getattr(files, "name", name),
        "revision": getattr(files, "revision", getattr(source, "revision", None)) or "local",
        "digest": weights,
    }


def _id_checks(text: TextTower, vocab: int, length: int, dtype: str) -> Iterator[Check]:
    rng = np.random.default_rng([1, vocab])
    ids = rng.integers(0, vocab - 1, (BATCH, length))
    ids[:, length // 2 :] = vocab - 1
    return _embedding_checks(lambda x: text.encode_ids(x).embedding, torch.from_numpy(ids), dtype)


def _require_usable_tokenizer(text: TextTower) -> None:
    """Raise `CheckpointError` for tokenizer files that cannot serve; there may be none."""
    if any(os.path.lexists(text.files.directory / name) for name in TOKENIZER):
        assert text.tokenizer.vocab_size


def _embedding_checks(
    encode: Callable[[Any], Tensor], inputs: Tensor | Sequence[str], dtype: str
) -> Iterator[Check]:
    """Checks of `encode`, which maps B inputs to (B, E)."""
    together = encode(inputs)
    norm_error = float((together.norm(dim=-1) - 1).abs().max())
    yield Check("unit norm", norm_error <= UNIT_NORM_ATOL, f"off by at most {norm_error:.1e}")
    same = torch.equal(together, encode(inputs))
    yield Check("determinism", same, "bitwise" if same else "two passes differ")
    alone = torch.cat([encode(inputs[i : i + 1]) for i in range(len(inputs))])
    difference = float((alone - together).abs().max())
    passed = difference <= BATCH_ATOL[dtype]
    yield Check("batch invariance", passed, f"alone and in a batch of {BATCH}: {difference:.1e}")
    spread = float((together - together[:1]).abs().max())
    yield Check("input dependence", spread > BATCH_ATOL[dtype], f"inputs differ by {spread:.1e}")


def _lora_check(files: TowerFiles) -> list[Check]:
    """Whether every LoRA pair changes its weight; empty for a checkpoint without LoRA."""
    alpha = float(files.config.vision["lora_alpha"])
    updates = lora_updates(read_checkpoint(files.directory)[0], alpha, files.where)
    if not updates:
        return []
    zero = [name for name, update in updates.items() if not update.any()]
    largest = max(float(update.abs().max()) for update in updates.values())
    detail = f"{len(updates)} pairs, largest change of a weight {largest:.1e}"
    return [Check("LoRA effect", not zero, detail + (f"; none in {zero[0]}" if zero else ""))]


def _num_parameters(loaded: LoadedTower | LoadedText) -> int | None:
    network: nn.Module | None = getattr(loaded, "network", None)
    return None if network is None else sum(p.numel() for p in network.parameters())
