"""Conditions and corner cases: which one a scene has, and what each does to light and sensors.

Radiances are linear and relative: 1 is a white surface under an overcast sky.
`DatasetError` on an unknown name.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.datasets.synthetic.dice import Dice
from pipeline.datasets.synthetic.primitives import Color
from pipeline.errors import DatasetError

CONDITIONS: tuple[str, ...] = ("cloud", "fog", "night", "rain", "sun")
CORNER_CASES: tuple[str, ...] = (
    "motionblur",
    "overexposure",
    "underexposure",
    "lidarjitter",
    "eventlowres",
)
CORNER_CASE_SHARE = 0.2
_ATTRIBUTE_STREAM = 0


@dataclass(frozen=True, slots=True)
class Weather:
    """Light and air of one condition."""

    ambient: Color
    """Light from the sky dome on an upward face."""
    sun: Color
    """Light of the sun on a facing surface; black where it is hidden."""
    zenith: Color
    horizon: Color
    haze_per_m: float
    """Extinction of the air; the haze has the horizon's colour."""
    clouds: float
    """Contrast of the clouds in the sky."""
    exposure: float
    noise: float
    """Standard deviation of the RGB sensor's noise, in display units (0..1)."""
    event_noise: float
    """Share of event pixels that fire for no reason."""
    lidar_loss: float
    """Share of LiDAR returns lost at any range."""
    lidar_ghosts: float
    """Share of LiDAR rays that return from drops or fog close by."""
    wet: float = 0.0
    """Mirror strength of level ground."""
    streaks: float = 0.0
    """Share of pixels in which a rain streak starts."""
    dark: bool = False
    """Lamps, headlights and windows are lit."""

    @property
    def sunny(self) -> bool:
        """Whether there are shadows."""
        return max(self.sun) > 0


WEATHERS: dict[str, Weather] = {
    "cloud": Weather(
        ambient=(0.92, 0.95, 1.0), sun=(0.0, 0.0, 0.0), zenith=(0.55, 0.60, 0.68),
        horizon=(0.80, 0.83, 0.86), haze_per_m=0.002, clouds=0.35, exposure=1.0, noise=0.012,
        event_noise=0.002, lidar_loss=0.04, lidar_ghosts=0.0,
    ),
    "fog": Weather(
        ambient=(0.80, 0.82, 0.84), sun=(0.0, 0.0, 0.0), zenith=(0.66, 0.68, 0.70),
        horizon=(0.62, 0.64, 0.66), haze_per_m=0.045, clouds=0.0, exposure=1.0, noise=0.012,
        event_noise=0.002, lidar_loss=0.08, lidar_ghosts=0.04,
    ),
    "night": Weather(
        ambient=(0.010, 0.012, 0.022), sun=(0.0, 0.0, 0.0), zenith=(0.002, 0.003, 0.010),
        horizon=(0.012, 0.012, 0.022), haze_per_m=0.003, clouds=0.1, exposure=1.5, noise=0.035,
        event_noise=0.010, lidar_loss=0.04, lidar_ghosts=0.0, dark=True,
    ),
    "rain": Weather(
        ambient=(0.46, 0.50, 0.56), sun=(0.0, 0.0, 0.0), zenith=(0.25, 0.28, 0.33),
        horizon=(0.42, 0.46, 0.51), haze_per_m=0.010, clouds=0.45, exposure=1.0, noise=0.018,
        event_noise=0.004, lidar_loss=0.15, lidar_ghosts=0.025, wet=0.9, streaks=0.006,
    ),
    "sun": Weather(
        ambient=(0.26, 0.33, 0.46), sun=(1.45, 1.28, 1.02), zenith=(0.07, 0.22, 0.68),
        horizon=(0.50, 0.68, 0.90), haze_per_m=0.001, clouds=0.12, exposure=1.0, noise=0.010,
        event_noise=0.002, lidar_loss=0.04, lidar_ghosts=0.0,
    ),
}  # fmt: skip


def scene_attributes(seed: int, index: int) -> tuple[str, str]:
    """(condition, corner case or "") that scene `index` of `seed` is rendered with; nothing is rendered."""
    dice = Dice(np.random.default_rng([seed, index, _ATTRIBUTE_STREAM]))
    condition = dice.pick(CONDITIONS)
    return condition, dice.pick(CORNER_CASES) if dice.chance(CORNER_CASE_SHARE) else ""


def check_attributes(condition: str, corner_case: str) -> None:
    """`DatasetError` unless both names are known."""
    if condition not in CONDITIONS:
        raise DatasetError(
            f"synthetic scene: unknown condition {condition!r}; expected one of {', '.join(CONDITIONS)}"
        )
    if corner_case and corner_case not in CORNER_CASES:
        raise DatasetError(
            f"synthetic scene: unknown corner case {corner_case!r}; expected '' or one of "
            f"{', '.join(CORNER_CASES)}"
        )
