"""`ValueRule`: the meaning of the numbers in a file, where they are not the stored form already.

    stored = round(scale * (value + offset))       or, with `inverse`,  round(scale / (value + offset))

in the kind's unit (`unit` converts metres and centimetres). A value listed in `invalid`, a NaN or
an infinity is stored as 0, which means "nothing measured". Results beyond the stored type saturate.
Raises `BadImageError` for a file that the rule does not describe.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveFloat

from pipeline.core.frozen_model import Frozen
from pipeline.formats.image_file import BadImageError, File, Raw, fit_dtype, one_channel, read_raw
from pipeline.modalities import ModalitySpec

MILLIMETRES = {"mm": 1.0, "cm": 10.0, "m": 1000.0}
CHANNEL_INDEX = {"first": 0, "second": 1, "third": 2}


class ValueRule(Frozen):
    """How the values of one modality's files become stored values."""

    bits: Literal[8, 16, 32] | None = None
    """Bits a channel of the files (32: floating point); default: those of the kind."""
    channel: Literal["grey", "first", "second", "third", "mean"] = "grey"
    """For one-channel kinds, what is taken of a colour file; `grey`: all channels must be equal."""
    unit: Literal["mm", "cm", "m"] | None = None
    """Unit of the scaled values, for kinds in millimetres; default mm."""
    scale: PositiveFloat = 1.0
    offset: float = 0.0
    """Added to a value before it is scaled."""
    inverse: bool = False
    """Divide instead: metres from disparity are focal length * baseline / (value + offset)."""
    invalid: tuple[float, ...] = ()
    """Values in the file that mean "nothing measured"."""

    @property
    def is_plain(self) -> bool:
        """Whether a file's values are the stored values."""
        factor = self.scale * MILLIMETRES[self.unit or "mm"]
        return factor == 1.0 and not (self.offset or self.inverse or self.invalid)

    def problem(self, spec: ModalitySpec) -> str | None:
        """None if the rule suits the kind, else the field, what is wrong and what to do."""
        if self.unit and spec.unit != "mm":
            return f"unit: kind {spec.kind!r} holds {spec.unit}s, not lengths; use scale alone"
        if self.is_plain and self.bits is not None and self.bits > num_bits(spec):
            return (
                f"bits: {self.bits}-bit files do not fit kind {spec.kind!r} ({num_bits(spec)} bits) "
                f"as they are; give scale (full range: {(2 ** num_bits(spec) - 1) / 65_535:.6g})"
            )
        return None


def num_bits(spec: ModalitySpec) -> int:
    """Bits of a stored value."""
    return 8 * np.dtype(spec.dtype).itemsize


def read_values(path: File, spec: ModalitySpec, rule: ValueRule) -> NDArray[Any]:
    """(H, W) or (H, W, 3) stored form of a file. Raises `BadImageError`."""
    raw = read_raw(path)
    _require_bits(path, raw, rule.bits or num_bits(spec))
    values = _channels(path, raw, spec, rule)
    return fit_dtype(path, values, spec.dtype) if rule.is_plain else _scaled(values, spec, rule)


def _require_bits(path: File, raw: Raw, expected: int) -> None:
    # Pillow opens some 16-bit files as 32-bit integers; `fit_dtype` checks their values.
    is_float = raw.values.dtype.kind == "f"
    bits = 32 if is_float else 8 if raw.values.dtype == np.uint8 else 16
    if bits != expected:
        raise BadImageError(
            f"{path}: expected {expected} bits a channel, found {raw.mode} ({bits}); set `bits`"
        )


def _channels(path: File, raw: Raw, spec: ModalitySpec, rule: ValueRule) -> NDArray[Any]:
    values = raw.values
    if spec.channels == 3:
        return values if values.ndim == 3 else np.repeat(values[:, :, None], 3, axis=2)
    if values.ndim == 2 or rule.channel == "grey":
        return one_channel(path, raw)
    if rule.channel == "mean":
        mean: NDArray[Any] = values.mean(axis=2)
        return np.rint(mean).astype(values.dtype) if values.dtype.kind in "ui" else mean
    return np.ascontiguousarray(values[:, :, CHANNEL_INDEX[rule.channel]])


def _scaled(values: NDArray[Any], spec: ModalitySpec, rule: ValueRule) -> NDArray[Any]:
    exact = values.astype(np.float64)
    invalid = np.isin(exact, rule.invalid) | ~np.isfinite(exact)
    shifted = exact + rule.offset
    if rule.inverse:
        # No distance has a disparity of 0 or less.
        invalid |= shifted <= 0
        shifted = 1.0 / np.where(invalid, 1.0, shifted)
    in_kind = MILLIMETRES[rule.unit or "mm"] if spec.unit == "mm" else 1.0
    stored = np.rint(np.where(invalid, 0.0, shifted) * (rule.scale * in_kind))
    clipped = np.clip(stored, 0, np.iinfo(spec.dtype).max)
    return np.where(invalid, 0, clipped).astype(spec.dtype)
