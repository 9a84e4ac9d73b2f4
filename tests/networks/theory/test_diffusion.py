"""Free diffusion of weights, against a random walk and the published numbers."""

import numpy as np
import pytest

from packing_jax.errors import PackingError
from packing_jax.networks.theory import diffusion

KT, RATE, SAMPLES = 0.3, 1e-3, 50


def test_published_numbers():
    unit = 0.01**2 * SAMPLES / (KT * RATE)
    tau_90, tau_e = (diffusion.relaxation_time(level, 0.01, KT, RATE, SAMPLES) for level in (0.9, np.exp(-1)))
    np.testing.assert_allclose([tau_90 / unit, tau_e / unit, tau_e / tau_90], [0.1848, 2.1815, 11.80], rtol=4e-4)


def test_overlap_falls_to_its_levels_and_as_a_square_root():
    for level in (0.9, np.exp(-1)):
        t = diffusion.relaxation_time(level, 0.01, KT, RATE, SAMPLES)
        moved = diffusion.mean_squared_displacement(KT, RATE, SAMPLES, t)
        np.testing.assert_allclose(diffusion.overlap(0.01, moved), level)
    late = diffusion.overlap(0.01, diffusion.mean_squared_displacement(KT, RATE, SAMPLES, [1e9, 4e9]))
    np.testing.assert_allclose(late[0] / late[1], 2, rtol=1e-6)
    assert diffusion.overlap(0.01, 0.0) == 1


@pytest.mark.parametrize("decay", [0.0, 1e-9, 30.0, 600.0])
def test_a_walk_step_by_step(decay):
    """The variance of theta' = (1 - mu lambda) theta + noise, and of its displacement, added up."""
    keep, step = 1 - RATE * decay, 2 * KT * RATE / SAMPLES
    variance, weight = 0.0, 1.0
    for _ in range(300):
        variance, weight = keep**2 * variance + step, keep * weight
    found = diffusion.variance_from_a_point(KT, RATE, SAMPLES, 300, decay)
    np.testing.assert_allclose(found, variance, rtol=1e-10)
    moved = diffusion.mean_squared_displacement(KT, RATE, SAMPLES, 300, decay)
    if decay > 1:
        at_rest = step / (1 - keep**2)
        np.testing.assert_allclose(moved, 2 * at_rest * (1 - weight), rtol=1e-10)
    else:
        np.testing.assert_allclose(moved, 300 * step, rtol=1e-8)


def test_small_steps_are_the_continuous_walk():
    rate, decay, t = 1e-6, 2.0, 400_000
    moved = diffusion.mean_squared_displacement(KT, rate, SAMPLES, t, decay)
    np.testing.assert_allclose(moved, 2 * KT / (SAMPLES * decay) * (1 - np.exp(-decay * rate * t)), rtol=1e-5)
    spread = diffusion.variance_from_a_point(KT, rate, SAMPLES, t, decay)
    np.testing.assert_allclose(spread, KT / (SAMPLES * decay) * (1 - np.exp(-2 * decay * rate * t)), rtol=1e-5)


def test_bad_input():
    with pytest.raises(PackingError, match="temperature"):
        diffusion.mean_squared_displacement(-1.0, RATE, SAMPLES, 1)
    with pytest.raises(PackingError, match="no such walk"):
        diffusion.variance_from_a_point(KT, RATE, SAMPLES, 1, 2000.0)
    with pytest.raises(PackingError, match="width"):
        diffusion.overlap(0.0, 1.0)
    with pytest.raises(PackingError, match="level"):
        diffusion.relaxation_time(1.0, 0.01, KT, RATE, SAMPLES)
