"""Describe the towers of a teacher and run their self-tests.

Checks on random pixel values: unit norm, determinism, independence of the batch, and that LoRA pairs
in the file have an effect. The text tower is checked the same way on random token ids. A failed
check is reported, not raised.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.modalities import TowerName
from teacher.checkpoints.locate import TOKENIZER, TowerFiles, towers_in
from teacher.checkpoints.read import read_checkpoint
from teacher.checkpoints.tensors import lora_updates
from teacher.encoding.identity import weights_digest
from teacher.towers.text_tower import TextTower, load_text_tower
from teacher.towers.vision_tower import Tower, load_tower

BATCH = 4
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
    """Hex sha256 of the weights file."""
    num_parameters: int
    dtype: str
    logit_scale: float
    """As stored, i.e. its logarithm; NaN for the text tower."""
    input_px: tuple[int, int]
    """Height and width; text: 1 and the tokens of a sequence."""
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
    """Load and check each tower of a source (or those in `towers`), then its text tower.

    One tower is in memory at a time. `cache` keeps weight digests. Raises `CheckpointError` for a
    tower that cannot be loaded.
    """
    for modality in towers or towers_in(name, revision):
        tower = load_tower(name, modality, revision=revision, dtype=dtype, device=device)
        yield _check_tower(tower, dtype, cache)
    yield _check_text_tower(
        load_text_tower(name, revision=revision, dtype=dtype, device=device), cache
    )


def as_lines(report: TowerReport) -> list[str]:
    """The report as lines of text, one per check."""
    scale = "-" if np.isnan(report.logit_scale) else f"{report.logit_scale:.4f}"
    height, width = report.input_px
    return [
        f"{report.tower} tower: {report.source} (revision {report.revision})",
        f"  weights sha256 {report.digest}",
        f"  {report.num_parameters:,} parameters, {report.dtype}, log logit scale {scale}",
        f"  input {height} x {width}; D {report.embedding_dim}",
        *(
            f"  {'ok  ' if check.passed else 'FAIL'} {check.name}: {check.detail}"
            for check in report.checks
        ),
    ]


def _check_tower(tower: Tower, dtype: str, cache: Path) -> TowerReport:
    layout = tower.network.layout
    shape = (BATCH, 3, *layout.input_px)
    rng = np.random.default_rng([0, 1])
    pixels = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
    checks = [*_embedding_checks(lambda x: tower.encode(x).embedding, pixels, dtype)]
    checks += _lora_check(tower.files)
    return TowerReport(
        tower=tower.files.config.modality,
        source=tower.files.name,
        revision=tower.files.revision or "local",
        digest=weights_digest(tower.files.weights, cache),
        num_parameters=_num_parameters(tower.network),
        dtype=dtype,
        logit_scale=tower.logit_scale,
        input_px=layout.input_px,
        embedding_dim=tower.embedding_dim,
        checks=tuple(checks),
    )


def _check_text_tower(text: TextTower, cache: Path) -> TowerReport:
    _require_usable_tokenizer(text)
    vocab = int(text.files.config.text["vocab_size"])
    rng = np.random.default_rng([1, vocab])
    ids = rng.integers(0, vocab - 1, (BATCH, text.context_length))
    ids[:, text.context_length // 2 :] = vocab - 1
    dtype = str(next(text.network.parameters()).dtype).removeprefix("torch.")
    checks = _embedding_checks(lambda x: text.encode_ids(x).embedding, torch.from_numpy(ids), dtype)
    return TowerReport(
        tower="text",
        source=text.files.name,
        revision=text.files.revision or "local",
        digest=weights_digest(text.files.weights, cache),
        num_parameters=_num_parameters(text.network),
        dtype=dtype,
        logit_scale=float("nan"),
        input_px=(1, text.context_length),
        embedding_dim=text.embedding_dim,
        checks=tuple(checks),
    )


def _require_usable_tokenizer(text: TextTower) -> None:
    """Raise `CheckpointError` for tokenizer files that cannot serve; there may be none."""
    if any(os.path.lexists(text.files.directory / name) for name in TOKENIZER):
        assert text.tokenizer.vocab_size


def _embedding_checks(
    encode: Callable[[Tensor], Tensor], inputs: Tensor, dtype: str
) -> Iterator[Check]:
    """Checks of `encode`, which maps (B, ...) to (B, E)."""
    together = encode(inputs)
    norm_error = float((together.norm(dim=-1) - 1).abs().max())
    yield Check("unit norm", norm_error <= UNIT_NORM_ATOL, f"off by at most {norm_error:.1e}")
    same = torch.equal(together, encode(inputs))
    yield Check("determinism", same, "bitwise" if same else "two passes differ")
    alone = torch.cat([encode(row[None]) for row in inputs])
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


def _num_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
