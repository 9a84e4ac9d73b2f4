"""Fits of S(q -> 0) on spectra and patterns whose law is known, and the number variance of known patterns."""

import itertools

import numpy as np
import pytest

from packing_jax import PackingError
from packing_jax.observables import (
    ShellAverage,
    fit_hyperuniformity,
    fit_zero_limit,
    isotropic_average,
    number_variance,
    structure_factor,
    wave_vectors,
)


def shell_average(law: np.ndarray, q: np.ndarray, waves: np.ndarray, rng: np.random.Generator) -> ShellAverage:
    """Averages of that many exponential waves of mean S(q)."""
    s = law * rng.gamma(waves, 1 / waves)
    return ShellAverage(q, s, s / np.sqrt(waves), waves.astype(np.int64))


Q = np.arange(1, 13) * 0.1
WAVES = 2.0 * np.arange(1, 13)  # as in two dimensions, one sample


@pytest.mark.parametrize("alpha", [0.45, 2.0])
def test_exponent_has_honest_errors(alpha: float) -> None:
    # 1000 draws: coverage of 95 % intervals is 0.95 +- 0.007, and a p-value below 0.05 as often as 0.05 +- 0.007
    rng = np.random.default_rng(1)
    fits = [fit_hyperuniformity(shell_average(0.3 * Q**alpha, Q, WAVES, rng), 1.25) for _ in range(1000)]
    exponent, error = (np.array([getattr(f, name) for f in fits]) for name in ("exponent", "exponent_stderr"))
    assert 0.93 <= np.mean(np.abs(exponent - alpha) < 1.96 * error) <= 0.97
    assert abs(exponent.mean() - alpha) < 4 * error.mean() / np.sqrt(1000)
    amplitude, error = (np.array([getattr(f, name) for f in fits]) for name in ("amplitude", "amplitude_stderr"))
    assert 0.93 <= np.mean(np.abs(amplitude - 0.3) < 1.96 * error) <= 0.97
    assert 0.02 < np.mean([f.p_value < 0.05 for f in fits]) < 0.08
    assert {f.shells for f in fits} == {12}


@pytest.mark.parametrize(("zero", "slope"), [(0.0, 0.212), (0.5, -0.3)])
def test_zero_limit_has_honest_errors(zero: float, slope: float) -> None:
    # 400 draws: 0.95 +- 0.011, so that 0.917 and 0.983 are three deviations
    rng = np.random.default_rng(2)
    fits = [fit_zero_limit(shell_average(zero + slope * Q**2, Q, 4 * WAVES, rng), 1.25) for _ in range(400)]
    value, error = (np.array([getattr(f, name) for f in fits]) for name in ("value", "value_stderr"))
    assert 0.917 <= np.mean([f.interval[0] < zero < f.interval[1] for f in fits]) <= 0.983
    assert np.mean(error) == pytest.approx(value.std(), rel=0.2)
    assert abs(value.mean() - zero) < 0.3 * value.std()
    found, error = (np.array([getattr(f, name) for f in fits]) for name in ("slope", "slope_stderr"))
    assert 0.917 <= np.mean(np.abs(found - slope) < 1.96 * error) <= 0.983
    assert np.mean([f.p_value < 0.05 for f in fits]) < 0.09


def test_a_wrong_law_has_a_small_p_value() -> None:
    rng = np.random.default_rng(3)
    flat = shell_average(0.05 + Q**4, Q, 50 * WAVES, rng)
    assert fit_hyperuniformity(flat, 1.25).p_value < 1e-6
    assert fit_zero_limit(flat, 1.25).p_value < 1e-6
    assert fit_zero_limit(flat, 1.25, power=4.0).p_value > 1e-3
    assert fit_zero_limit(flat, 1.25, power=4.0).value == pytest.approx(0.05, rel=0.1)


def test_window_and_units() -> None:
    exact = ShellAverage(Q, 0.3 * Q**1.5, Q, WAVES.astype(np.int64))
    fit = fit_hyperuniformity(exact, 0.85, q_min=0.15)
    assert fit.shells == 7
    assert (fit.exponent, fit.amplitude) == pytest.approx((1.5, 0.3), rel=1e-6)
    assert fit.p_value > 0.99
    other = fit_hyperuniformity(exact._replace(q=Q * 50), 42.5, q_min=7.5)
    assert other.exponent == pytest.approx(1.5, rel=1e-6)
    assert other.exponent_stderr == pytest.approx(fit.exponent_stderr, rel=1e-6)
    assert other.amplitude == pytest.approx(0.3 / 50**1.5, rel=1e-6)
    zero = fit_zero_limit(exact._replace(value=0.2 - 0.1 * Q), 0.85, power=1.0)
    assert (zero.value, zero.slope) == pytest.approx((0.2, -0.1), rel=1e-6)


def jittered(cells: int, dim: int, samples: int, moves: np.ndarray) -> np.ndarray:
    sites = np.array(list(itertools.product(range(cells), repeat=dim)), dtype=float)
    return np.asarray(sites + moves.reshape(samples, cells**dim, dim))


def test_jittered_lattice_has_exponent_two() -> None:
    # independent Gaussian moves of deviation s: S = 1 - exp(-q^2 s^2), that is s^2 q^2 to 0.7 % in the window.
    # Four deviations each: 1e-4 false alarms
    rng = np.random.default_rng(4)
    cells, s, samples = 32, 0.2, 40
    x = jittered(cells, 2, samples, s * rng.standard_normal(samples * cells**2 * 2))
    n = wave_vectors(2, 4.0)
    average = isotropic_average(n, structure_factor(x, n, float(cells)), float(cells))
    fit = fit_hyperuniformity(average, 0.8)
    assert abs(fit.exponent - 2) < 4 * fit.exponent_stderr < 0.4
    assert abs(fit.amplitude - s**2) < 4 * fit.amplitude_stderr
    assert fit.p_value > 1e-4
    zero = fit_zero_limit(average, 0.8)
    assert abs(zero.value) < 4 * zero.value_stderr < 0.002
    assert abs(zero.slope - s**2) < 4 * zero.slope_stderr + 0.01 * s**2


def test_heavy_tails_make_exponent_one() -> None:
    # Cauchy moves of width g in one dimension: S = 1 - exp(-2 g |q|), 2 g |q| to 2 % in the window
    rng = np.random.default_rng(5)
    cells, g, samples = 1024, 0.1, 20
    x = jittered(cells, 1, samples, g * rng.standard_cauchy(samples * cells))
    n = wave_vectors(1, 30.0)
    average = isotropic_average(n, structure_factor(x, n, float(cells)), float(cells))
    fit = fit_hyperuniformity(average, 0.19)
    assert abs(fit.exponent - 1) < 4 * fit.exponent_stderr < 0.25
    assert fit.p_value > 1e-4


def test_poisson_pattern_is_not_hyperuniform() -> None:
    x, n = np.random.default_rng(6).random((20, 300, 2)), wave_vectors(2, 6.0)
    average = isotropic_average(n, structure_factor(x, n, 1.0), 1.0)
    zero = fit_zero_limit(average, 40.0)
    assert abs(zero.value - 1) < 4 * zero.value_stderr < 0.4
    assert abs(fit_hyperuniformity(average, 40.0).exponent) < 4 * fit_hyperuniformity(average, 40.0).exponent_stderr


def test_fits_refuse_what_they_cannot_carry() -> None:
    good = ShellAverage(Q, Q, Q, WAVES.astype(np.int64))
    with pytest.raises(PackingError, match="2 shells"):
        fit_hyperuniformity(good, 0.25)
    with pytest.raises(PackingError, match="zero or not finite"):
        fit_hyperuniformity(good._replace(value=0 * Q), 1.25)
    with pytest.raises(PackingError, match="power"):
        fit_zero_limit(good, 1.25, power=0.0)


# --- number variance ------------------------------------------------------------------------------------------


def test_number_variance_of_poisson_patterns() -> None:
    # binomial: N p (1 - p). 36 z values of unit variance give an rms of 1 +- 0.12; 0.5 to 1.5 are four deviations
    rng = np.random.default_rng(7)
    radii = np.array([0.05, 0.12, 0.25])
    share = np.pi * radii**2
    z = []
    for seed in range(12):
        found = number_variance(rng.random((3, 400, 2)), radii, 1.0, windows=1000, seed=seed)
        z.append((found.variance - 400 * share * (1 - share)) / found.stderr)
        assert found.mean == pytest.approx(400 * share)
    assert 0.5 < np.sqrt(np.mean(np.square(z))) < 1.5


def test_number_variance_of_jittered_lattices_has_honest_errors() -> None:
    # Means of 10 patterns, twice: twelve z of unit variance (t, 9 dof), whose rms is between 0.5 and 1.7 but for 1 time
    # in 300
    rng, radii = np.random.default_rng(3), np.array([1.0, 3.0, 6.0, 9.0])
    sites, z = np.stack(np.meshgrid(*[np.arange(20.0)] * 2), -1).reshape(-1, 2), []
    for seed in range(3):
        patterns = sites + 0.3 * rng.standard_normal((2, 10, 400, 2))
        first, second = (number_variance(part, radii, 20.0, 400, seed) for part in patterns)
        z.append((first.variance - second.variance) / np.hypot(first.stderr, second.stderr))
    assert 0.5 < np.sqrt(np.mean(np.square(z))) < 1.7


def test_number_variance_of_a_chain_and_a_square_lattice() -> None:
    # A chain: the interval of length 2 R holds floor(2 R) or one more, so the variance is f (1 - f)
    radii = np.array([0.3, 1.25, 5.3])
    chain = np.arange(64.0)[:, None]
    f = (2 * radii) % 1
    found = number_variance(chain, radii, 64.0, windows=20_000)
    assert found.variance == pytest.approx(f * (1 - f), abs=4 * 0.25 / np.sqrt(20_000))
    # A square lattice: the same on a fine grid of places in one cell
    places = (np.stack(np.meshgrid(*[np.arange(60)] * 2), -1).reshape(-1, 2) + 0.5) / 60
    sites = np.array(list(itertools.product(range(-6, 7), repeat=2)), dtype=float)
    inside = np.linalg.norm(places[:, None] - sites, axis=-1)
    exact = [np.var(np.sum(inside < r, axis=1)) for r in (1.3, 4.1)]
    found = number_variance(jittered(16, 2, 1, np.zeros(512)), np.array([1.3, 4.1]), 16.0, windows=20_000)
    assert found.variance == pytest.approx(exact, rel=0.08, abs=0.05)
    # a Poisson pattern of this density would have 5.1 and 42 at these radii
    assert (found.variance < 0.6 * np.array([5.1, 42 * 0.2])).all()


def test_number_variance_refuses_bad_input() -> None:
    x = np.random.default_rng(8).random((10, 2))
    for radii in (np.array([0.6]), np.array([0.0]), np.array([])):
        with pytest.raises(PackingError, match="radii"):
            number_variance(x, radii, 1.0)
    with pytest.raises(PackingError, match="windows"):
        number_variance(x, np.array([0.1]), 1.0, windows=1)
