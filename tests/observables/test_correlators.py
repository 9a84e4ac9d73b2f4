"""Two-time correlators against brute force, random walks, freud, and arrays that are no particles."""

import freud
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from packing_jax import PackingError
from packing_jax.observables import (
    average_over_origins,
    chi_4,
    correlators,
    lag_pairs,
    mean_squared_move,
    self_overlap,
    self_scattering,
)


def walk(shape: tuple[int, ...], step: float, seed: int) -> np.ndarray:
    """Gaussian random walks along the first axis."""
    return np.cumsum(step * np.random.default_rng(seed).standard_normal(shape), axis=0)


X = walk((7, 2, 50, 3), 0.3, 0)
Q = np.array([0.5, 2.0, 7.0])


def test_two_time_functions_equal_brute_force() -> None:
    start, end = np.arange(7)[:, None], np.arange(7)[None]
    move = X[None] - X[:, None]  # (start, end, sample, unit, component)
    square = np.sum(move**2, axis=-1)
    msd = mean_squared_move(X, start, end)
    assert isinstance(msd, jax.Array)
    assert msd.dtype == np.float32
    assert np.asarray(msd) == pytest.approx(square.mean(axis=-1), rel=1e-5, abs=1e-9)
    scattering = np.cos(Q * move[..., None]).mean(axis=(-3, -2))
    assert np.asarray(self_scattering(X, Q, start, end)) == pytest.approx(scattering, abs=1e-5)
    overlap = np.mean(square < 0.8**2, axis=-1)
    assert np.asarray(self_overlap(X, 0.8, start, end)) == pytest.approx(overlap, abs=1e-6)
    reaches = np.array([0.3, 0.8])
    assert np.asarray(self_overlap(X, reaches, start, end))[..., 1] == pytest.approx(overlap, abs=1e-6)


def test_shapes_follow_the_indices_and_the_samples() -> None:
    assert mean_squared_move(X, 0, 3).shape == (2,)
    assert mean_squared_move(X, 0, np.arange(7)).shape == (7, 2)
    assert mean_squared_move(X[:, 0], 0, np.arange(7)).shape == (7,)
    assert self_scattering(X, 1.0, 0, np.arange(7)).shape == (7, 2)
    assert self_scattering(X, Q, np.zeros((2, 3), int), 4).shape == (2, 3, 2, 3)
    weights = X.reshape(7, 2, 150, 1)  # a network's weights: units of one component
    assert np.asarray(mean_squared_move(weights, 0, 6) * 3) == pytest.approx(
        np.asarray(mean_squared_move(X, 0, 6)), rel=1e-5
    )


def test_a_random_walk() -> None:
    # 4000 independent units; each estimate is a mean over them, within five of its deviations (27 values: 2e-5)
    units, step, times = 4000, 0.2, np.arange(10)
    x = walk((10, units, 3), step, 1)
    variance = step**2 * times[1:]
    msd = np.asarray(mean_squared_move(x, 0, times[1:]))
    assert (np.abs(msd - 3 * variance) < 5 * variance * np.sqrt(6 / units)).all()
    fs = np.asarray(self_scattering(x, 2.0, 0, times[1:]))
    deviation = np.sqrt((1 - np.exp(-4 * variance)) ** 2 / 2 / (3 * units))  # of cos(q dx), Gaussian dx
    assert (np.abs(fs - np.exp(-2 * variance)) < 5 * deviation).all()
    # in one component, the chance to stay within a is erf(a / (2 variance)^(1/2))
    p = erf(0.3 / np.sqrt(2 * variance))
    overlap = np.asarray(self_overlap(x.reshape(10, -1, 1), 0.3, 0, times[1:]))
    assert (np.abs(overlap - p) < 5 * np.sqrt(p * (1 - p) / (3 * units))).all()


def test_lag_average_equals_freud() -> None:
    x = X[:, 0]
    start, end = lag_pairs(np.arange(7))
    found = average_over_origins(np.arange(7), start, end, mean_squared_move(x, start, end))
    msd = freud.msd.MSD(mode="window").compute(x)
    assert found.lag.tolist() == list(range(7))
    assert found.origins.tolist() == [7, 6, 5, 4, 3, 2, 1]
    assert found.value == pytest.approx(msd.msd, rel=1e-4, abs=1e-5)


def test_lags_of_uneven_records() -> None:
    times = np.array([0, 1, 2, 4, 8])
    start, end = lag_pairs(times, np.array([4, 2]))
    assert list(zip(start, end, strict=True)) == [(0, 2), (0, 3), (2, 3), (3, 4)]
    values = np.arange(8.0).reshape(4, 2)
    found = average_over_origins(times, start, end, values)
    assert found.lag.tolist() == [2, 4]
    assert found.value == pytest.approx(np.array([(values[0] + values[2]) / 2, (values[1] + values[3]) / 2]))


def test_lags_that_rounding_tells_apart_are_the_same() -> None:
    times = 0.1 * np.arange(6)
    start, end = lag_pairs(times)
    assert len(np.unique(times[end] - times[start])) > 6
    found = average_over_origins(times, start, end, np.ones(len(start)))
    assert found.lag == pytest.approx(times)
    assert found.origins.tolist() == [6, 5, 4, 3, 2, 1]
    assert [len(part) for part in lag_pairs(times, np.array([0.3, 0.1]))] == [8, 8]
    with pytest.raises(PackingError, match=r"no two records are 0\.25 apart"):
        lag_pairs(times, np.array([0.25]))
    single = times.astype(np.float32)
    assert average_over_origins(single, start, end, np.ones(len(start))).origins.tolist() == [6, 5, 4, 3, 2, 1]
    # different lags stay so, however long the record is
    for long in (np.array([0, 1, 2, 3, 4 * 10**9]), np.r_[0.0, np.geomspace(1e-3, 1e7, 40)]):
        start, end = lag_pairs(long)
        assert average_over_origins(long, start, end, np.ones(len(start))).origins[0] == len(long)


def test_small_moves_far_from_the_origin() -> None:
    # float32 coordinates of 1000 resolve 6e-5; float64 ones on the host are compared before they are rounded
    small = 1e-6 * X + 1000.0
    found = np.asarray(mean_squared_move(small, 0, 6))
    assert found == pytest.approx(1e-12 * np.sum((X[6] - X[0]) ** 2, axis=-1).mean(axis=-1), rel=1e-3)


def test_means_of_many_units(monkeypatch: pytest.MonkeyPatch) -> None:
    # a million equal float32 numbers summed in a row drift in the fourth digit
    units = 2**20 + 3
    x = np.zeros((2, units, 1), np.float32)
    x[1] = 0.1
    assert float(mean_squared_move(x, 0, 1)) == pytest.approx(0.01, rel=3e-7)
    monkeypatch.setattr(correlators, "_MEAN_SIZE", 64)
    uneven = X[:, :, :47]  # 3 x 47 cosines are three blocks
    expected = np.cos(Q[1] * (uneven[5] - uneven[2])).mean(axis=(-2, -1))
    assert np.asarray(self_scattering(uneven, Q[1], 2, 5)) == pytest.approx(expected, abs=1e-6)


def test_double_precision() -> None:
    with jax.enable_x64(True):
        found = mean_squared_move(jnp.asarray(X), 1, 4)
        assert found.dtype == np.float64
        expected = np.sum((X[4] - X[1]) ** 2, axis=-1).mean(axis=-1)
        assert np.asarray(found) == pytest.approx(expected, rel=1e-12)


def test_unwrapping_by_numpy() -> None:
    # as the module's docstring says
    x = walk((50, 20, 2), 0.1, 3)
    unwrapped = np.unwrap(np.mod(x, 1.0), period=1.0, axis=0)
    assert np.asarray(mean_squared_move(unwrapped, 0, 49)) == pytest.approx(
        np.asarray(mean_squared_move(x, 0, 49)), rel=1e-4
    )


# --- chi_4 ----------------------------------------------------------------------------------------------------


def test_chi_4_of_independent_and_of_rigid_units() -> None:
    # 20 runs of 200 samples: chi_4 has a deviation of 10 % each; z of unit variance, so that an rms of 20 is
    # 1 +- 0.16, and 0.4 to 1.6 are four deviations
    rng = np.random.default_rng(4)
    p, units = 0.3, 400
    q = rng.binomial(units, p, (20, 200)) / units
    free = chi_4(q, units)
    assert free.value == pytest.approx(units * np.var(q, axis=-1, ddof=1))
    assert 0.4 < np.sqrt(np.mean(((free.value - p * (1 - p)) / free.stderr) ** 2)) < 1.6
    together = chi_4(rng.binomial(1, p, (200, 3)), units, axis=0)
    assert together.value == pytest.approx(units * p * (1 - p), rel=0.3)
    assert together.value.shape == (3,)


def test_jackknife_by_hand() -> None:
    q = np.random.default_rng(5).random(7)
    left_out = np.array([10 * np.var(np.delete(q, k), ddof=1) for k in range(7)])
    expected = np.sqrt(6 / 7 * np.sum((left_out - left_out.mean()) ** 2))
    assert chi_4(q, 10).stderr == pytest.approx(expected, rel=1e-10)


# --- what is refused ------------------------------------------------------------------------------------------


def test_bad_input_is_refused() -> None:
    for x, start, end, sentence in [
        (X[:, 0, 0], 0, 1, "units, components"),
        (X[:, :, :0], 0, 1, "empty"),
        (np.zeros((3, 4, 2), int), 0, 1, "real numbers"),
        (X, 0, 7, "0 to 6"),
        (X, -1, 0, "0 to 6"),
        (X, 0, 1.0, "whole numbers"),
    ]:
        with pytest.raises(PackingError, match=sentence):
            mean_squared_move(x, start, end)
    with pytest.raises(PackingError, match="list"):
        self_scattering(X, np.ones((2, 2)), 0, 1)
    with pytest.raises(PackingError, match="increasing"):
        lag_pairs(np.array([0, 2, 1]))
    with pytest.raises(PackingError, match="5 apart"):
        lag_pairs(np.array([0, 1, 3]), np.array([1, 5]))
    with pytest.raises(PackingError, match="same first axis"):
        average_over_origins(np.arange(2), np.zeros(1, int), np.ones(1, int), np.ones(2))
    with pytest.raises(PackingError, match="three or more"):
        chi_4(np.ones(2), 4)
    with pytest.raises(PackingError, match="units"):
        chi_4(np.ones(3), 0)
    with pytest.raises(PackingError, match="no axis 1"):
        chi_4(np.ones(3), 4, axis=1)
    with pytest.raises(PackingError, match="finite"):
        self_scattering(X, np.nan, 0, 1)
