"""Each sensor on inputs with known answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.datasets.synthetic import sensors
from pipeline.datasets.synthetic.raycast import Lens
from pipeline.datasets.synthetic.weather import WEATHERS

CLEAR = replace(WEATHERS["cloud"], noise=0.0, lidar_loss=0.0, haze_per_m=0.0)
LENS = Lens.from_view(96, 72, 0.5)
GRAY = np.full((3, 96, 96), 0.2140, np.float32)
"""sRGB 127.5."""


def _rng() -> np.random.Generator:
    return np.random.default_rng(3)


def test_rgb_follows_the_srgb_curve():
    image = sensors.rgb_image(GRAY, CLEAR, "", _rng())
    assert image.shape == (96, 96, 3)
    assert np.abs(image.astype(int) - 127).max() <= 1


def test_exposure_faults_move_rgb_the_right_way():
    plain, over, under = (
        sensors.rgb_image(GRAY, CLEAR, case, _rng()).mean()
        for case in ("", "overexposure", "underexposure")
    )
    assert under < 0.4 * plain
    assert over == 255


def test_motion_blur_keeps_brightness_and_loses_edges():
    stripes = GRAY.copy()
    stripes[:, :, ::8] = 1.0
    sharp, blurred = (
        sensors.rgb_image(stripes, CLEAR, case, _rng()).astype(float) for case in ("", "motionblur")
    )
    assert np.abs(np.diff(blurred, axis=1)).mean() < 0.4 * np.abs(np.diff(sharp, axis=1)).mean()


def test_depth_noise_is_mild_relative_and_holes_stay_holes():
    depth = np.full((96, 96), 20.0, np.float32)
    depth[:10] = np.inf
    depth[90:] = 80.0
    image = sensors.depth_image(depth, _rng())
    assert (image[:10] == 0).all()
    assert (image[90:] == 65535).all()
    error = image[10:90] / 20_000 - 1
    assert abs(error.mean()) < 1e-3
    assert error.std() == pytest.approx(sensors.DEPTH_NOISE, rel=0.1)


def _events(before, after, noise=0.0, low_res=False):
    return sensors.event_image(before, after, noise, low_res, _rng())


def test_equal_exposures_fire_no_event():
    light = np.random.default_rng(0).random((40, 40), dtype=np.float32)
    assert _events(light, light).max() == 0
    assert _events(light, light, low_res=True).max() == 0


def test_events_count_steps_of_log_intensity_by_sign():
    before = np.full((30, 30), 0.5, np.float32)
    after = before.copy()
    after[:10] *= np.float32(np.exp(2.5 * sensors.EVENT_THRESHOLD))
    after[20:] *= np.float32(np.exp(-40 * sensors.EVENT_THRESHOLD))
    image = _events(before, after)
    assert np.median(image[:10, :, 0]) == 2 * 51
    assert image[:10, :, 2].max() == 0
    assert (image[20:, :, 2] == 255).all()
    assert image[10:20].max() == 0
    assert image[..., 1].max() == 0


def test_event_noise_fires_the_asked_share():
    light = np.full((200, 200), 0.3, np.float32)
    image = _events(light, light, noise=0.02)
    assert (image.max(axis=2) > 0).mean() == pytest.approx(0.02, rel=0.2)
    assert set(np.unique(image)) == {0, 51}


def test_low_resolution_events_come_in_blocks_at_any_size():
    rng = np.random.default_rng(1)
    before, after = rng.random((2, 30, 34), dtype=np.float32)
    image = _events(before, after, low_res=True)
    assert image.shape == (30, 34, 3)
    blocks = image[:28, :32].reshape(7, 4, 8, 4, 3)
    assert (blocks == blocks[:, :1, :, :1]).all()


def _lidar(depth, weather=CLEAR, jitter=False):
    return sensors.lidar_image(depth, LENS, weather, jitter, _rng())


def _range(depth):
    columns, rows = LENS.columns()[None, :], LENS.rows()[:, None]
    return depth * np.sqrt(1 + columns**2 + rows**2)


def test_lidar_is_sparse_and_measures_range():
    depth = np.full((96, 96), 8.0, np.float32)
    image = _lidar(depth)
    hit = image > 0
    assert 0.05 < hit.mean() < 0.45
    error = image[hit] / 1000 - _range(depth)[hit]
    assert abs(error.mean()) < 0.002
    assert error.std() == pytest.approx(sensors.LIDAR_NOISE_M, rel=0.15)


def test_lidar_sees_no_sky_and_loses_the_distance():
    depth = np.full((96, 96), np.inf, np.float32)
    assert _lidar(depth).max() == 0
    shares = [(_lidar(np.full_like(depth, d)) > 0).mean() for d in (5.0, 30.0, 60.0, 110.0)]
    assert shares == sorted(shares, reverse=True)
    assert shares[2] == pytest.approx(0.46 * shares[0], rel=0.25)


def test_fog_costs_returns_and_adds_ghosts_close_by():
    depth = np.full((96, 96), 40.0, np.float32)
    clear, fog = _lidar(depth), _lidar(depth, WEATHERS["fog"])
    assert (fog > 20_000).sum() < 0.8 * (clear > 20_000).sum()
    assert ((fog > 0) & (fog < 10_500)).sum() > 5
    assert ((clear > 0) & (clear < 10_500)).sum() == 0


def test_jitter_moves_points_and_keeps_their_ranges():
    depth = np.full((96, 96), 30.0, np.float32)
    depth[:, 48:] = 6.0
    plain, shaken = _lidar(depth), _lidar(depth, jitter=True)
    assert not np.array_equal(plain, shaken)
    wrong = np.abs(shaken / 1000 - _range(depth))[shaken > 0] > 5
    assert 0.005 < wrong.mean() < 0.3
    assert (np.abs(plain / 1000 - _range(depth))[plain > 0] < 0.2).all()


def test_the_nearest_of_several_beams_in_a_pixel_wins():
    lens = Lens.from_view(8, 72, 0.5)
    depth = np.full((8, 8), 10.0, np.float32)
    fog = replace(CLEAR, lidar_ghosts=1.0)
    image = sensors.lidar_image(depth, lens, fog, False, _rng())
    assert 0 < image[image > 0].max() < 10_000


def test_rain_adds_light_in_streaks_only():
    wet = sensors.rain_streaks(GRAY, 0.006, _rng())
    share = (wet > GRAY).any(axis=0).mean()
    assert 0.01 < share < 0.15
    assert wet.min() == GRAY.min()


def test_luminance_weighs_green_most():
    red, green, blue = (
        sensors.luminance(np.eye(3, dtype=np.float32)[i].reshape(3, 1, 1)) for i in range(3)
    )
    assert green > red > blue
    assert (red + green + blue).item() == pytest.approx(1)
