"""What each sensor makes of a scene: RGB, depth, event camera and LiDAR, with their corner cases.

Every function takes true quantities and a random stream of its own, so a fault of one sensor leaves the
others untouched. No sensor sees class or material ids.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.synthetic.primitives import F32
from pipeline.datasets.synthetic.raycast import Lens
from pipeline.datasets.synthetic.weather import Weather

U8 = NDArray[np.uint8]
U16 = NDArray[np.uint16]

EVENT_THRESHOLD = 0.18
"""Change of log intensity that fires one event."""
MAX_EVENTS = 5
"""Counts saturate here; a count of 5 is stored as 255."""
EVENT_DARK = 0.004
"""Dark current in units of radiance: below it, change is not seen."""
LOW_RES_BLOCK_PX = 4
LIDAR_ROWS_DEG: tuple[float, float, int] = (-30.0, 12.0, 36)
"""Lowest and highest elevation and the number of beams."""
LIDAR_STEP_DEG = 0.7
LIDAR_NOISE_M = 0.02
LIDAR_REACH_M = 60.0
"""Range at which a clear-air return has a chance of about a half."""
DEPTH_NOISE = 0.004
"""Relative standard deviation of the depth camera."""
_GAIN = {"overexposure": 5.0, "underexposure": 0.07}


@cache
def _display_curve() -> F32:
    """sRGB transfer of 4096 linear levels to 0..1."""
    linear = np.linspace(0, 1, 4096, dtype=np.float32)
    curve = 1.055 * np.power(linear, 1 / 2.4, dtype=np.float32) - 0.055
    return np.where(linear <= 0.0031308, 12.92 * linear, curve).astype(np.float32)


def rgb_image(radiance: F32, weather: Weather, corner_case: str, rng: np.random.Generator) -> U8:
    """(H, W, 3) sRGB from (3, H, W) radiance: blur, exposure, transfer curve, noise."""
    angle = rng.uniform(-0.5, 0.5)
    if corner_case == "motionblur":
        radiance = _shake(radiance, angle)
    gain = weather.exposure * _GAIN.get(corner_case, 1.0)
    level = np.minimum(radiance * np.float32(gain * 4095), np.float32(4095)).astype(np.int16)
    image = _display_curve()[level]
    image += np.float32(weather.noise) * rng.standard_normal(image.shape, dtype=np.float32)
    codes = np.clip(image * 255 + 0.5, 0, 255).astype(np.uint8)
    return np.ascontiguousarray(codes.transpose(1, 2, 0))


def _shake(radiance: F32, angle: float) -> F32:
    """Mean over a straight camera movement of a fourteenth of the width; `angle` from level in radians."""
    length = max(radiance.shape[2] // 14, 3)
    total = np.zeros_like(radiance)
    for step in range(length):
        right = round((step - length / 2) * math.cos(angle))
        down = round((step - length / 2) * math.sin(angle))
        total += np.roll(radiance, (down, right), axis=(1, 2))
    return total / np.float32(length)


def rain_streaks(radiance: F32, share: float, rng: np.random.Generator) -> F32:
    """Radiance with bright slanted streaks; `share` of the pixels start one."""
    _, height, width = radiance.shape
    drops = (rng.random((height, width), dtype=np.float32) < share).astype(np.float32)
    length = max(height // 14, 3)
    veil = np.zeros_like(drops)
    for step in range(length):
        veil += np.roll(drops, (step, -(step // 4)), axis=(0, 1))
    return radiance + np.float32(0.13) * np.clip(veil, 0, 1)


def depth_image(depth: F32, rng: np.random.Generator) -> U16:
    """(H, W) millimetres along the camera axis with mild relative noise; 0 where nothing returns."""
    seen = np.isfinite(depth)
    noise = 1 + np.float32(DEPTH_NOISE) * rng.standard_normal(depth.shape, dtype=np.float32)
    return _millimetres(np.where(seen, depth, 0) * noise)


def _millimetres(metres: F32) -> U16:
    codes = np.clip(metres * np.float32(1000) + np.float32(0.5), 0, 65535)
    return np.asarray(codes, np.uint16)


def luminance(radiance: F32) -> F32:
    """(H, W) brightness of (3, H, W) radiance (Rec. 709)."""
    red, green, blue = radiance
    return np.asarray(0.2126 * red + 0.7152 * green + 0.0722 * blue, np.float32)


def event_image(
    before: F32, after: F32, noise_share: float, low_res: bool, rng: np.random.Generator
) -> U8:
    """(H, W, 3) events between two luminances: channel 0 brighter, channel 2 darker, 1 empty.

    A pixel fires once per `EVENT_THRESHOLD` of log-intensity change (thresholds scatter by a tenth);
    `noise_share` of the pixels fire once for no reason. Low resolution: pixels of 4 x 4.
    """
    change = np.log(after + np.float32(EVENT_DARK)) - np.log(before + np.float32(EVENT_DARK))
    height, width = change.shape
    block = LOW_RES_BLOCK_PX if low_res else 1
    if low_res:
        rows = np.add.reduceat(change, np.arange(0, height, block), axis=0)
        change = np.add.reduceat(rows, np.arange(0, width, block), axis=1) / np.float32(block**2)
    scatter = 1 + np.float32(0.1) * rng.standard_normal(change.shape, dtype=np.float32)
    counts = np.trunc(change / (np.float32(EVENT_THRESHOLD) * np.maximum(scatter, 0.5)))
    lottery = rng.random(change.shape, dtype=np.float32)
    counts += (lottery < noise_share / 2).astype(np.float32)
    counts -= (lottery > 1 - noise_share / 2).astype(np.float32)
    codes = np.clip(counts, -MAX_EVENTS, MAX_EVENTS) * (255 // MAX_EVENTS)
    if low_res:
        codes = codes.repeat(block, axis=0).repeat(block, axis=1)[:height, :width]
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.maximum(codes, 0)
    image[..., 2] = np.maximum(-codes, 0)
    return image


def lidar_image(
    depth: F32, lens: Lens, weather: Weather, jitter: bool, rng: np.random.Generator
) -> U16:
    """(H, W) millimetres of range at the pixels that a beam reaches, 0 elsewhere.

    The LiDAR sits at the camera, so its beams are rays of the same cast: beam rows x azimuth steps. Returns
    are lost with range and weather, and drops or fog send back some from close by. Jitter: the sensor shakes
    against the camera, row by row, so that points land beside what they measured.
    """
    azimuth, elevation = _beams(lens)
    noise = rng.standard_normal(azimuth.shape, dtype=np.float32)
    luck, ghost, near = rng.random((3, *azimuth.shape), dtype=np.float32)
    row, column, inside = _to_pixels(lens, azimuth, elevation)
    slope = np.sqrt(1 + lens.columns()[column] ** 2 + lens.rows()[row] ** 2)
    true = np.where(inside, depth[row, column], np.inf) * slope
    reach = LIDAR_REACH_M / (1 + 12 * weather.haze_per_m)
    kept = np.isfinite(true) & (luck > weather.lidar_loss)
    kept &= luck - weather.lidar_loss > (1 - weather.lidar_loss) * (
        1 - np.exp2(-((true / reach) ** 2))
    )
    measured = np.where(kept, true + np.float32(LIDAR_NOISE_M) * noise, 0)
    spurious = inside & (ghost < weather.lidar_ghosts) & (1 + 9 * near < true)
    measured = np.where(spurious, 1 + 9 * near, measured)
    if jitter:
        row, column, inside = _shaken_pixels(lens, azimuth, elevation, rng)
        measured = np.where(inside, measured, 0)
    image = np.zeros(depth.shape, np.uint16)
    order = np.argsort(-measured.ravel(), kind="stable")
    order = order[measured.ravel()[order] > 0]
    image[row.ravel()[order], column.ravel()[order]] = _millimetres(measured.ravel()[order])
    return image


def _beams(lens: Lens) -> tuple[F32, F32]:
    """(rows, steps) azimuth and elevation of every beam in radians."""
    low, high, count = LIDAR_ROWS_DEG
    half_view = math.atan(lens.size_px / 2 / lens.focal_px)
    num_steps = int(2 * half_view / math.radians(LIDAR_STEP_DEG))
    azimuth = (np.arange(num_steps) - (num_steps - 1) / 2) * math.radians(LIDAR_STEP_DEG)
    elevation = np.radians(np.linspace(low, high, count))
    grid = np.meshgrid(azimuth.astype(np.float32), elevation.astype(np.float32))
    return grid[0], grid[1]


def _to_pixels(
    lens: Lens, azimuth: F32, elevation: F32
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.bool_]]:
    """Pixel of each beam, and whether it is inside the image (outside ones are clipped to the edge)."""
    column = np.floor(np.tan(azimuth) * lens.focal_px + lens.size_px / 2).astype(np.intp)
    rise = np.tan(elevation) / np.cos(azimuth)
    row = np.floor(lens.horizon_px - rise * lens.focal_px).astype(np.intp)
    last = lens.size_px - 1
    inside = (column >= 0) & (column <= last) & (row >= 0) & (row <= last)
    return np.clip(row, 0, last), np.clip(column, 0, last), inside


def _shaken_pixels(
    lens: Lens, azimuth: F32, elevation: F32, rng: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.bool_]]:
    turn = np.radians(rng.choice((-1, 1)) * rng.uniform(1.5, 4.0))
    tilt = np.radians(rng.choice((-1, 1)) * rng.uniform(0.5, 2.0))
    wobble = np.radians(1.2) * rng.standard_normal((len(azimuth), 1), dtype=np.float32)
    return _to_pixels(
        lens, azimuth + np.float32(turn) + wobble.astype(np.float32), elevation + np.float32(tilt)
    )
