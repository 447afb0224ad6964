"""What the numbers in sensor files of an unknown tree mean: kinds and units guessed from values.

    modality = guess_modality(stream, paths)

Reads files and writes nothing. A guess says why it was made, for a comment in the config. Files
that cannot be read are passed over (the doctor names them); `DatasetError` if none can be.
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
"""Values of a file that its guess looks at."""


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
    """(height, width) of the files looked at."""


@dataclass(frozen=True, slots=True)
class Values:
    """Files of one stream: their form, and a thinned-out draw of their values."""

    form: FileForm
    raw: NDArray[np.float64]
    """Values of all files together, in 1-D; not finite ones left out."""
    sizes: frozenset[tuple[int, int]]
    is_grey: bool
    """Whether the channels of colour files are equal."""

    @property
    def holes(self) -> float:
        """Share of values that are 0."""
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
    found = read_stream(paths)
    distances = stream.family in ("depth", "lidar")
    if distances and (found.form.bits == 32 or (found.form.bits == 16 and not found.form.colour)):
        return _distance(stream, found)
    if found.form.bits == 32:
        return _floats(stream, found)
    kind = _picture_kind(stream.family, found)
    spec = KINDS[kind]
    rule: dict[str, Any] = {}
    if found.form.bits == 16 and spec.dtype == "uint8":
        rule = {"bits": 16, "scale": round(_TO_8_BIT, 9)}
    if found.form.colour and spec.channels == 1 and not found.is_grey:
        rule["channel"] = "mean"
    top = _nice_above(found.top())
    narrow = spec.dtype == "uint16" and 0 < top < _DARK_SHARE * FULL_16_BIT
    return Modality(
        stream.name,
        kind,
        _describe(found),
        top if narrow else None,
        {**rule, **_invalid(found)},
        found.sizes,
    )


def _picture_kind(family: str, found: Values) -> str:
    """The registry row for whole-number pictures."""
    colour = found.form.colour and not found.is_grey
    wide = found.form.bits == 16
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
    return by_family.get(family, "rgb" if found.form.colour else grey)


def _distance(stream: Stream, found: Values) -> Modality:
    """Metric depth or range: metres if nothing is farther than a sensor in millimetres sees."""
    kind = "lidar" if stream.family == "lidar" else "depth"
    top = found.top()
    rule: dict[str, Any] = {"bits": 32} if found.form.bits == 32 else {}
    unit = "m" if top <= MAX_METRES else "mm"
    if unit == "m":
        rule["unit"] = "m"
    metres = top if unit == "m" else top / 1000
    reason = f"{_describe(found)}; read as {unit}, so up to about {metres:.3g} m"
    if unit == "mm" and found.form.bits == 16:
        reason += " (if a step is another length, give its scale below [dataset.sources])"
    return Modality(stream.name, kind, reason, None, {**rule, **_invalid(found)}, found.sizes)


def _floats(stream: Stream, found: Values) -> Modality:
    """Floating-point values without a length: spread over 16 bits, or over 8 in colour."""
    colour = found.form.channels >= 3
    low = float(found.raw.min()) if found.raw.size else 0.0
    high = float(np.percentile(found.raw, 99.9)) if found.raw.size else 1.0
    offset = -low if low < 0 else 0.0
    top = 255 if colour else FULL_16_BIT
    scale = float(f"{top / max(high + offset, 1e-9):.6g}")
    rule = {"bits": 32, "scale": scale, **({"offset": round(offset, 6)} if offset else {})}
    wide = {"disparity": "disparity", "nir": "nir16", "thermal": "thermal16", "dolp": "dolp"}
    kind = "rgb" if colour else wide.get(stream.family, "gray16")
    return Modality(
        stream.name, kind, f"{_describe(found)}; spread over {top}", None, rule, found.sizes
    )


def _invalid(found: Values) -> dict[str, Any]:
    """The largest 16-bit number, where it stands alone: a second way to say "nothing measured"."""
    if found.form.bits != 16 or found.form.colour:
        return {}
    others = found.raw[found.raw < FULL_16_BIT]
    is_mark = others.size < found.raw.size and others.size and others.max() < 0.9 * FULL_16_BIT
    return {"invalid": [FULL_16_BIT]} if is_mark else {}


def _describe(found: Values) -> str:
    measured = found.raw[found.raw != 0]
    span = f"{measured.min():.6g} to {measured.max():.6g}" if measured.size else "nothing but 0"
    holes = f", {found.holes:.0%} are 0" if found.holes >= 0.005 else ""
    return f"{found.form}, values {span}{holes}"


def _nice_above(value: float) -> float:
    """A round number with two digits, somewhat above `value`."""
    if value <= 0:
        return 0.0
    step = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(math.ceil(value * 1.05 / step) * step)
