"""Closed forms of the Coulomb gas against quadrature and against eigenvalues of random matrices.

Samples have fixed seeds; with others a Kolmogorov test at p = 1e-4 gives a false alarm once in 10,000.
"""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import kstest

from packing_jax.errors import PackingError
from packing_jax.networks.theory import coulomb_gas, marchenko_pastur

W = 0.7


def symmetric(count, modes, width):
    """Matrices of a harmonic trap: variance w^2 on the diagonal, w^2/2 off it."""
    drawn = np.random.default_rng(5).standard_normal((count, modes, modes))
    return width * (drawn + np.swapaxes(drawn, 1, 2)) / 2


def distribution(density, low, high):
    """The distribution function of a density, by the trapezoidal rule."""
    x = np.linspace(low, high, 4001)
    y = density(x)
    total = np.concatenate([[0], np.cumsum((y[1:] + y[:-1]) / 2 * np.diff(x))])
    return lambda at: np.interp(at, x, total)


@pytest.mark.parametrize(("order", "exact"), [(0, 1.0), (1, 0.0), (2, 1.5), (3, 0.0), (4, 5.75)])
def test_moments_of_two_modes(order, exact):
    found, _ = quad(lambda x: (x - 2) ** order * coulomb_gas.two_mode_density(x, 2.0, W), 2 - 9 * W, 2 + 9 * W)
    assert found == pytest.approx(exact * W**order, abs=1e-9)
    assert coulomb_gas.two_mode_moment(order, W) == pytest.approx(exact * W**order, rel=1e-12, abs=1e-12)


def test_sixth_moment_of_two_modes():
    found, _ = quad(lambda x: x**6 * coulomb_gas.two_mode_density(x), -12, 12)
    assert coulomb_gas.two_mode_moment(6) == pytest.approx(found, rel=1e-9)


def test_surmise():
    assert quad(coulomb_gas.spacing_density, 0, 12)[0] == pytest.approx(1)
    assert quad(lambda s: s * coulomb_gas.spacing_density(s), 0, 12)[0] == pytest.approx(1)
    second = quad(lambda s: s**2 * coulomb_gas.spacing_density(s), 0, 12)[0]
    assert np.sqrt(second - 1) == pytest.approx(coulomb_gas.SPACING_VARIATION)
    assert pytest.approx(0.5227, abs=5e-5) == coulomb_gas.SPACING_VARIATION
    s = np.array([-1, 0, 0.3, 2.0])
    integrals = [quad(coulomb_gas.spacing_density, 0, max(one, 0))[0] for one in s]
    np.testing.assert_allclose(coulomb_gas.spacing_distribution(s), integrals, atol=1e-9)
    assert coulomb_gas.spacing_density(-1.0) == 0


def test_two_modes_are_those_of_a_matrix_and_a_tenth_more_is_not():
    values = np.linalg.eigvalsh(symmetric(10_000, 2, W))
    spacing = values[:, 1] - values[:, 0]
    scaled = spacing / coulomb_gas.mean_spacing(W)
    assert kstest(scaled, coulomb_gas.spacing_distribution).pvalue > 1e-4
    assert kstest(scaled * 1.1, coulomb_gas.spacing_distribution).pvalue < 1e-9
    one = np.where(np.arange(10_000) % 2, values[:, 0], values[:, 1])  # one of each pair: independent
    assert kstest(one, distribution(lambda x: coulomb_gas.two_mode_density(x, 0.0, W), -6, 6)).pvalue > 1e-4
    assert kstest(one, distribution(lambda x: coulomb_gas.two_mode_density(x, 0.0, 1.1 * W), -6, 6)).pvalue < 1e-4


def test_semicircle_of_many_modes():
    values = np.linalg.eigvalsh(symmetric(60, 80, W)).ravel()
    for factor, close in ((1.0, True), (1.1, False)):
        law = distribution(lambda x, f=factor: coulomb_gas.semicircle(x, 80, 0.0, f * W), -11, 11)
        assert (kstest(values, law).statistic < 0.01) == close  # rigid: closer than independent numbers would be


@pytest.mark.parametrize("ratio", [0.25, 1.0])
def test_marchenko_pastur(ratio):
    columns = 160
    rows = round(ratio * columns)
    drawn = W * np.random.default_rng(7).standard_normal((40, rows, columns))
    values = np.linalg.eigvalsh(drawn @ np.swapaxes(drawn, 1, 2) / columns).ravel()
    low, high = W**2 * (1 - ratio**0.5) ** 2, W**2 * (1 + ratio**0.5) ** 2
    # in the root of x, where the density is finite
    for factor, close in ((1.0, True), (1.1, False)):
        law = distribution(
            lambda s, f=factor: 2 * s * marchenko_pastur.density(s**2, ratio, f * W**2), 0.9 * low**0.5, high
        )
        assert (kstest(np.sqrt(values), law).statistic < 0.012) == close
    s = np.linspace(low**0.5, high**0.5, 20_001)[1:-1]
    y = 2 * s * marchenko_pastur.density(s**2, ratio, W**2)
    assert np.trapezoid(s**2 * y, s) == pytest.approx(W**2, rel=1e-4)
    assert np.trapezoid((s**2 - W**2) ** 2 * y, s) == pytest.approx(ratio * W**4, rel=1e-3)


def test_trace_of_a_free_matrix():
    """20,000 matrices: within 5 standard errors, a false alarm in 1e6."""
    start = np.diag([1.0, 0.5, 0.0])[:2]
    moved = start + np.sqrt(2 * 0.3 * 0.8) * np.random.default_rng(2).standard_normal((20_000, 2, 3))
    traces = (moved**2).sum(axis=(1, 2))
    law = coulomb_gas.free_trace(0.8, 0.3, 2, 3, 1.25)
    error = traces.std() / np.sqrt(len(traces))
    assert abs(traces.mean() - law) < 5 * error < 0.1 * law


def test_out_of_range():
    for call in (
        lambda: coulomb_gas.mean_spacing(0.0),
        lambda: coulomb_gas.two_mode_density(0.0, 0.0, -1.0),
        lambda: coulomb_gas.two_mode_moment(-2),
        lambda: coulomb_gas.semicircle(0.0, 0),
        lambda: marchenko_pastur.density(1.0, 1.5),
        lambda: marchenko_pastur.density(1.0, 0.5, 0.0),
    ):
        with pytest.raises(PackingError):
            call()
