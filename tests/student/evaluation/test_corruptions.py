"""Shares, values and independence of corrupted readings."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from student.evaluation.corruptions import (
    LOST_SHARES,
    NOISE_LEVELS,
    add_noise,
    generator,
    lose_elements,
)


def reading(seed: int = 0) -> torch.Tensor:
    return torch.randn(3, 40, 50, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("share", LOST_SHARES)
def test_elements_are_dropped_independently(share: float) -> None:
    before = reading()
    after = lose_elements(before, share, generator(0, "rmm", "a", "rgb"))
    lost = after == 0
    assert lost.float().mean() == pytest.approx(share, abs=0.03)
    assert torch.equal(after[~lost], before[~lost])
    assert not torch.equal(lost[0], lost[1])


@pytest.mark.parametrize("level", NOISE_LEVELS)
def test_salt_and_pepper_are_the_inputs_own_extremes(level) -> None:  # noqa: ANN001
    before = reading()
    after = add_noise(before, level, False, generator(0, "nm", "a", "event"))
    changed = after != before
    # Drawn with replacement, and salt may be peppered over.
    assert 0.8 * level.density < changed.float().mean() <= level.density
    assert set(after[changed].tolist()) == {float(before.max()), float(before.min())}


def test_gaussian_noise_has_its_sigma_and_events_have_none() -> None:
    level = NOISE_LEVELS[2]
    before = reading()
    quiet = add_noise(before, level, False, generator(0, "nm", "a", "rgb"))
    noisy = add_noise(before, level, True, generator(0, "nm", "a", "rgb"))
    assert (noisy - quiet).std() == pytest.approx(level.sigma, rel=0.05)
    assert (noisy - quiet).mean() == pytest.approx(0.0, abs=0.03)


def test_a_corruption_depends_on_its_names_alone() -> None:
    first = generator(1, "rmm", "0.5", "key", "rgb").random(4)
    np.testing.assert_array_equal(first, generator(1, "rmm", "0.5", "key", "rgb").random(4))
    for other in ((2, "rmm", "0.5", "key", "rgb"), (1, "rmm", "0.5", "key", "depth")):
        assert not np.allclose(first, generator(*other).random(4))
    before = reading()
    add_noise(before, NOISE_LEVELS[0], True, generator(0, "x"))
    assert torch.equal(before, reading())
