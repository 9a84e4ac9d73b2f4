"""The overlap of weights: a walk whose law is known, free diffusion simulated, and laws wrong by a factor of 1.1."""

import numpy as np
import pytest

from packing_jax.figures import weight_overlap as figure
from packing_jax.figures.figure import Run, verdict
from packing_jax.networks.theory import diffusion

RATE, SAMPLES, WIDTH = 1e-3, 600, 4e-4
LAGS = np.unique(np.geomspace(1, 10_000, 60).astype(int))


@pytest.fixture(scope="module")
def free(tmp_path_factory):
    """The rows of free diffusion at size smoke."""
    return figure._free(Run("smoke", 0, tmp_path_factory.mktemp("free")))[0]


def test_crossing_is_that_of_the_closed_form():
    q = diffusion.overlap(WIDTH, diffusion.mean_squared_displacement(1e-4, RATE, SAMPLES, LAGS))
    for level in figure._LEVELS:
        exact = diffusion.relaxation_time(level, WIDTH, 1e-4, RATE, SAMPLES)
        assert figure.crossing(LAGS, q, level) == pytest.approx(exact, rel=3e-3)
    found = figure.crossing([1, 2, 4], [[1.0, 0.8, 0.2], [1.0, 1.0, 1.0], [0.1, 0.0, 0.0]], 0.5)
    np.testing.assert_allclose(found, [2 * 2**0.5, np.nan, np.nan])


def walk(random, faster=1.0, slower_late=1.0, minima=6, weights=600):
    """A random walk of weights in the place of the network's, with its diffusion ``faster`` than it should be.

    After the second waiting time it is ``slower_late``.
    """
    overlap, msd, kurtosis = [], [], []
    for kt in figure._TEMPERATURES:
        for wait in (1.0, slower_late):
            steps = np.diff(LAGS, prepend=0) * (2 * kt * RATE / SAMPLES * faster / wait)
            x = np.cumsum(random.normal(size=(minima, weights, len(LAGS))) * np.sqrt(steps), axis=-1)
            overlap.append((np.abs(x) <= WIDTH).mean(axis=1))
            msd.append((x**2).mean(axis=1))
            kurtosis.append((x**4).mean(axis=1) / (3 * msd[-1] ** 2) - 1)
    shape = (len(figure._TEMPERATURES), 2, minima, len(LAGS))
    parts = (np.moveaxis(np.reshape(one, shape), 1, 2) for one in (overlap, msd, kurtosis))
    return figure.Motion(LAGS, *parts, WIDTH, SAMPLES)


def test_a_free_walk_is_found_free():
    """Within four standard errors of six minima, about 1 % for each row by Student's t; the seed is fixed."""
    rows = figure.compared(walk(np.random.default_rng(0)))
    assert {row.quantity for row in rows} < set(figure.FIGURE.resolution)
    for row in rows:
        if row.quantity != figure._SPREAD:
            assert abs(row.value - row.reference) < 4 * row.stderr, row
            assert row.stderr < 0.2
        else:
            assert row.value < 0.06  # the largest of 20 differences, each of standard deviation 0.015


def test_a_walk_that_is_not_free_is_found_out():
    random = np.random.default_rng(1)
    rows = {row.quantity: row for row in figure.compared(walk(random, faster=1.1, weights=6000))}
    for kt in figure._TEMPERATURES:
        for name in ("tau_90", "tau_e"):
            row = rows[figure._tau(name, kt)]
            assert row.value == pytest.approx(1 / 1.1, abs=4 * row.stderr)
            assert verdict(row, 0.04) == "no"
    rows = {row.quantity: row for row in figure.compared(walk(random, slower_late=1.1, weights=6000))}
    assert verdict(rows[figure._AGEING], 0.1) == "no"
    assert rows[figure._AGEING].value == pytest.approx(1.1, abs=0.04)


def test_free_diffusion_simulated(free):
    """Within three standard errors of eight replicas, 2 % for each row; the seed is fixed."""
    for row in free:
        assert abs(row.value - row.reference) < 3 * np.hypot(row.stderr, row.reference_error), row


def test_a_law_wrong_by_a_factor_is_rejected(free):
    assert len(free) == 5
    for row in free:
        gate = figure.FIGURE.resolution[row.quantity]
        wrong = row._replace(reference=1.1 * row.reference)
        assert verdict(wrong, gate) == verdict(wrong._replace(stderr=gate), gate) == "no"
