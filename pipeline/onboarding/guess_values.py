"""Kinds and units of the sensors of an unknown dataset folder, guessed from values in their files.

    modality = guess_modality(stream, paths)

Every guess carries its reason, for a comment in the config. Unreadable files are skipped (the doctor
names them). `DatasetError` if none can be read.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DatasetError
from pipeline.formats.image_file import BadImageError, Raw, read_raw
from pipeline.modalities import KINDS
from pipeline.onboarding.doctor_rules import MAX_METRES
from pipeline.onboarding.file_header import UNREADABLE, FileForm, file_form
from pipeline.onboarding.guess_streams import Stream

FULL_16_BIT = 65_535
_TO_8_BIT = 1 / 257
_DARK_SHARE = 0.5
"""A 16-bit sensor that uses less than this of its range gets a `max_value` of its own."""
_PER_FILE = 20_000
"""Sampled values a file."""


@dataclass(frozen=True, slots=True)
class Modality:
    """One sensor: what goes under `[modalities.NAME]` and `[dataset.sources.NAME]`, and why."""

    name: str
    kind: str
    reason: str
    max_value: float | None = None
    rule: dict[str, Any] = field(default_factory=dict)
    """Fields of `ValueRule`."""
    sizes: frozenset[tuple[int, int]] = frozenset()
    """(height, width) of the files that were read."""


@dataclass(frozen=True, slots=True)
class Values:
    """Files of one stream: their form, and a sample of their values."""

    form: FileForm
    raw: NDArray[np.float64]
    """Finite values of all files, 1-D."""
    sizes: frozenset[tuple[int, int]]
    is_grey: bool
    """Whether the channels of colour files are equal."""

    @property
    def zero_share(self) -> float:
        """Share of values that are 0 (nothing measured)."""
        return float((self.raw == 0).mean())

    def top(self, share: float = 99.9) -> float:
        """Percentile of the values other than 0."""
        measured = self.raw[self.raw != 0]
        return float(np.percentile(measured, share)) if measured.size else 0.0


def read_stream(paths: Sequence[Path]) -> Values:
    """Values of some files of a stream. `DatasetError` if none can be read."""
    forms = Counter(file_form(path) for path in paths)
    forms.pop(UNREADABLE, None)
    drawn, sizes, grey, error = [], set(), True, ""
    for path in paths:
        try:
            raw = read_raw(path)
        except BadImageError as problem:
            error = str(problem)
            continue
        sizes.add(raw.values.shape[:2])
        grey = grey and _is_grey(raw)
        flat = raw.values.reshape(-1)
        drawn.append(flat[:: max(1, flat.size // _PER_FILE)].astype(np.float64))
    if not drawn or not forms:
        raise DatasetError(f"no file of this modality can be read: {error}")
    values = np.concatenate(drawn)
    return Values(forms.most_common(1)[0][0], values[np.isfinite(values)], frozenset(sizes), grey)


def _is_grey(raw: Raw) -> bool:
    return raw.values.ndim == 2 or not (raw.values != raw.values[:, :, :1]).any()


def guess_modality(stream: Stream, paths: Sequence[Path]) -> Modality:
    """Kind, unit and range of a stream from its name and some of its files."""
    values = read_stream(paths)
    distances = stream.family in ("depth", "lidar")
    if distances and (
        values.form.bits == 32 or (values.form.bits == 16 and not values.form.colour)
    ):
        return _distance(stream, values)
    if values.form.bits == 32:
        return _floats(stream, values)
    kind = _image_kind(stream.family, values)
    spec = KINDS[kind]
    rule: dict[str, Any] = {}
    if values.form.bits == 16 and spec.dtype == "uint8":
        rule = {"bits": 16, "scale": round(_TO_8_BIT, 9)}
    if values.form.colour and spec.channels == 1 and not values.is_grey:
        rule["channel"] = "mean"
    top = _nice_above(values.top())
    narrow = spec.dtype == "uint16" and 0 < top < _DARK_SHARE * FULL_16_BIT
    return Modality(
        stream.name,
        kind,
        _describe(values),
        top if narrow else None,
        {**rule, **_invalid(values)},
        values.sizes,
    )


def _image_kind(family: str, values: Values) -> str:
    """The kind (row of the registry) of integer images."""
    colour = values.form.colour and not values.is_grey
    wide = values.form.bits == 16
    grey = "gray16" if wide else "gray"
    by_family = {
        "depth": "hha" if colour and not wide else grey,
        "hha": "hha",
        "disparity": "disparity" if wide else "gray",
        "lidar": "lidar_image",
        "event": "event",
        "thermal": "thermal16" if wide else "thermal",
        "nir": "nir16" if wide else "nir",
        "aolp": "aolp" if colour and not wide else grey,
        "dolp": "dolp" if wide else "gray",
        "gray": grey,
    }
    return by_family.get(family, "rgb" if values.form.colour else grey)


def _distance(stream: Stream, values: Values) -> Modality:
    """Metric depth or range: metres if no value exceeds `MAX_METRES`, else millimetres."""
    kind = "lidar" if stream.family == "lidar" else "depth"
    top = values.top()
    rule: dict[str, Any] = {"bits": 32} if values.form.bits == 32 else {}
    unit = "m" if top <= MAX_METRES else "mm"
    if unit == "m":
        rule["unit"] = "m"
    metres = top if unit == "m" else top / 1000
    reason = f"{_describe(values)}; read as {unit}, so up to about {metres:.3g} m"
    if unit == "mm" and values.form.bits == 16:
        reason += " (if a step is another length, give its scale below [dataset.sources])"
    return Modality(stream.name, kind, reason, None, {**rule, **_invalid(values)}, values.sizes)


def _floats(stream: Stream, values: Values) -> Modality:
    """Floating-point values that are no distances: spread over 16 bits, or over 8 in colour."""
    colour = values.form.channels >= 3
    low = float(values.raw.min()) if values.raw.size else 0.0
    high = float(np.percentile(values.raw, 99.9)) if values.raw.size else 1.0
    offset = -low if low < 0 else 0.0
    top = 255 if colour else FULL_16_BIT
    scale = float(f"{top / max(high + offset, 1e-9):.6g}")
    rule = {"bits": 32, "scale": scale, **({"offset": round(offset, 6)} if offset else {})}
    wide = {"disparity": "disparity", "nir": "nir16", "thermal": "thermal16", "dolp": "dolp"}
    kind = "rgb" if colour else wide.get(stream.family, "gray16")
    return Modality(
        stream.name, kind, f"{_describe(values)}; spread over {top}", None, rule, values.sizes
    )


def _invalid(values: Values) -> dict[str, Any]:
    """65535 as an invalid value, if all other values stay well below it: it then marks "not measured"."""
    if values.form.bits != 16 or values.form.colour:
        return {}
    others = values.raw[values.raw < FULL_16_BIT]
    is_marker = others.size < values.raw.size and others.size and others.max() < 0.9 * FULL_16_BIT
    return {"invalid": [FULL_16_BIT]} if is_marker else {}


def _describe(values: Values) -> str:
    measured = values.raw[values.raw != 0]
    span = f"{measured.min():.6g} to {measured.max():.6g}" if measured.size else "nothing but 0"
    zeros = f", {values.zero_share:.0%} are 0" if values.zero_share >= 0.005 else ""
    return f"{values.form}, values {span}{zeros}"


def _nice_above(value: float) -> float:
    """A round number with two digits, somewhat above `value`."""
    if value <= 0:
        return 0.0
    step = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(math.ceil(value * 1.05 / step) * step)
